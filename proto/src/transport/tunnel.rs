//! TLS inside of a stream of bytes that something else has opened, such as an upgraded HTTP connection:
//! an operator at one end, a slave at the other, both with certificates of the cluster's own CA.
//!
//! A slave's certificate is made for a client, and who dials a slave does not know its name. So both ends
//! verify the other as a client of the cluster, and then look at its role; that the slave at the other end
//! is the one that was meant rests on who could answer at its address *and* has a slave's key.
//!
//! Absent: who may do what.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{Identity, PeerIdentity, PeerRole, TlsError, tls};

/// The name in the handshake; nobody compares it.
const SLAVE_SERVER_NAME: &str = "meros-slave";

/// The slave's end.
#[derive(Clone)]
pub struct TunnelAcceptor {
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for TunnelAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("TunnelAcceptor").finish_non_exhaustive()
    }
}

impl TunnelAcceptor {
    /// With our certificate, for peers of our CA.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(identity: &Identity) -> Result<Self, TlsError> {
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_client_cert_verifier(tls::peer_verifier(identity)?)
            .with_single_cert(identity.chain().to_vec(), identity.private_key())
            .map_err(TlsError::Certificate)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor })
    }

    /// Shakes hands, and says who the peer is.
    ///
    /// # Errors
    /// The peer has no certificate of our CA, or the stream ends.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(server::TlsStream<S>, PeerIdentity)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(stream).await?;
        let peer = peer_of(stream.get_ref().1.peer_certificates())?;
        Ok((stream, peer))
    }
}

/// The operator's end: shakes hands with a slave, and says which one it is.
///
/// # Errors
/// Our certificate cannot be used, the peer is no slave of our cluster, or the stream ends.
pub async fn tunnel_to_slave<S>(
    identity: &Identity,
    stream: S,
) -> io::Result<(client::TlsStream<S>, PeerIdentity)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let clients = tls::peer_verifier(identity).map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(SlaveVerifier { clients }))
        .with_client_auth_cert(identity.chain().to_vec(), identity.private_key())
        .map_err(io::Error::other)?;
    config.resumption = Resumption::disabled();
    let name = ServerName::try_from(SLAVE_SERVER_NAME).expect("it is a host name");
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await?;
    let peer = peer_of(stream.get_ref().1.peer_certificates())?;
    Ok((stream, peer))
}

fn peer_of(chain: Option<&[CertificateDer<'_>]>) -> io::Result<PeerIdentity> {
    let own = chain.and_then(|chain| chain.first());
    let own = own.ok_or_else(|| io::Error::other("peer has no certificate"))?;
    PeerIdentity::from_certificate(own).map_err(io::Error::other)
}

/// Takes a server that is a slave, by what is asked of clients.
#[derive(Debug)]
struct SlaveVerifier {
    clients: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for SlaveVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.clients
            .verify_client_cert(end_entity, intermediates, now)?;
        let is_slave = PeerIdentity::from_certificate(end_entity)
            .is_ok_and(|peer| peer.role() == PeerRole::Slave);
        match is_slave {
            true => Ok(ServerCertVerified::assertion()),
            // Else whoever has any certificate of the cluster could read what is typed.
            false => Err(rustls::Error::General("peer is no slave".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::transport::ClusterCa;

    const BUFFER: usize = 64 << 10;

    async fn meet(
        slave: &Identity,
        operator: &Identity,
    ) -> (io::Result<PeerIdentity>, io::Result<PeerIdentity>) {
        let (near, far) = duplex(BUFFER);
        let acceptor = TunnelAcceptor::new(slave).unwrap();
        let answer = async {
            let (mut stream, peer) = acceptor.accept(far).await?;
            let mut word = [0; 2];
            stream.read_exact(&mut word).await?;
            stream.write_all(&word).await?;
            stream.shutdown().await?;
            Ok::<_, io::Error>(peer)
        };
        let ask = async {
            let (mut stream, peer) = tunnel_to_slave(operator, near).await?;
            stream.write_all(b"hi").await?;
            let mut word = [0; 2];
            stream.read_exact(&mut word).await?;
            assert_eq!(&word, b"hi");
            Ok::<_, io::Error>(peer)
        };
        tokio::join!(answer, ask)
    }

    #[tokio::test]
    async fn both_ends_know_who_the_other_is() {
        let ca = ClusterCa::create("test").unwrap();
        let slave = ca.issue(PeerRole::Slave, "s1", &[]).unwrap();
        let operator = ca.issue(PeerRole::Operator, "ada", &[]).unwrap();
        let (there, here) = meet(&slave, &operator).await;
        assert_eq!(there.unwrap().to_string(), "operator/ada");
        assert_eq!(here.unwrap().to_string(), "slave/s1");
    }

    #[tokio::test]
    async fn strangers_and_those_that_are_no_slave_are_refused() {
        let ca = ClusterCa::create("test").unwrap();
        let other = ClusterCa::create("test").unwrap();
        let slave = ca.issue(PeerRole::Slave, "s1", &[]).unwrap();
        let operator = ca.issue(PeerRole::Operator, "ada", &[]).unwrap();
        let stranger = other.issue(PeerRole::Operator, "ada", &[]).unwrap();
        let (there, here) = meet(&slave, &stranger).await;
        assert!(there.is_err() && here.is_err());
        let framework = ca.issue(PeerRole::Framework, "f", &[]).unwrap();
        let (there, here) = meet(&framework, &operator).await;
        assert!(there.is_err() && here.is_err());
    }
}
