//! What an image says of itself: index, manifest and configuration, of the OCI and of Docker, which have the same
//! fields. Of these only what is used is read; what is not known is passed over.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use meros_proto::fetch::Sha256;
use serde::Deserialize;
use serde_json::Value;

use super::error::Failure;

/// The largest index, manifest or configuration: what registries take of those who push.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The most layers, as with Docker.
pub(super) const LAYERS_MAX: usize = 127;
/// More variables or arguments than any program wants, in bytes.
const CONFIG_TEXT_BYTES_MAX: usize = 256 << 10;
/// The name of an image in an OCI layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Something by its digest.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Descriptor {
    pub(super) fn digest(&self) -> Result<Sha256, Failure> {
        let digest = self.digest.starts_with("sha256:");
        let digest = digest.then(|| self.digest.parse().ok()).flatten();
        digest.ok_or_else(|| {
            let shown: String = self.digest.chars().take(100).collect();
            Failure::Unsupported(format!("it has a digest that is not SHA-256: {shown:?}"))
        })
    }

    /// The name that an index gives it.
    pub(super) fn name(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(REF_NAME).map(String::as_str)
    }

    fn is_index(&self) -> bool {
        self.media_type.contains("index") || self.media_type.contains("manifest.list")
    }
}

/// The same image for several kinds of machines.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// The layers of an image, the lowest first.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

/// What a digest of an image may stand for.
#[derive(Debug)]
pub(super) enum Document {
    Index(Index),
    Manifest(Manifest),
}

impl Document {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let broken = |error: serde_json::Error| Failure::Corrupt(format!("its manifest: {error}"));
        let value: Value = serde_json::from_slice(bytes).map_err(broken)?;
        if value.get("manifests").is_some() {
            return serde_json::from_value(value)
                .map(Self::Index)
                .map_err(broken);
        }
        if value.get("fsLayers").is_some() {
            let why = "it is in the first format of Docker's, which has no digests of its configuration: push it again";
            return Err(Failure::Unsupported(why.to_owned()));
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(broken)?;
        if manifest.layers.len() > LAYERS_MAX {
            return Err(Failure::Unsupported(format!(
                "it has {} layers, more than {LAYERS_MAX}",
                manifest.layers.len()
            )));
        }
        Ok(Self::Manifest(manifest))
    }
}

/// The name of this machine's kind in images.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

fn platform_error<'a>(has: impl Iterator<Item = (&'a str, &'a str)>) -> Failure {
    let mut all: Vec<String> = has.map(|(os, arch)| format!("{os}/{arch}")).collect();
    all.sort();
    all.dedup();
    // Attestations stand in an index as well.
    all.retain(|it| it != "unknown/unknown");
    all.truncate(16);
    let has: String = all.join(", ").chars().take(400).collect();
    Failure::Platform {
        has,
        wants: format!("linux/{}", architecture()),
    }
}

impl Index {
    /// The image of this machine's kind.
    pub(super) fn choose(&self) -> Result<&Descriptor, Failure> {
        let mut entries = self.manifests.iter();
        let suits = |it: &&Descriptor| {
            let platform = it.platform.as_ref();
            platform.is_some_and(|it| it.os == "linux" && it.architecture == architecture())
        };
        if let Some(found) = entries.find(suits) {
            return Ok(found);
        }
        if let [only] = self.manifests.as_slice()
            && only.platform.is_none()
            && !only.is_index()
        {
            // Its configuration says what it is for.
            return Ok(only);
        }
        let platforms = self.manifests.iter().filter_map(|it| it.platform.as_ref());
        let platforms = platforms.map(|it| (it.os.as_str(), it.architecture.as_str()));
        Err(match self.manifests.is_empty() {
            true => Failure::Missing("its index is empty".to_owned()),
            false => platform_error(platforms),
        })
    }
}

/// What a program finds in an image, beside files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageConfig {
    pub(crate) user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
}

impl ImageConfig {
    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        let all = self.env.iter().flatten();
        let all = all.filter_map(|text| text.split_once('='));
        all.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .filter(|(name, value)| {
                !name.is_empty() && !name.contains('\0') && !value.contains('\0')
            })
            .collect()
    }

    pub(crate) fn entrypoint(&self) -> &[String] {
        self.entrypoint.as_deref().unwrap_or_default()
    }

    pub(crate) fn cmd(&self) -> &[String] {
        self.cmd.as_deref().unwrap_or_default()
    }

    /// Absolute; the root if nothing is said.
    pub(crate) fn working_dir(&self) -> &str {
        let it = self.working_dir.as_deref().unwrap_or_default();
        if it.starts_with('/') && !it.contains('\0') {
            it
        } else {
            "/"
        }
    }

    fn text_bytes(&self) -> usize {
        let lists = [&self.env, &self.entrypoint, &self.cmd];
        let lists = lists.into_iter().flatten().flatten().map(String::len);
        let others = [&self.user, &self.working_dir];
        lists.sum::<usize>() + others.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

/// The configuration of an image, with what its layers add up to when they are not compressed.
#[derive(Debug)]
pub(super) struct ConfigDocument {
    pub(super) config: ImageConfig,
    /// The lowest first.
    pub(super) diff_ids: Vec<Sha256>,
}

impl ConfigDocument {
    /// Refuses one for other machines.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(default)]
            os: String,
            #[serde(default)]
            architecture: String,
            #[serde(default)]
            config: Option<ImageConfig>,
            rootfs: RootFs,
        }
        #[derive(Deserialize)]
        struct RootFs {
            #[serde(default)]
            diff_ids: Vec<String>,
        }
        let broken = |why: String| Failure::Corrupt(format!("its configuration: {why}"));
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
        if raw.os != "linux" || raw.architecture != architecture() {
            let has = [(raw.os.as_str(), raw.architecture.as_str())];
            return Err(platform_error(has.into_iter()));
        }
        let config = raw.config.unwrap_or_default();
        if config.text_bytes() > CONFIG_TEXT_BYTES_MAX {
            return Err(broken(format!(
                "command and environment are longer than {CONFIG_TEXT_BYTES_MAX} bytes"
            )));
        }
        let diff_ids = raw.rootfs.diff_ids.iter().map(|text| {
            let wrong = |_| broken("a layer has no digest".to_owned());
            text.parse().map_err(wrong)
        });
        Ok(Self {
            config,
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
        })
    }
}

/// What bytes add up to.
pub(super) fn sha256(bytes: &[u8]) -> Sha256 {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    Sha256(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(manifests: &str) -> Result<u64, Failure> {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{manifests}]}}"#);
        let Document::Index(index) = Document::parse(text.as_bytes())? else {
            panic!("no index");
        };
        index.choose().map(|it| it.size)
    }

    fn entry(size: u64, platform: &str) -> String {
        let platform = match platform.split_once('/') {
            Some((os, arch)) => {
                format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#)
            }
            None => String::new(),
        };
        format!(r#"{{"mediaType":"m","digest":"sha256:00","size":{size}{platform}}}"#)
    }

    #[test]
    fn of_several_platforms_ours_is_taken_and_else_those_there_are_are_named() {
        let ours = format!("linux/{}", architecture());
        let several = [
            entry(1, "windows/amd64"),
            entry(2, "unknown/unknown"),
            entry(3, &ours),
            entry(4, &ours),
        ];
        assert_eq!(index(&several.join(",")).unwrap(), 3);
        assert_eq!(index(&entry(5, "")).unwrap(), 5);
        let error = index(&several[..2].join(",")).unwrap_err();
        let text = format!("it is for windows/amd64, and this slave is {ours}");
        assert!(error.to_string().starts_with(&text), "{error}");
        assert_eq!(error.code(), "image_platform");
        assert_eq!(index("").unwrap_err().code(), "image_missing");
    }

    #[test]
    fn what_is_no_image_of_ours_is_refused_with_a_code() {
        let code = |text: &str| Document::parse(text.as_bytes()).unwrap_err().code();
        assert_eq!(code("{"), "image_corrupt");
        assert_eq!(code("[]"), "image_corrupt");
        assert_eq!(
            code(r#"{"schemaVersion":1,"fsLayers":[]}"#),
            "image_unsupported"
        );
        let layer = r#"{"digest":"sha256:00","size":1}"#;
        let layers = vec![layer; LAYERS_MAX + 1].join(",");
        let text = format!(r#"{{"config":{layer},"layers":[{layers}]}}"#);
        assert_eq!(code(&text), "image_unsupported");
        let config = |text: &str| ConfigDocument::parse(text.as_bytes()).unwrap_err().code();
        let other = r#"{"os":"linux","architecture":"pdp11","rootfs":{"diff_ids":[]}}"#;
        assert_eq!(config(other), "image_platform");
        assert_eq!(config(r#"{"os":"linux"}"#), "image_corrupt");
    }
}
