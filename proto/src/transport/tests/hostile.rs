//! Peers that break the rules end their own connection and nobody else's.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs::kx_group;

use super::*;
use crate::codec::{self, DecodeError, FRAME_BYTES_MAX, OPENING, WIRE_VERSION};

/// A client that speaks QUIC and nothing of ours, with the slave certificate or none at all.
fn raw_client(ca: &ClusterCa, certificate: bool, alpn: &str, classical: bool) -> quinn::Endpoint {
    let identity = ca.issue(PeerRole::Slave, "raw", &[]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.roots()[0].clone()).unwrap();
    let mut provider = rustls::crypto::CryptoProvider::clone(&tls::provider());
    if classical {
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = if certificate {
        builder
            .with_client_auth_cert(identity.chain().to_vec(), identity.private_key())
            .unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = vec![alpn.into()];
    let crypto = Arc::new(QuicClientConfig::try_from(config).unwrap());
    let mut endpoint = quinn::Endpoint::client(anywhere()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(crypto));
    endpoint
}

/// How the server ends a connection of such a client.
async fn end_of(endpoint: &quinn::Endpoint, address: SocketAddr) -> Disconnect {
    soon(async {
        match endpoint.connect(address, MASTER_SERVER_NAME).unwrap().await {
            Ok(connection) => connection.closed().await.into(),
            Err(error) => error.into(),
        }
    })
    .await
}

/// A well-behaved connection, to see that it stays so.
struct Neighbour {
    to_master: Sender<Call>,
    calls: Receiver<Call>,
    _ends: (Receiver<Event>, Sender<Event>),
    sequence: u64,
}

impl Neighbour {
    async fn new(ca: &ClusterCa, server: &mut Server, address: SocketAddr) -> Self {
        let client = client_of(ca, PeerRole::Slave, "neighbour");
        let (slave, master) = pair(server, &client, address).await;
        let (to_master, events) = slave.split(8);
        let (to_slave, calls) = master.split(8);
        Self {
            to_master,
            calls,
            _ends: (events, to_slave),
            sequence: 0,
        }
    }

    async fn is_unharmed(&mut self) {
        self.sequence += 1;
        self.to_master.send(update(self.sequence)).await.unwrap();
        assert_eq!(soon(self.calls.recv()).await, Ok(update(self.sequence)));
    }
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_told_so() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let mut neighbour = Neighbour::new(&ca, &mut server, address).await;
    let nobody = raw_client(&ca, false, "meros-slave/1", false);
    let why = end_of(&nobody, address).await;
    assert_eq!(
        why,
        Disconnect::CertificateRefused {
            why: "none was presented"
        }
    );
    eventually(|| server.stats().failed_handshakes == 1).await;
    neighbour.is_unharmed().await;
}

#[tokio::test]
async fn an_unknown_protocol_or_a_key_exchange_that_is_not_post_quantum_is_refused() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let stranger = raw_client(&ca, true, "h3", false);
    assert_eq!(
        end_of(&stranger, address).await,
        Disconnect::ProtocolUnknown
    );
    // All that is different here is the group, so X25519MLKEM768 is what others agree on.
    let classical = raw_client(&ca, true, "meros-slave/1", true);
    let why = end_of(&classical, address).await;
    assert!(matches!(why, Disconnect::Transport { .. }), "{why:?}");
    eventually(|| server.stats().failed_handshakes == 2).await;
    let hybrid = raw_client(&ca, true, "meros-slave/1", false);
    let connection = soon(hybrid.connect(address, MASTER_SERVER_NAME).unwrap())
        .await
        .unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&OPENING).await.unwrap();
    assert!(soon(server.accept()).await.is_some());
    let groups: Vec<_> = tls::provider()
        .kx_groups
        .iter()
        .map(|group| group.name())
        .collect();
    assert_eq!(groups, [rustls::NamedGroup::X25519MLKEM768]);
}

#[tokio::test]
async fn a_bad_opening_is_refused_with_the_reason() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let mut neighbour = Neighbour::new(&ca, &mut server, address).await;
    let endpoint = raw_client(&ca, true, "meros-slave/1", false);
    let other_version = [0, 0, 0, 1, 9];
    let version =
        format!("frame_version: peer speaks format version 9, this release speaks {WIRE_VERSION}");
    for (opening, reason) in [
        (&other_version[..], version.as_str()),
        (
            b"GET / HTTP/1.1\r\n",
            "frame_too_long: frame of 1195725856 bytes is longer than the limit of 4194304",
        ),
        (b"", "payload_truncated: payload ends inside a value"),
        // One that would wait, and does not say so in full.
        (
            &[0, 0, 0, 2, 1][..],
            "payload_truncated: payload ends inside a value",
        ),
        (&[0, 0, 0, 2, 9, 1][..], version.as_str()),
    ] {
        let connection = soon(endpoint.connect(address, MASTER_SERVER_NAME).unwrap())
            .await
            .unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(opening).await.unwrap();
        send.finish().unwrap();
        let ended = Disconnect::from(soon(connection.closed()).await);
        let reason = reason.to_owned();
        assert_eq!(
            ended,
            Disconnect::ByPeer {
                code: CloseCode::BadFrame,
                reason
            }
        );
        neighbour.is_unharmed().await;
    }
    assert_eq!(server.stats().failed_openings, 5);
}

#[tokio::test]
async fn a_peer_that_never_opens_a_stream_loses_its_place() {
    let ca = cluster();
    // The handshake itself has to be done within it.
    let handshake_timeout = Duration::from_secs(5);
    let (server, address) = server_with(
        &ca,
        ServerLimits {
            handshake_timeout,
            ..limits()
        },
    );
    let endpoint = raw_client(&ca, true, "meros-slave/1", false);
    let ended = end_of(&endpoint, address).await;
    let reason = "no control stream in time".to_owned();
    assert_eq!(
        ended,
        Disconnect::ByPeer {
            code: CloseCode::NoControlStream,
            reason
        }
    );
    assert_eq!(server.stats().failed_openings, 1);
}

#[tokio::test]
async fn a_handshake_that_its_peer_has_given_up_loses_its_place() {
    let ca = cluster();
    let (server, address) = server_of(&ca);
    // The first flight gets through, no answer does.
    let way = tokio::net::UdpSocket::bind(anywhere()).await.unwrap();
    let endpoint = raw_client(&ca, true, "meros-slave/1", false);
    let dialled = way.local_addr().unwrap();
    let attempt = endpoint.connect(dialled, MASTER_SERVER_NAME).unwrap();
    let began = std::time::Instant::now();
    for _ in 0..2 {
        let mut packet = [0; 2_048];
        let (length, _) = soon(way.recv_from(&mut packet)).await.unwrap();
        way.send_to(&packet[..length], address).await.unwrap();
    }
    eventually(|| server.connections() == 1).await;
    drop(attempt);
    eventually(|| server.stats().failed_handshakes == 1).await;
    assert!(began.elapsed() >= CONNECT_TIMEOUT);
    assert!(began.elapsed() < PATIENCE - CONNECT_TIMEOUT);
}

#[tokio::test]
async fn a_second_stream_cannot_be_opened() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let endpoint = raw_client(&ca, true, "meros-slave/1", false);
    let connection = soon(endpoint.connect(address, MASTER_SERVER_NAME).unwrap())
        .await
        .unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&OPENING).await.unwrap();
    let _accepted = soon(server.accept()).await.unwrap();
    let wait = Duration::from_millis(200);
    assert!(
        timeout(wait, connection.open_bi()).await.is_err(),
        "no credit for a second stream"
    );
    assert!(timeout(wait, connection.open_uni()).await.is_err());
    assert_eq!(connection.max_datagram_size(), None);
}

#[tokio::test]
async fn bad_frames_close_their_connection_with_a_code_and_harm_nobody_else() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let mut neighbour = Neighbour::new(&ca, &mut server, address).await;
    let endpoint = raw_client(&ca, true, "meros-slave/1", false);
    let mut good = bytes::BytesMut::new();
    codec::encode(&update(1), &mut good).unwrap();
    let mut other_version = good.to_vec();
    other_version[4] = WIRE_VERSION + 1;
    let oversize = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
    for (bytes, error) in [
        (
            &oversize[..],
            DecodeError::TooLong {
                length: FRAME_BYTES_MAX + 1,
            },
        ),
        (
            &other_version[..],
            DecodeError::Version {
                theirs: WIRE_VERSION + 1,
                ours: WIRE_VERSION,
            },
        ),
        (&[0, 0, 0, 0][..], DecodeError::Empty),
        (
            &[0, 0, 0, 3, WIRE_VERSION, 1, 250][..],
            DecodeError::Truncated,
        ),
        (&good[..good.len() - 1], DecodeError::Truncated),
    ] {
        let connection = soon(endpoint.connect(address, MASTER_SERVER_NAME).unwrap())
            .await
            .unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&OPENING).await.unwrap();
        send.write_all(&good).await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let (to_raw, mut calls) = soon(server.accept()).await.unwrap().split::<Event, Call>(8);
        let mut batch = Vec::new();
        soon(calls.recv_batch(&mut batch, 10)).await.unwrap();
        assert_eq!(batch, [update(1)], "what came before is good");
        let refused = soon(calls.recv_batch(&mut batch, 10)).await;
        assert_eq!(refused, Err(RecvError::BadFrame(error.clone())));
        assert_eq!(to_raw.disconnect(), Some(Disconnect::ByUs));
        match Disconnect::from(soon(connection.closed()).await) {
            Disconnect::ByPeer {
                code: CloseCode::BadFrame,
                reason,
            } => {
                assert!(reason.starts_with(error.code()), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(calls.recv().await.is_err(), "and nothing comes after");
        neighbour.is_unharmed().await;
    }
}

#[tokio::test]
async fn random_datagrams_do_not_disturb_the_server() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let mut neighbour = Neighbour::new(&ca, &mut server, address).await;
    let socket = std::net::UdpSocket::bind(anywhere()).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 0..1_300 {
        let noise: Vec<u8> = (0..length)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        socket.send_to(&noise, address).unwrap();
    }
    neighbour.is_unharmed().await;
    assert_eq!(server.stats().accepted, 1);
}
