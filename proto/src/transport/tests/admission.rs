//! Who gets in, and what those who do not are told.

use super::*;

/// What a client is told when the server turns it away.
async fn refusal(client: &Client, protocol: Protocol, address: SocketAddr) -> Disconnect {
    match soon(connect(client, protocol, address)).await {
        Err(ConnectError::Ended { source, .. }) => source,
        other => panic!("should have been turned away, got {other:?}"),
    }
}

#[tokio::test]
async fn both_sides_know_who_the_other_is() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    for (role, protocol) in [
        (PeerRole::Slave, Protocol::Slave),
        (PeerRole::Framework, Protocol::Framework),
        (PeerRole::Operator, Protocol::Framework),
        (PeerRole::Master, Protocol::Raft),
        (PeerRole::Master, Protocol::Events),
    ] {
        let client = client_of(&ca, role, "p7");
        let (ours, theirs) =
            soon(async { tokio::join!(connect(&client, protocol, address), server.accept()) })
                .await;
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(
            ours.peer(),
            &PeerIdentity::new(PeerRole::Master, "m1").unwrap()
        );
        assert_eq!(theirs.peer(), &PeerIdentity::new(role, "p7").unwrap());
        assert_eq!((ours.protocol(), theirs.protocol()), (protocol, protocol));
        assert_eq!(ours.remote_address(), address);
        assert!(theirs.remote_address().ip().is_loopback());
    }
    assert_eq!(
        server.stats(),
        ServerStats {
            accepted: 5,
            ..ServerStats::default()
        }
    );
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_on_both_sides() {
    let ca = cluster();
    let (server, address) = server_of(&ca);
    // The same name and another key: the client sees through the server.
    let stranger = client_of(&cluster(), PeerRole::Slave, "s1");
    let why = refusal(&stranger, Protocol::Slave, address).await;
    assert!(
        matches!(why, Disconnect::CertificateUntrusted { .. }),
        "{why:?}"
    );
    assert!(!why.is_retryable());

    // A client that trusts the server, with a certificate of another CA: the server sees through it.
    let dir = tempfile::tempdir().unwrap();
    let foreign = ClusterCa::create("other").unwrap();
    foreign
        .issue(PeerRole::Slave, "s1", &[])
        .unwrap()
        .save(dir.path())
        .unwrap();
    let ours = dir.path().join("ours");
    ca.save(&ours).unwrap();
    std::fs::copy(ours.join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    let client = Client::new(&Identity::load(dir.path()).unwrap()).unwrap();
    let why = refusal(&client, Protocol::Slave, address).await;
    assert!(
        matches!(why, Disconnect::CertificateRefused { .. }),
        "{why:?}"
    );
    assert!(
        why.to_string()
            .contains("another cluster's certificate authority"),
        "{why}"
    );
    eventually(|| server.stats().failed_handshakes == 2).await;
    assert_eq!(server.stats().accepted, 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_says_so() {
    let ca = cluster();
    let (server, address) = server_of(&ca);
    // Certificates begin an hour ago, so half an hour of validity ended half an hour ago.
    let half_an_hour = Duration::from_secs(30 * 60);
    let expired = ca
        .issue_valid_for(PeerRole::Slave, "s1", &[], half_an_hour)
        .unwrap();
    let why = refusal(&Client::new(&expired).unwrap(), Protocol::Slave, address).await;
    assert_eq!(
        why,
        Disconnect::CertificateRefused {
            why: "it has expired or is not yet valid"
        }
    );
    eventually(|| server.stats().failed_handshakes == 1).await;

    let old_master = ca
        .issue_valid_for(PeerRole::Master, "m2", &[], half_an_hour)
        .unwrap();
    let server = Server::bind(anywhere(), &old_master, limits()).unwrap();
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let why = refusal(&client, Protocol::Slave, server.local_addr().unwrap()).await;
    assert!(matches!(&why, Disconnect::CertificateUntrusted { why } if why.contains("expired")));
}

#[tokio::test]
async fn a_role_cannot_speak_the_protocol_of_another() {
    let ca = cluster();
    let (server, address) = server_of(&ca);
    let mut refused = 0;
    for role in PeerRole::ALL {
        let client = client_of(&ca, role, "p1");
        for protocol in Protocol::ALL {
            if protocol.allows(role) {
                continue;
            }
            let why = refusal(&client, protocol, address).await;
            let reason = format!("a {role} certificate may not speak {protocol}");
            assert_eq!(
                why,
                Disconnect::ByPeer {
                    code: CloseCode::NotAllowed,
                    reason
                }
            );
            refused += 1;
        }
    }
    assert_eq!(refused, 11);
    assert_eq!(
        server.stats(),
        ServerStats {
            not_allowed: refused,
            ..ServerStats::default()
        }
    );
}

#[tokio::test]
async fn only_a_masters_certificate_can_answer() {
    let ca = cluster();
    // Even one that asked for the masters' name: a slave's certificate is not for servers.
    let slave = ca
        .issue(PeerRole::Slave, "s1", &[MASTER_SERVER_NAME.into()])
        .unwrap();
    let server = Server::bind(anywhere(), &slave, limits()).unwrap();
    let client = client_of(&ca, PeerRole::Framework, "f1");
    let why = refusal(&client, Protocol::Framework, server.local_addr().unwrap()).await;
    assert!(
        matches!(why, Disconnect::CertificateUntrusted { .. }),
        "{why:?}"
    );
}

#[tokio::test]
async fn newcomers_beyond_the_limit_are_refused_and_those_inside_unharmed() {
    let ca = cluster();
    let (mut server, address) = server_with(
        &ca,
        ServerLimits {
            connections_max: 1,
            ..limits()
        },
    );
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    assert_eq!(
        refusal(&client, Protocol::Slave, address).await,
        Disconnect::Busy
    );
    assert!(server.stats().refused_busy >= 1);

    let (to_master, _events) = slave.split::<Call, Event>(8);
    let (_to_slave, mut calls) = master.split::<Event, Call>(8);
    to_master.try_send(update(1)).unwrap();
    assert_eq!(soon(calls.recv()).await, Ok(update(1)));

    // And a place that is given back is given to the next.
    drop((to_master, calls));
    eventually(|| server.connections() == 0).await;
    pair(&mut server, &client, address).await;
}

#[tokio::test]
async fn a_crowded_server_makes_addresses_prove_themselves() {
    let ca = cluster();
    // One place: it is always crowded, so each address is asked first and then served.
    let (mut server, address) = server_with(
        &ca,
        ServerLimits {
            handshakes_max: 1,
            ..limits()
        },
    );
    let client = client_of(&ca, PeerRole::Slave, "s1");
    pair(&mut server, &client, address).await;
    assert_eq!(server.stats().accepted, 1);
    assert_eq!(server.stats().retried, 0, "an empty place is not a crowd");
    let waiting = soon(connect(&client, Protocol::Slave, address))
        .await
        .unwrap();
    // `waiting` was not accepted yet, so it has the place.
    assert_eq!(
        refusal(&client, Protocol::Slave, address).await,
        Disconnect::Busy
    );
    assert!(server.stats().retried >= 1 && server.stats().refused_busy >= 1);
    drop(waiting);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let ca = cluster();
    let (_server, address) = server_of(&ca);
    let identity = ca.issue(PeerRole::Master, "m2", &[]).unwrap();
    let error = Server::bind(address, &identity, limits()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("failed to listen on UDP {address}")
    );
}
