//! Files that a task finds in its sandbox: where from, and what becomes of them there (Mesos's
//! `CommandInfo.URI`).

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most files of one command.
pub const URIS_MAX: usize = 64;
/// The longest URI, in bytes.
pub const URI_BYTES_MAX: usize = 4_096;
/// URIs and names of one command together, in bytes: descriptions travel in frames that have a bound.
pub const URIS_BYTES_MAX: usize = 64 << 10;
/// The longest name of a file in the sandbox, in bytes, folders included.
pub const OUTPUT_FILE_BYTES_MAX: usize = 1_024;
/// The most parts of such a name.
const OUTPUT_FILE_PARTS_MAX: usize = 64;
/// What the slave itself keeps in a sandbox.
const RESERVED: [&str; 6] = [
    "stdout", "stdout.1", "stderr", "stderr.1", ".tmp", ".rootfs",
];
/// Endings of what is unpacked.
const ARCHIVES: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".zip"];

/// A file that is fetched into the sandbox of a task before the task starts.
///
/// ```
/// use meros_proto::fetch::FetchUri;
/// let uri = FetchUri::new("https://example.org/tool-1.2.tar.gz").extract().cache();
/// assert_eq!(uri.name(), "tool-1.2.tar.gz");
/// assert!(uri.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchUri {
    /// `http://…`, `https://…`, `file:///…` or an absolute path on the slave, below a folder that the
    /// slave's configuration allows.
    pub value: String,
    /// What its bytes must add up to; absent: whatever comes is taken.
    #[serde(default)]
    pub digest: Option<Sha256>,
    /// Whether it is made executable. Then it is not unpacked.
    #[serde(default)]
    pub executable: bool,
    /// Whether it is unpacked into the sandbox instead of being put there, if its name ends as that of
    /// an archive: `.tar`, `.tar.gz`, `.tgz`, `.tar.xz`, `.txz`, `.zip`. Others are put there as they are.
    #[serde(default)]
    pub extract: bool,
    /// Whether the slave keeps it for other tasks. Without a `digest` it is then taken for unchanged
    /// as long as it is kept.
    #[serde(default)]
    pub cache: bool,
    /// Its name in the sandbox, in folders if it has `/`; absent: the last part of `value`.
    #[serde(default)]
    pub output_file: Option<String>,
}

impl FetchUri {
    /// A file from there, put into the sandbox under its own name.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            digest: None,
            executable: false,
            extract: false,
            cache: false,
            output_file: None,
        }
    }

    /// Its bytes must add up to this.
    #[must_use]
    pub fn digest(mut self, digest: Sha256) -> Self {
        self.digest = Some(digest);
        self
    }

    /// It is made executable.
    #[must_use]
    pub fn executable(mut self) -> Self {
        self.executable = true;
        self
    }

    /// It is unpacked if it is an archive.
    #[must_use]
    pub fn extract(mut self) -> Self {
        self.extract = true;
        self
    }

    /// The slave keeps it for other tasks.
    #[must_use]
    pub fn cache(mut self) -> Self {
        self.cache = true;
        self
    }

    /// Its name in the sandbox.
    #[must_use]
    pub fn output_file(mut self, name: impl Into<String>) -> Self {
        self.output_file = Some(name.into());
        self
    }

    /// Its name in the sandbox: `output_file`, or the last part of the path.
    #[must_use]
    pub fn name(&self) -> &str {
        if let Some(name) = &self.output_file {
            return name;
        }
        let path = self.value.split(['?', '#']).next().unwrap_or_default();
        let path = path.split_once("://").map_or(path, |(_, rest)| {
            // Without a path there is no name.
            rest.split_once('/').map_or("", |(_, path)| path)
        });
        path.rsplit('/').next().unwrap_or_default()
    }

    /// Whether it is unpacked.
    #[must_use]
    pub fn is_unpacked(&self) -> bool {
        let name = self.name().to_ascii_lowercase();
        self.extract && !self.executable && ARCHIVES.iter().any(|end| name.ends_with(end))
    }

    /// The path on the slave, if that is where it comes from.
    #[must_use]
    pub fn local_path(&self) -> Option<&str> {
        match self.value.split_once("://") {
            Some(("file", rest)) => Some(rest.strip_prefix("localhost").unwrap_or(rest)),
            Some(_) => None,
            None => Some(&self.value),
        }
    }

    /// Whether a slave could fetch it.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("{:?} {why}", shortened(&self.value)));
        if self.value.len() > URI_BYTES_MAX {
            return wrong(&format!("is longer than {URI_BYTES_MAX} bytes"));
        }
        if !self.value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return wrong(
                "has a blank, a control character or one that is not ASCII: escape it with %",
            );
        }
        match self.local_path() {
            Some(path) if !path.starts_with('/') => {
                return wrong("is no URI: give http://…, https://…, file:///… or an absolute path");
            }
            Some(_) => {}
            None => {
                let rest = self
                    .value
                    .strip_prefix("http://")
                    .or_else(|| self.value.strip_prefix("https://"));
                let Some(rest) = rest else {
                    return wrong("is fetched by no slave: give http, https or file");
                };
                if rest.is_empty() || rest.starts_with(['/', '?', '#', ':']) {
                    return wrong("names no host");
                }
            }
        }
        match check_name(self.name()) {
            Ok(()) => Ok(()),
            Err(why) => wrong(&format!(
                "would be {:?} in the sandbox, which {why}: give an output_file",
                shortened(self.name())
            )),
        }
    }
}

/// Whether all files of one command can be fetched.
///
/// # Errors
/// What is wrong with the first that cannot, for a person.
pub fn check_uris(uris: &[FetchUri]) -> Result<(), String> {
    if uris.len() > URIS_MAX {
        let got = uris.len();
        return Err(format!(
            "there are {got} files to fetch; at most {URIS_MAX} are allowed"
        ));
    }
    let mut bytes = 0;
    let mut names = BTreeSet::new();
    for uri in uris {
        uri.check()?;
        bytes += uri.value.len() + uri.output_file.as_ref().map_or(0, String::len);
        if !uri.is_unpacked() && !names.insert(uri.name()) {
            let name = shortened(uri.name());
            return Err(format!(
                "two files would be {name:?} in the sandbox: give one of them another output_file"
            ));
        }
    }
    match bytes > URIS_BYTES_MAX {
        true => Err(format!(
            "the URIs have {bytes} bytes; at most {URIS_BYTES_MAX} are allowed"
        )),
        false => Ok(()),
    }
}

/// Whether this can be the name of a file below a sandbox.
///
/// # Errors
/// What is wrong with it; goes on after "which".
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("is no name");
    }
    if name.len() > OUTPUT_FILE_BYTES_MAX {
        return Err("is longer than 1024 bytes");
    }
    if name.contains(char::is_control) {
        return Err("has control characters");
    }
    let parts: Vec<Component<'_>> = Path::new(name).components().collect();
    if !parts
        .iter()
        .all(|part| matches!(part, Component::Normal(_)))
        || name.ends_with('/')
    {
        return Err("leaves the sandbox, or is a folder");
    }
    if parts.len() > OUTPUT_FILE_PARTS_MAX {
        return Err("is in more than 64 folders");
    }
    // Compared as parts: `./stdout` is none of a sandbox's own by name only.
    match parts.first() {
        Some(Component::Normal(first))
            if RESERVED.iter().any(|own| first.to_str() == Some(*own)) =>
        {
            Err("is the slave's own there")
        }
        _ => Ok(()),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A SHA-256 digest, as `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

/// A text that is no digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits, as `sha256sum` prints them")]
pub struct ParseDigestError;

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text).as_bytes();
        if digits.len() != 64 {
            return Err(ParseDigestError);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(ParseDigestError);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let both = value(pair[0])? * 16 + value(pair[1])?;
            *byte = u8::try_from(both).map_err(|_| ParseDigestError)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = ParseDigestError;

    fn try_from(text: String) -> Result<Self, ParseDigestError> {
        text.parse()
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_its_output_file_or_the_end_of_its_path() {
        for (value, name) in [
            ("http://h/a/b.tar.gz?x=/y#z", "b.tar.gz"),
            ("https://h:1/b", "b"),
            ("http://h", ""),
            ("http://h/", ""),
            ("file:///a/b c".trim_end_matches(" c"), "b"),
            ("/a/b", "b"),
        ] {
            assert_eq!(FetchUri::new(value).name(), name, "{value}");
        }
        assert_eq!(FetchUri::new("/a/b").output_file("c/d").name(), "c/d");
    }

    #[test]
    fn what_cannot_be_fetched_or_would_leave_the_sandbox_is_refused_with_a_reason() {
        for (uri, why) in [
            (FetchUri::new(""), "is no URI"),
            (FetchUri::new("a/b"), "is no URI"),
            (FetchUri::new("file://a/b"), "is no URI"),
            (FetchUri::new("hdfs://h/a"), "fetched by no slave"),
            (FetchUri::new("http:///a"), "names no host"),
            (FetchUri::new("http://h/a b"), "has a blank"),
            (FetchUri::new("http://h/a\n"), "has a blank"),
            (FetchUri::new("http://h/"), "is no name"),
            (FetchUri::new("http://h/.."), "leaves the sandbox"),
            (
                FetchUri::new("/a").output_file("../a"),
                "leaves the sandbox",
            ),
            (FetchUri::new("/a").output_file("/a"), "leaves the sandbox"),
            (
                FetchUri::new("/a").output_file("a/../../b"),
                "leaves the sandbox",
            ),
            (FetchUri::new("/a").output_file("a/"), "leaves the sandbox"),
            (FetchUri::new("/a").output_file("stdout"), "slave's own"),
            (
                FetchUri::new("/a").output_file("./stdout"),
                "leaves the sandbox",
            ),
            (FetchUri::new("/a").output_file("a\0b"), "control"),
            (FetchUri::new("/a").output_file("x".repeat(2_000)), "longer"),
            (
                FetchUri::new("/a").output_file("a/".repeat(70) + "b"),
                "folders",
            ),
        ] {
            let error = uri.check().expect_err(&uri.value);
            assert!(error.contains(why), "{error}");
        }
        for good in [
            "http://h/a",
            "https://[::1]:1/a%20b",
            "file:///a",
            "file://localhost/a",
        ] {
            assert_eq!(FetchUri::new(good).check(), Ok(()));
        }
        let same = [FetchUri::new("http://h/a"), FetchUri::new("http://g/a")];
        assert!(check_uris(&same).unwrap_err().contains("two files"));
        let many = vec![FetchUri::new("http://h/a"); URIS_MAX + 1];
        assert!(check_uris(&many).unwrap_err().contains("at most 64"));
    }

    #[test]
    fn archives_are_known_by_their_names_and_programs_are_none() {
        let is_unpacked = |uri: FetchUri| uri.is_unpacked();
        assert!(is_unpacked(FetchUri::new("http://h/a.TAR.gz?x").extract()));
        assert!(is_unpacked(
            FetchUri::new("http://h/a").output_file("a.zip").extract()
        ));
        assert!(!is_unpacked(FetchUri::new("http://h/a.zip")));
        assert!(!is_unpacked(FetchUri::new("http://h/a.gz").extract()));
        assert!(!is_unpacked(
            FetchUri::new("http://h/a.zip").extract().executable()
        ));
    }

    #[test]
    fn digests_are_read_as_they_are_written() {
        let text = format!("sha256:{}", "0aF9".repeat(16));
        let digest: Sha256 = text.parse().unwrap();
        assert_eq!(digest.to_string(), text.to_lowercase());
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Sha256>(&json).unwrap(), digest);
        for bad in ["", "sha256:", "sha512:00", &"g".repeat(64), &"ä".repeat(32)] {
            assert_eq!(bad.parse::<Sha256>(), Err(ParseDigestError), "{bad}");
        }
    }
}
