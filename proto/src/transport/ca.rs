//! The cluster's own certificate authority: who may take part is whom it signed for.
//!
//! Keys are P-256: small, fast to verify, and understood by every TLS tool an operator may use.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::{
    Identity, LoadError, PeerIdentity, PeerIdentityError, PeerRole, SaveError, files,
    identity::{CA_FILE, IdentityPem, MASTER_SERVER_NAME},
};

const CA_KEY_FILE: &str = "ca-key.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a cluster's CA is valid: ten years, longer than a machine lives. Replacing it means
/// touching every machine.
pub const CA_VALIDITY: Duration = Duration::from_secs(3_650 * DAY.as_secs());

/// How long an issued certificate is valid: two years. Short enough that a forgotten key dies, long
/// enough that a cluster nobody looks after does not stop over a weekend.
pub const CERT_VALIDITY: Duration = Duration::from_secs(730 * DAY.as_secs());

/// Certificates begin this much before they are made: one hour. A machine whose clock is behind the
/// CA's would otherwise refuse a fresh certificate as not yet valid.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60 * 60);

/// Characters in a cluster's name, at most.
const CLUSTER_NAME_CHARS_MAX: usize = 64;

/// A certificate authority with its key. Keep it off the machines of the cluster.
#[derive(Debug)]
pub struct ClusterCa {
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Why a CA or a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The cluster's name is empty or too long.
    #[error("cluster name must have 1 to {CLUSTER_NAME_CHARS_MAX} characters")]
    ClusterName,
    /// The peer's name cannot be put in a certificate.
    #[error("certificate cannot be issued for that name")]
    Name(#[source] PeerIdentityError),
    /// A host name that is neither a DNS name nor an IP address.
    #[error("{host:?} is neither a host name nor an address")]
    Host {
        /// The host as given.
        host: String,
    },
    /// The cryptography failed.
    #[error("certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// What was signed could not be read back.
    #[error("issued certificate cannot be used")]
    Unusable(#[source] LoadError),
}

impl ClusterCa {
    /// A new CA with a key of its own. Two clusters of the same name do not trust each other.
    ///
    /// # Errors
    /// [`IssueError`]: `ClusterName`, `Sign`.
    pub fn create(cluster_name: &str) -> Result<Self, IssueError> {
        if !(1..=CLUSTER_NAME_CHARS_MAX).contains(&cluster_name.chars().count()) {
            return Err(IssueError::ClusterName);
        }
        let mut params = params_valid_for(CA_VALIDITY);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("meros {cluster_name}"));
        // It signs for peers and never for another CA.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(IssueError::Sign)?;
        let certificate = params.self_signed(&key).map_err(IssueError::Sign)?;
        Ok(Self {
            cert_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Writes `ca.pem` and `ca-key.pem` (mode 0600) into `dir`, which is made if missing.
    ///
    /// # Errors
    /// [`SaveError`]; nothing is ever overwritten.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        files::create_dir(dir)?;
        files::write_secret(&dir.join(CA_KEY_FILE), &self.issuer.key().serialize_pem())?;
        files::write_public(&dir.join(CA_FILE), &self.cert_pem)
    }

    /// Reads what [`ClusterCa::save`] wrote.
    ///
    /// # Errors
    /// [`LoadError`], naming the file; also when others than the owner may read or write the key.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        let key_path = dir.join(CA_KEY_FILE);
        let key =
            KeyPair::from_pem(&files::read_secret(&key_path)?).map_err(|source| LoadError::Ca {
                path: key_path,
                source,
            })?;
        let cert_path = dir.join(CA_FILE);
        let cert_pem = files::read(&cert_path)?;
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key).map_err(|source| LoadError::Ca {
            path: cert_path,
            source,
        })?;
        Ok(Self { cert_pem, issuer })
    }

    /// A certificate and key for one peer.
    ///
    /// `hosts` are further names and addresses that the certificate shall be valid for, such as the
    /// one under which people reach a master's HTTP port; QUIC needs none.
    ///
    /// # Errors
    /// [`IssueError`]: `Name`, `Host`, `Sign`; `Unusable` when this CA's key does not fit its
    /// certificate.
    pub fn issue(
        &self,
        role: PeerRole,
        name: &str,
        hosts: &[String],
    ) -> Result<Identity, IssueError> {
        self.issue_valid_for(role, name, hosts, CERT_VALIDITY)
    }

    /// As [`ClusterCa::issue`], valid for another time than [`CERT_VALIDITY`], counted from an hour
    /// ago ([`CLOCK_SKEW_MAX`]).
    ///
    /// # Errors
    /// As [`ClusterCa::issue`].
    pub fn issue_valid_for(
        &self,
        role: PeerRole,
        name: &str,
        hosts: &[String],
        validity: Duration,
    ) -> Result<Identity, IssueError> {
        let peer = PeerIdentity::new(role, name).map_err(IssueError::Name)?;
        let mut params = params_valid_for(validity);
        params
            .distinguished_name
            .push(DnType::CommonName, peer.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let uri = peer.uri().try_into().map_err(IssueError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        // Only masters answer connections, so only their certificates can.
        if role == PeerRole::Master {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            params
                .subject_alt_names
                .push(host_name(MASTER_SERVER_NAME)?);
        }
        for host in hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        let key = KeyPair::generate().map_err(IssueError::Sign)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(IssueError::Sign)?;
        let pem = IdentityPem {
            cert: certificate.pem(),
            key: key.serialize_pem(),
            ca: self.cert_pem.clone(),
        };
        Identity::from_pem(pem, Path::new("")).map_err(IssueError::Unusable)
    }
}

fn host_name(host: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || IssueError::Host {
        host: host.to_owned(),
    };
    rustls::pki_types::DnsName::try_from(host).map_err(|_| bad())?;
    Ok(SanType::DnsName(
        host.to_owned().try_into().map_err(|_| bad())?,
    ))
}

fn params_valid_for(validity: Duration) -> CertificateParams {
    let now = SystemTime::now();
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before =
        rcgen::date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(CLOCK_SKEW_MAX);
    params.not_after = params.not_before + validity;
    params
}
