//! Images of a registry, by the OCI distribution protocol: manifests and blobs over HTTPS, with the tokens that
//! registries such as Docker Hub want.
//!
//! A registry on this machine's own addresses, or one that an administrator names as insecure, is spoken to
//! without TLS. Credentials go to the registry and to the server of tokens that it names, and to nobody to
//! whom a redirect leads.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode, Uri};
use meros_proto::fetch::Sha256;
use meros_proto::image::{DOCKER_HUB, RegistryImage};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::error::Failure;
use super::manifest::{DOCUMENT_BYTES_MAX, Descriptor};
use crate::fetch;
use crate::fetch::http::{Http, Meter, REDIRECTS_MAX, follow, parse};
use crate::fetch::store::Incoming as Stored;

/// Where Docker Hub's images are.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Under what `docker login` keeps its credentials.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// What is understood, the better first.
const DOCUMENTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// The longest token.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// The largest answer of a server of tokens, and file of credentials.
const SMALL_BYTES_MAX: usize = 1 << 20;

/// One repository of a registry, while an image is brought.
#[derive(Debug)]
pub(super) struct Registry<'a> {
    http: &'a Http,
    base: String,
    repository: String,
    /// As `Basic` wants it.
    credentials: Option<String>,
    /// What was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        http: &'a Http,
        image: &RegistryImage,
        insecure: &[String],
        credentials: Option<&Path>,
    ) -> Result<Self, Failure> {
        let host = match image.host.as_str() {
            DOCKER_HUB => DOCKER_HUB_HOST,
            host => host,
        };
        let is_plain = is_own(host) || insecure.iter().any(|it| it == host);
        let scheme = if is_plain { "http" } else { "https" };
        let credentials = match credentials {
            Some(file) => read_credentials(file, &image.host)?,
            None => None,
        };
        Ok(Self {
            http,
            base: format!("{scheme}://{host}"),
            repository: image.repository.clone(),
            credentials,
            authorization: Mutex::default(),
        })
    }

    /// A manifest or an index by its tag or digest.
    pub(super) async fn document(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let path = format!("/v2/{}/manifests/{name}", self.repository);
        let response = self.get(&path, DOCUMENTS, name).await?;
        self.read(response, DOCUMENT_BYTES_MAX).await
    }

    /// A small blob; it is for the caller to see what it adds up to.
    pub(super) async fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let response = self.blob(descriptor.digest()?).await?;
        self.read(response, DOCUMENT_BYTES_MAX).await
    }

    /// A layer, of the size that was promised at most.
    pub(super) async fn layer(
        &self,
        descriptor: &Descriptor,
        into: &mut Stored,
        meter: &Meter,
    ) -> Result<(), Failure> {
        let response = self.blob(descriptor.digest()?).await?;
        let body = response.into_body();
        let received = self.http.receive(body, descriptor.size, into, meter).await;
        received.map_err(|why| match why {
            fetch::Failure::TooLarge { .. } => {
                let size = descriptor.size;
                Failure::Corrupt(format!(
                    "a layer is larger than the {size} bytes of its manifest"
                ))
            }
            why => Failure::Transfer(why),
        })
    }

    async fn blob(&self, digest: Sha256) -> Result<Response<Incoming>, Failure> {
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        self.get(&path, "*/*", &digest.to_string()).await
    }

    async fn read(&self, response: Response<Incoming>, most: u64) -> Result<Vec<u8>, Failure> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let body = Limited::new(response.into_body(), most).collect();
        let stall = self.http.stall;
        let body = tokio::time::timeout(stall, body).await;
        let body = body.map_err(|_| fetch::Failure::Stalled { bytes: 0 })?;
        let body = body.map_err(|error| fetch::Failure::Broken {
            bytes: 0,
            cause: error.to_string(),
        })?;
        Ok(body.to_bytes().to_vec())
    }

    /// Until somebody gives it: through redirects, and with a token if one is asked for.
    async fn get(
        &self,
        path: &str,
        accept: &'static str,
        name: &str,
    ) -> Result<Response<Incoming>, Failure> {
        let mut uri = parse(&format!("{}{path}", self.base))?;
        let own = uri.authority().cloned();
        let mut has_authorized = false;
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            if uri.authority() == own.as_ref()
                && let Some(authorization) = self.authorization.lock().clone()
            {
                headers.insert(AUTHORIZATION, authorization);
            }
            let response = self.http.get(&uri, &headers).await?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                StatusCode::UNAUTHORIZED if !has_authorized && uri.authority() == own.as_ref() => {
                    has_authorized = true;
                    self.authorize(&response).await?;
                }
                status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                    return Err(Failure::Denied(status.to_string()));
                }
                StatusCode::NOT_FOUND => {
                    let (base, repository) = (&self.base, &self.repository);
                    return Err(Failure::Missing(format!(
                        "{base} has no {name} of {repository}"
                    )));
                }
                status if status.is_redirection() => {
                    let next = response.headers().get(LOCATION).map(HeaderValue::to_str);
                    let next = next
                        .and_then(Result::ok)
                        .ok_or(fetch::Failure::Redirect("a redirect leads nowhere"))?;
                    uri = follow(&uri, next)?;
                }
                status => return Err(fetch::Failure::Status(status.as_u16()).into()),
            }
        }
        let why = "it is redirected more than ten times";
        Err(fetch::Failure::Redirect(why).into())
    }

    /// Does what the registry wants before it gives anything.
    async fn authorize(&self, refusal: &Response<Incoming>) -> Result<(), Failure> {
        let wanted = refusal.headers().get_all(WWW_AUTHENTICATE).iter();
        let wanted = wanted.filter_map(|it| Challenge::parse(it.to_str().ok()?));
        let denied = |why: &str| Failure::Denied(why.to_owned());
        let mut basic = false;
        for challenge in wanted {
            if challenge.scheme.eq_ignore_ascii_case("bearer") {
                let token = self.token(&challenge).await?;
                let value = HeaderValue::from_str(&format!("Bearer {token}"));
                let value = value.map_err(|_| denied("its token is none"))?;
                *self.authorization.lock() = Some(value);
                return Ok(());
            }
            basic |= challenge.scheme.eq_ignore_ascii_case("basic");
        }
        match (&self.credentials, basic) {
            (Some(credentials), true) => {
                *self.authorization.lock() = Some(basic_header(credentials)?);
                Ok(())
            }
            (None, true) => Err(denied("it wants credentials, and there are none for it")),
            _ => Err(denied(
                "it wants to be asked in a way that is not known here",
            )),
        }
    }

    async fn token(&self, challenge: &Challenge) -> Result<String, Failure> {
        let realm = challenge.get("realm").unwrap_or_default();
        let mut text = realm.to_owned();
        let scope = format!("repository:{}:pull", self.repository);
        let scope = challenge.get("scope").unwrap_or(&scope);
        let service = challenge.get("service").map(|it| ("service", it));
        for (name, value) in service.into_iter().chain([("scope", scope)]) {
            let sign = if text.contains('?') { '&' } else { '?' };
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
            text.push_str(&format!("{sign}{name}={value}"));
        }
        let uri = parse(&text)?;
        let is_weaker = self.base.starts_with("https:") && uri.scheme_str() != Some("https");
        if uri.host().is_none() || is_weaker {
            let why = "it wants a token of a server without TLS";
            return Err(Failure::Denied(why.to_owned()));
        }
        let mut headers = HeaderMap::new();
        if let Some(credentials) = &self.credentials {
            headers.insert(AUTHORIZATION, basic_header(credentials)?);
        }
        let response = self.http.get(&uri, &headers).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(Failure::Denied("it gives no token".to_owned()));
            }
            status => return Err(fetch::Failure::Status(status.as_u16()).into()),
        }
        let body = self.read(response, SMALL_BYTES_MAX as u64).await?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let token = body.get("token").or_else(|| body.get("access_token"));
        let token = token.and_then(Value::as_str);
        let token = token.filter(|it| !it.is_empty() && it.len() <= TOKEN_BYTES_MAX);
        token
            .map(str::to_owned)
            .ok_or_else(|| Failure::Denied("its token is none".to_owned()))
    }
}

fn basic_header(credentials: &str) -> Result<HeaderValue, Failure> {
    let header = HeaderValue::from_str(&format!("Basic {credentials}"));
    let mut header =
        header.map_err(|_| Failure::Denied("the credentials for it are none".to_owned()))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Whether a registry is this machine itself, where nobody listens in between.
fn is_own(host: &str) -> bool {
    let uri: Option<Uri> = format!("http://{host}").parse().ok();
    let name = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

/// Out of a file as `docker login` writes it: `{"auths":{"host":{"auth":"…"}}}`. Read each time: who changes
/// it need not restart the slave.
fn read_credentials(file: &Path, host: &str) -> Result<Option<String>, Failure> {
    let wrong = |why: String| {
        Failure::Denied(format!(
            "the credentials in {} cannot be read: {why}",
            file.display()
        ))
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(|error| wrong(error.to_string()))?;
    let read = opened
        .take(SMALL_BYTES_MAX as u64)
        .read_to_string(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    // Without the cause: it would quote what is secret.
    let all: Value = serde_json::from_str(&text).map_err(|_| wrong("it is no JSON".to_owned()))?;
    let keys = match host {
        DOCKER_HUB => vec![DOCKER_HUB_KEY.to_owned(), DOCKER_HUB.to_owned()],
        host => vec![host.to_owned(), format!("https://{host}")],
    };
    let auths = all.get("auths");
    let found = keys
        .iter()
        .find_map(|key| auths?.get(key)?.get("auth")?.as_str());
    Ok(found.map(str::to_owned))
}

/// What a registry wants: `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut parameters = Vec::new();
        while let Some((name, value)) = rest.split_once('=') {
            let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
            let (value, behind) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            parameters.push((name, value.to_owned()));
            rest = behind;
        }
        let scheme = scheme.to_owned();
        (!scheme.is_empty()).then_some(Self { scheme, parameters })
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter();
        all.find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_wants_is_read_however_it_is_written() {
        let text = r#"Bearer realm="https://auth.h/token?x=1", service="h", scope="repository:a/b:pull,push""#;
        let found = Challenge::parse(text).unwrap();
        assert_eq!(found.scheme, "Bearer");
        assert_eq!(found.get("realm"), Some("https://auth.h/token?x=1"));
        assert_eq!(found.get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(Challenge::parse("Basic").unwrap().parameters, []);
        assert_eq!(
            Challenge::parse("basic realm=a,x=b").unwrap().get("x"),
            Some("b")
        );
        assert_eq!(Challenge::parse(r#"Bearer realm="a"#), None);
        assert_eq!(Challenge::parse(""), None);
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for own in ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000"] {
            assert!(is_own(own), "{own}");
        }
        for other in ["h.de", "10.0.0.1:5000", "localhost.de", "127.0.0.1.de"] {
            assert!(!is_own(other), "{other}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_registry_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let text =
            r#"{"auths":{"h:1":{"auth":"YTpi"},"https://index.docker.io/v1/":{"auth":"Yzpk"}}}"#;
        std::fs::write(&file, text).unwrap();
        let read = |host: &str| read_credentials(&file, host).unwrap();
        assert_eq!(read("h:1").as_deref(), Some("YTpi"));
        assert_eq!(read(DOCKER_HUB).as_deref(), Some("Yzpk"));
        assert_eq!(read("h"), None);
        std::fs::write(&file, "secret").unwrap();
        let error = read_credentials(&file, "h").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
