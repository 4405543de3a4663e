//! Images: the file tree that a command runs in instead of its slave's own, and how people name one.
//!
//! | written | is |
//! |---|---|
//! | `alpine`, `library/alpine:3.20`, `ghcr.io/org/app@sha256:…`, `localhost:5000/app:v1` | of a registry, as Docker reads it; Docker Hub's if no registry is named, `latest` if nothing is said |
//! | `oci:/srv/images/app`, `oci:/srv/images/app:v1`, `oci:/srv/images/app@sha256:…` | an OCI layout, a folder of the slave's |
//! | `oci-archive:/srv/images/app.tar:v1` | the same as a tarball |

use std::fmt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::fetch::Sha256;

/// The longest reference, in bytes: of a registry it has 255 for the repository, 128 for the tag, a host and
/// a digest; paths of slaves are short.
pub const REFERENCE_BYTES_MAX: usize = 1_024;
/// The longest program in place of an entrypoint, in bytes.
pub const ENTRYPOINT_BYTES_MAX: usize = 4_096;
/// The registry of images without one, as they are named.
pub const DOCKER_HUB: &str = "docker.io";
/// The tag of who names none.
pub const TAG_DEFAULT: &str = "latest";
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// The image of a command.
///
/// ```
/// use meros_proto::image::Image;
/// let image = Image::new("alpine:3.20");
/// assert_eq!(image.source().unwrap().to_string(), "docker.io/library/alpine:3.20");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where it is: see the module.
    pub reference: String,
    /// Runs this program in place of the image's entrypoint, and without the image's own arguments, as
    /// `docker run --entrypoint` does. Default: what the image says.
    #[serde(default)]
    pub entrypoint: Option<String>,
}

impl Image {
    /// The image of this name, as it is.
    #[must_use]
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            entrypoint: None,
        }
    }

    /// The same with another program to start.
    #[must_use]
    pub fn entrypoint(mut self, program: impl Into<String>) -> Self {
        self.entrypoint = Some(program.into());
        self
    }

    /// Whether a slave could know what is meant.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn check(&self) -> Result<(), String> {
        let entrypoint = self.entrypoint.as_deref();
        if entrypoint.is_some_and(|it| it.is_empty() || it.contains('\0')) {
            return Err("its entrypoint is empty or has a NUL byte".to_owned());
        }
        if entrypoint.is_some_and(|it| it.len() > ENTRYPOINT_BYTES_MAX) {
            return Err(format!(
                "its entrypoint is longer than {ENTRYPOINT_BYTES_MAX} bytes"
            ));
        }
        self.source().map(drop)
    }

    /// Where it comes from.
    ///
    /// # Errors
    /// What is wrong with the reference, for a person.
    pub fn source(&self) -> Result<ImageSource, String> {
        let text = self.reference.as_str();
        let shown: String = text.chars().take(200).collect();
        let wrong = |why: &str| format!("{shown:?} {why}");
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(wrong(&format!(
                "is longer than {REFERENCE_BYTES_MAX} bytes"
            )));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(
                "is empty, or has a blank, a control character or one that is not ASCII",
            ));
        }
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digest = digest.starts_with("sha256:").then(|| digest.parse().ok());
                let why = "has a digest that is not `sha256:` and 64 hexadecimal digits";
                (name, Some(digest.flatten().ok_or_else(|| wrong(why))?))
            }
        };
        for (prefix, is_archive) in [("oci:", false), ("oci-archive:", true)] {
            if let Some(rest) = name.strip_prefix(prefix) {
                let local = local(rest, digest).map_err(wrong)?;
                return Ok(match is_archive {
                    true => ImageSource::Archive(local),
                    false => ImageSource::Layout(local),
                });
            }
        }
        let name = name.strip_prefix("docker://").unwrap_or(name);
        let remote = remote(name, digest).map_err(wrong)?;
        Ok(ImageSource::Registry(remote))
    }
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A registry.
    Registry(RegistryImage),
    /// A folder of the slave's with an OCI layout.
    Layout(LocalImage),
    /// A tarball of that.
    Archive(LocalImage),
}

/// An image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryImage {
    /// The registry: a host, with a port if it has one of its own. [`DOCKER_HUB`] by that name.
    pub host: String,
    /// Which of its repositories.
    pub repository: String,
    /// One of its names there; the digest counts if both are given.
    pub tag: Option<String>,
    /// What its manifest adds up to.
    pub digest: Option<Sha256>,
}

/// An image among the slave's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalImage {
    /// The absolute path.
    pub path: String,
    /// One of the names in its index; not needed if it has only one.
    pub tag: Option<String>,
    /// What its manifest adds up to.
    pub digest: Option<Sha256>,
}

impl ImageSource {
    /// What its manifest must add up to, if that was said.
    #[must_use]
    pub fn digest(&self) -> Option<Sha256> {
        match self {
            Self::Registry(it) => it.digest,
            Self::Layout(it) | Self::Archive(it) => it.digest,
        }
    }

    /// The same image by its digest alone: as it can be had again.
    #[must_use]
    pub fn pinned(&self, digest: Sha256) -> Self {
        let mut pinned = self.clone();
        let (tag, old) = match &mut pinned {
            Self::Registry(it) => (&mut it.tag, &mut it.digest),
            Self::Layout(it) | Self::Archive(it) => (&mut it.tag, &mut it.digest),
        };
        *tag = None;
        *old = Some(digest);
        pinned
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tag, digest) = match self {
            Self::Registry(it) => {
                write!(f, "{}/{}", it.host, it.repository)?;
                (&it.tag, it.digest)
            }
            Self::Layout(it) => {
                write!(f, "oci:{}", it.path)?;
                (&it.tag, it.digest)
            }
            Self::Archive(it) => {
                write!(f, "oci-archive:{}", it.path)?;
                (&it.tag, it.digest)
            }
        };
        if let Some(tag) = tag {
            write!(f, ":{tag}")?;
        }
        digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !text.is_empty()
        && text.len() <= TAG_BYTES_MAX
        && text.bytes().all(plain)
        && !text.starts_with(['.', '-'])
}

/// A tag stands behind the last `:` of the last part.
fn split_tag(name: &str) -> Result<(&str, Option<String>), &'static str> {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[last..].rfind(':').map(|at| last + at) {
        None => Ok((name, None)),
        Some(at) if is_tag(&name[at + 1..]) => Ok((&name[..at], Some(name[at + 1..].to_owned()))),
        Some(_) => Err("has a tag that is none: 1 to 128 letters, digits, `_`, `.` and `-`"),
    }
}

fn local(name: &str, digest: Option<Sha256>) -> Result<LocalImage, &'static str> {
    let (path, tag) = split_tag(name)?;
    let is_plain = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.starts_with('/') || !is_plain {
        return Err("names no absolute path without `..`, such as oci:/srv/images/app:v1");
    }
    Ok(LocalImage {
        path: path.to_owned(),
        tag,
        digest,
    })
}

fn remote(name: &str, digest: Option<Sha256>) -> Result<RegistryImage, &'static str> {
    let (path, tag) = split_tag(name)?;
    // As Docker tells a registry from a folder of its own.
    let is_host =
        |part: &str| part.contains(['.', ':']) || part == "localhost" || part.starts_with('[');
    let (host, repository) = match path.split_once('/') {
        Some((host, rest)) if is_host(host) => (host.to_ascii_lowercase(), rest.to_owned()),
        _ => (DOCKER_HUB.to_owned(), path.to_owned()),
    };
    let host = match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_owned(),
        _ => host,
    };
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    let begins = |c: char| c.is_ascii_alphanumeric() || c == '[';
    if !host.bytes().all(in_host) || !host.starts_with(begins) {
        return Err("names a registry that is no host");
    }
    let repository = match host == DOCKER_HUB && !repository.contains('/') {
        true => format!("library/{repository}"),
        false => repository,
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let all = part
            .bytes()
            .all(|byte| plain(byte) || b"._-".contains(&byte));
        let ends = part.bytes().next().is_some_and(plain) && part.bytes().last().is_some_and(plain);
        all && ends
    };
    if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_part) {
        return Err(
            "names no repository: up to 255 small letters and digits, with `.`, `_`, `-` and `/` between",
        );
    }
    let tag = match (tag, digest) {
        (None, None) => Some(TAG_DEFAULT.to_owned()),
        (tag, _) => tag,
    };
    Ok(RegistryImage {
        host,
        repository,
        tag,
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        Image::new(text).source().map(|source| source.to_string())
    }

    #[test]
    fn references_are_read_as_docker_and_skopeo_read_them() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, expected) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("org/app:v1", "docker.io/org/app:v1"),
            ("docker://index.docker.io/a/b", "docker.io/a/b:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("LocalHost:5000/a/b/c", "localhost:5000/a/b/c:latest"),
            ("[::1]:5000/app:v1", "[::1]:5000/app:v1"),
            ("oci:/srv/a:b/app", "oci:/srv/a:b/app"),
            ("oci:/srv/app:v1", "oci:/srv/app:v1"),
            ("oci-archive:/srv/app.tar", "oci-archive:/srv/app.tar"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(read(expected).as_deref(), Ok(expected));
        }
        let both = format!("ghcr.io/a/b:v1@{digest}");
        let source = Image::new(&both).source().unwrap();
        assert_eq!(source.to_string(), both);
        let pinned = source.pinned(source.digest().unwrap());
        assert_eq!(pinned.to_string(), format!("ghcr.io/a/b@{digest}"));
    }

    #[test]
    fn what_names_no_image_is_refused_with_a_reason() {
        let long = "a".repeat(300);
        for (text, why) in [
            ("", "is empty"),
            ("a b", "blank"),
            ("App", "no repository"),
            ("a//b", "no repository"),
            ("../a", "no host"),
            ("h.de/", "no repository"),
            ("h.de/a?x", "no repository"),
            ("h$.de/a", "no host"),
            ("a:", "tag"),
            ("a:-x", "tag"),
            ("a@sha256:12", "digest"),
            ("a@md5:12", "digest"),
            (long.as_str(), "no repository"),
            ("oci:srv/app", "no absolute path"),
            ("oci:/srv/../app", "no absolute path"),
            ("oci-archive:", "no absolute path"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let endless = Image::new("a".repeat(REFERENCE_BYTES_MAX + 1));
        assert!(endless.check().unwrap_err().contains("longer"));
        for entrypoint in ["", "a\0", &"x".repeat(ENTRYPOINT_BYTES_MAX + 1)] {
            assert!(Image::new("a").entrypoint(entrypoint).check().is_err());
        }
    }
}
