//! Who a peer is: the role and name in its certificate, and the files that hold our own.
//!
//! Role and name are a URI in the certificate's subject alternative names,
//! `meros://<role>/<name>`, as SPIFFE does it: a URI is compared as a whole and means nothing to host
//! name checks, where a role hidden in the common name could be confused with a host's name.

use std::{fmt, path::Path, str::FromStr};

use rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    files::{self, LoadError, SaveError},
    tls,
};

/// The name under which every master's certificate is valid. Clients expect it whatever address they
/// dial, so masters can move and be reached by any address; that a peer with it *is* a master rests
/// on the cluster's CA giving it to masters only.
pub const MASTER_SERVER_NAME: &str = "meros-master";

/// Characters in a peer's name, at most.
pub const PEER_NAME_CHARS_MAX: usize = 128;

/// File names inside an identity's directory.
const CERT_FILE: &str = "cert.pem";
const KEY_FILE: &str = "key.pem";
pub(super) const CA_FILE: &str = "ca.pem";

/// What a certificate entitles its holder to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerRole {
    /// A master; also the only role that may answer QUIC connections.
    Master,
    /// A slave.
    Slave,
    /// A framework's scheduler.
    Framework,
    /// A person's command-line tool.
    Operator,
}

impl PeerRole {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Master, Self::Slave, Self::Framework, Self::Operator];

    /// The word in certificates, on the command line and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Slave => "slave",
            Self::Framework => "framework",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for PeerRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PeerRole {
    type Err = UnknownRole;

    fn from_str(word: &str) -> Result<Self, UnknownRole> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == word)
            .ok_or_else(|| UnknownRole {
                word: word.chars().take(PEER_NAME_CHARS_MAX).collect(),
            })
    }
}

/// A word that is no [`PeerRole`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown role {word:?}, expected master, slave, framework or operator")]
pub struct UnknownRole {
    /// The word.
    pub word: String,
}

/// The role and name that the cluster's CA vouches for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIdentity {
    role: PeerRole,
    name: String,
}

impl PeerIdentity {
    /// An identity with this name: 1 to [`PEER_NAME_CHARS_MAX`] letters, digits, `.`, `_` and `-`.
    ///
    /// # Errors
    /// [`PeerIdentityError::BadName`] for any other name.
    pub fn new(role: PeerRole, name: &str) -> Result<Self, PeerIdentityError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > PEER_NAME_CHARS_MAX || !name.chars().all(allowed) {
            let name = name.chars().take(PEER_NAME_CHARS_MAX).collect();
            return Err(PeerIdentityError::BadName { name });
        }
        Ok(Self {
            role,
            name: name.to_owned(),
        })
    }

    /// What the peer may be.
    #[must_use]
    pub const fn role(&self) -> PeerRole {
        self.role
    }

    /// Its name, unique by the care of whoever issues certificates.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URI in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("meros://{}/{}", self.role, self.name)
    }

    /// Reads the identity from a certificate that TLS has already verified.
    ///
    /// # Errors
    /// [`PeerIdentityError`] when it is not one of ours: a CA that signs other things too may be in
    /// use, so this is a peer's mistake and not a bug.
    pub fn from_certificate(der: &[u8]) -> Result<Self, PeerIdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| PeerIdentityError::Unreadable)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| PeerIdentityError::Unreadable)?
            .ok_or(PeerIdentityError::Absent)?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => uri.strip_prefix("meros://"),
                _ => None,
            });
        let path = uris.next().ok_or(PeerIdentityError::Absent)?;
        // Two would let a peer choose who it is from one moment to the next.
        if uris.next().is_some() {
            return Err(PeerIdentityError::Ambiguous);
        }
        let (role, name) = path.split_once('/').ok_or(PeerIdentityError::Absent)?;
        let role = role.parse().map_err(PeerIdentityError::Role)?;
        Self::new(role, name)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

/// Why a certificate does not say who its holder is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdentityError {
    /// Not a certificate that can be read.
    #[error("certificate cannot be read")]
    Unreadable,
    /// No `meros://<role>/<name>` in it.
    #[error("certificate was not issued for meros: it has no meros://<role>/<name> name")]
    Absent,
    /// More than one.
    #[error("certificate has more than one meros:// name")]
    Ambiguous,
    /// A role that this release does not know.
    #[error("certificate has an unknown role")]
    Role(#[source] UnknownRole),
    /// A name with other characters than the allowed ones.
    #[error("bad peer name {name:?}: 1 to {PEER_NAME_CHARS_MAX} letters, digits, '.', '_' or '-'")]
    BadName {
        /// The name, cut to the allowed length.
        name: String,
    },
}

/// What a process needs to take part: its certificate and key, and the CA that it trusts.
pub struct Identity {
    peer: PeerIdentity,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    pem: IdentityPem,
}

/// The three files of an identity.
#[derive(Clone)]
pub(super) struct IdentityPem {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) ca: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Identity")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// An identity from the text of its files; `dir` is where they are, for errors.
    pub(super) fn from_pem(pem: IdentityPem, dir: &Path) -> Result<Self, LoadError> {
        let at = |name: &str| dir.join(name);
        let chain = parse_certificates(&pem.cert, &at(CERT_FILE))?;
        let roots = parse_certificates(&pem.ca, &at(CA_FILE))?;
        let key =
            PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).map_err(|source| LoadError::Pem {
                path: at(KEY_FILE),
                source,
            })?;
        let peer =
            PeerIdentity::from_certificate(&chain[0]).map_err(|source| LoadError::Identity {
                path: at(CERT_FILE),
                source,
            })?;
        // Found here, by name, and not as a failed handshake with someone else.
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &tls::provider()).map_err(
            |source| LoadError::Key {
                path: at(KEY_FILE),
                source,
            },
        )?;
        Ok(Self {
            peer,
            chain,
            key,
            roots,
            pem,
        })
    }

    /// Who we are to others.
    #[must_use]
    pub const fn peer(&self) -> &PeerIdentity {
        &self.peer
    }

    /// Our certificate, then any intermediate ones.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The certificates of the CAs whose word we take; more than one while a CA is being replaced.
    #[must_use]
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// Writes `cert.pem`, `key.pem` (mode 0600) and `ca.pem` into `dir`, which is made if missing.
    ///
    /// # Errors
    /// [`SaveError`]; nothing is ever overwritten.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        files::create_dir(dir)?;
        // The key first: where one is already, nothing else may be touched.
        files::write_secret(&dir.join(KEY_FILE), &self.pem.key)?;
        files::write_public(&dir.join(CERT_FILE), &self.pem.cert)?;
        files::write_public(&dir.join(CA_FILE), &self.pem.ca)
    }

    /// Reads what [`Identity::save`] wrote. `ca.pem` may hold several CAs, for the time of a change.
    ///
    /// # Errors
    /// [`LoadError`], naming the file; also when others than the owner may read or write the key.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let pem = IdentityPem {
            cert: files::read(&dir.join(CERT_FILE))?,
            key: files::read_secret(&dir.join(KEY_FILE))?,
            ca: files::read(&dir.join(CA_FILE))?,
        };
        Self::from_pem(pem, dir)
    }
}

/// All certificates of a PEM text, at least one.
fn parse_certificates(text: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let list = list.and_then(|list| {
        if list.is_empty() {
            Err(pem::Error::NoItemsFound)
        } else {
            Ok(list)
        }
    });
    list.map_err(|source| LoadError::Pem {
        path: path.to_owned(),
        source,
    })
}
