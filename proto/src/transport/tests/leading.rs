//! Masters that do not lead, and those who wait for one that does.

use super::*;

fn closed_server(ca: &ClusterCa) -> (Server, SocketAddr, Gate) {
    let (server, address) = server_of(ca);
    let gate = server.gate();
    gate.close();
    (server, address, gate)
}

#[tokio::test]
async fn whoever_waits_is_let_in_when_the_master_leads_and_whoever_does_not_at_once() {
    let ca = cluster();
    let (mut server, address, gate) = closed_server(&ca);
    let slave = client_of(&ca, PeerRole::Slave, "s1");
    let mut masters = Masters::new(&slave, Protocol::Slave, &[address.to_string()]);

    let framework = client_of(&ca, PeerRole::Framework, "f1");
    let (connected, accepted) = soon(async {
        tokio::join!(
            connect(&framework, Protocol::Framework, address),
            server.accept()
        )
    })
    .await;
    connected.expect("it does not wait");
    assert_eq!(accepted.expect("it is accepted").peer().name(), "f1");

    // It has shaken hands and is not accepted.
    eventually(|| server.connections() >= 2).await;
    let early = timeout(Duration::from_millis(100), masters.next()).await;
    assert!(early.is_err(), "{early:?}");

    gate.open();
    let (news, accepted) = soon(async { tokio::join!(masters.next(), server.accept()) }).await;
    let MasterNews::Leads(connection) = news else {
        panic!("{news:?}")
    };
    let (to_master, _from_master) = connection.split::<Call, Event>(4);
    let (_to_slave, mut from_slave) = accepted.expect("it is accepted").split::<Event, Call>(4);
    to_master.try_send(update(1)).expect("there is room");
    assert_eq!(soon(from_slave.recv()).await, Ok(update(1)));
}

#[tokio::test]
async fn whoever_waits_at_a_master_that_stops_is_sent_away() {
    let ca = cluster();
    let (server, address, gate) = closed_server(&ca);
    let slave = client_of(&ca, PeerRole::Slave, "s1");
    let mut masters = Masters::new(&slave, Protocol::Slave, &[address.to_string()]);
    eventually(|| server.connections() > 0).await;
    gate.dismiss();
    match soon(masters.next()).await {
        MasterNews::Failed { error, .. } => assert!(error.is_retryable(), "{error}"),
        news => panic!("{news:?}"),
    }
}

#[tokio::test]
async fn a_new_leader_is_heard_of_while_the_one_before_is_still_connected() {
    let ca = cluster();
    let (mut first, first_address) = server_of(&ca);
    let (mut second, second_address, gate) = closed_server(&ca);
    let slave = client_of(&ca, PeerRole::Slave, "s1");
    let hosts = [first_address, second_address].map(|address| address.to_string());
    let mut masters = Masters::new(&slave, Protocol::Slave, &hosts);
    let (news, _at_first) = soon(async { tokio::join!(masters.next(), first.accept()) }).await;
    let MasterNews::Leads(connection) = news else {
        panic!("{news:?}")
    };
    assert_eq!(connection.remote_address(), first_address);
    gate.open();
    let (news, _at_second) = soon(async { tokio::join!(masters.next(), second.accept()) }).await;
    let MasterNews::Leads(connection) = news else {
        panic!("{news:?}")
    };
    assert_eq!(connection.remote_address(), second_address);
}

#[tokio::test]
async fn a_connection_that_was_given_out_and_ended_is_made_again() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let slave = client_of(&ca, PeerRole::Slave, "s1");
    let mut masters = Masters::new(&slave, Protocol::Slave, &[address.to_string()]);
    for _ in 0..3 {
        let (news, accepted) = soon(async { tokio::join!(masters.next(), server.accept()) }).await;
        let MasterNews::Leads(connection) = news else {
            panic!("{news:?}")
        };
        accepted
            .expect("it is accepted")
            .close(CloseCode::Refused, "not now");
        drop(connection);
    }
}

#[tokio::test]
async fn masters_that_cannot_be_reached_are_named() {
    let ca = cluster();
    let (server, address) = server_of(&ca);
    let stranger = client_of(&cluster(), PeerRole::Slave, "s1");
    let mut masters = Masters::new(&stranger, Protocol::Slave, &[address.to_string()]);
    let MasterNews::Failed {
        host,
        number,
        error,
    } = soon(masters.next()).await
    else {
        panic!("a stranger was let in");
    };
    assert_eq!((host, number), (0, 1));
    assert!(!error.is_retryable(), "{error}");
    drop(server);
}
