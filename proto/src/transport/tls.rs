//! How TLS and QUIC are set up: what both sides insist on, and the numbers of the transport.

use std::{io, net::UdpSocket, sync::Arc, time::Duration};

use ::aws_lc_rs::hmac;
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::{
    RootCertStore,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite, kx_group},
    },
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
};

use super::{Identity, Protocol};

/// How often a quiet connection says that it lives: 5 s. Four signs of life may get lost before
/// [`IDLE_TIMEOUT`], and 10,000 quiet slaves cost a master 2,000 small packets a second.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// After this long without any packet a peer counts as gone: 20 s. Longer than a switch needs to
/// find a new path, shorter than the pings by which a master declares a slave unreachable.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

const _: () = assert!(KEEP_ALIVE_INTERVAL.as_millis() * 3 < IDLE_TIMEOUT.as_millis());

/// Bytes in flight in one direction of a connection: 1 MiB fills 10 Gbit/s at 0.8 ms, and is what a
/// peer that sends faster than we read can make us hold.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Packets that quinn hands to the kernel in one send; its own constant is private.
const PACKETS_PER_SEND: u32 = 10;
/// The most that one send over UDP takes; a larger one is refused and quinn takes it for lost.
const UDP_SEND_BYTES_MAX: u32 = 65_507;

/// The largest UDP payload that path discovery tries. It starts at QUIC's safe 1,200 bytes and grows
/// only where the path lets it, as the loopback and racks with jumbo frames do; fewer packets are less
/// work for the two ends. Ten of them must fit one send.
const UDP_PAYLOAD_BYTES_MAX: u16 = 6_500;
const _: () = assert!(UDP_PAYLOAD_BYTES_MAX as u32 * PACKETS_PER_SEND <= UDP_SEND_BYTES_MAX);

/// The kernel's buffer for the one socket that thousands of peers share: 4 MiB is a burst of 3,000
/// full packets. The kernel silently gives less where its own limit is lower.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// From one sign to the next that a connection is not known any more: 1 ms. Each answers a packet that
/// is larger, so it cannot be made to amplify, and 10,000 slaves of a master that was restarted hear it
/// within [`KEEP_ALIVE_INTERVAL`] and a few seconds.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Our certificate, key or CA cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate of the CA file is no CA certificate.
    #[error("a certificate in ca.pem cannot be used as certificate authority")]
    Root(#[source] rustls::Error),
    /// The CA file makes no verifier.
    #[error("ca.pem cannot be used to verify peers")]
    Verifier(#[source] VerifierBuilderError),
    /// Our own certificate and key are refused.
    #[error("certificate and key cannot be used")]
    Certificate(#[source] rustls::Error),
}

/// The cryptography that both sides insist on.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    // The hybrid post-quantum group only: all peers are ours, so nothing can be talked down to a
    // group whose traffic could be recorded now and read later.
    provider.kx_groups = vec![kx_group::X25519MLKEM768];
    // The cheapest first: masters spend their two cores on offers. QUIC needs the first one anyway.
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// What a master answers with: every protocol, and only peers with a certificate of the cluster.
pub(super) fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, TlsError> {
    let verifier = peer_verifier(identity)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain().to_vec(), identity.private_key())
        .map_err(TlsError::Certificate)?;
    tls.alpn_protocols = Protocol::ALL
        .map(|protocol| protocol.alpn().into())
        .to_vec();
    // No resumption: each connection proves its certificate afresh, so one that has expired or whose
    // CA was replaced does not live on in a ticket. Connections are long, so this costs little.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    let crypto = QuicServerConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config()));
    Ok(config)
}

/// What a client dials with, for one protocol.
pub(super) fn client_config(
    identity: &Identity,
    protocol: Protocol,
) -> Result<quinn::ClientConfig, TlsError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(identity.chain().to_vec(), identity.private_key())
        .map_err(TlsError::Certificate)?;
    tls.alpn_protocols = vec![protocol.alpn().into()];
    tls.resumption = Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has QUIC's initial suite");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport_config()));
    Ok(config)
}

/// Takes peers with a certificate of the cluster.
pub(super) fn peer_verifier(identity: &Identity) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let roots = Arc::new(roots(identity)?);
    WebPkiClientVerifier::builder_with_provider(roots, provider())
        .build()
        .map_err(TlsError::Verifier)
}

fn roots(identity: &Identity) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for root in identity.roots() {
        roots.add(root.clone()).map_err(TlsError::Root)?;
    }
    Ok(roots)
}

fn transport_config() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("20 s fits QUIC's milliseconds");
    let mut config = TransportConfig::default();
    config
        // The control stream and nothing else: a peer cannot open a second one.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .max_idle_timeout(Some(idle))
        .mtu_discovery_config(Some(mtu));
    config
}

/// What a master answers peers with whose connection it does not know any more because it was
/// restarted: they dial again at once rather than after [`IDLE_TIMEOUT`] (RFC 9000, section 10.3). The
/// secrets behind it must outlive the process, so they are derived from the private key.
fn reset_config(identity: &Identity) -> EndpointConfig {
    let private = identity.private_key();
    let private = hmac::Key::new(hmac::HMAC_SHA256, private.secret_der());
    let derived = |purpose: &[u8]| hmac::sign(&private, purpose);
    let reset = derived(b"meros quic stateless reset");
    let ids = derived(b"meros quic connection ids");
    let (ids, _) = ids.as_ref().split_first_chunk().expect("it has 32 bytes");
    let ids = u64::from_le_bytes(*ids);
    let mut config =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config
        .min_reset_interval(RESET_INTERVAL)
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// An endpoint on this socket that takes connections.
pub(super) fn server_endpoint(
    socket: UdpSocket,
    identity: &Identity,
    server: quinn::ServerConfig,
) -> io::Result<quinn::Endpoint> {
    endpoint(socket, reset_config(identity), Some(server))
}

/// An endpoint on this socket that only dials.
pub(super) fn client_endpoint(socket: UdpSocket) -> io::Result<quinn::Endpoint> {
    endpoint(socket, EndpointConfig::default(), None)
}

/// An endpoint on this socket, with the buffers and sizes above.
fn endpoint(
    socket: UdpSocket,
    mut config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> io::Result<quinn::Endpoint> {
    let state = quinn::udp::UdpSocketState::new((&socket).into())?;
    // Smaller buffers lose packets under bursts, which QUIC repairs: slower, not wrong.
    let sized = state
        .set_recv_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES)
        .and_then(|()| state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES));
    if let Err(error) = sized {
        tracing::debug!(%error, "udp socket buffers keep the system's size");
    }
    config
        .max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)
        .expect("within QUIC's 1,200 to 65,527 bytes");
    quinn::Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime))
}
