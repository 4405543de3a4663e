//! Masters that do not lead, and those who wait for one that does.

use super::*;

fn closed_server(ca: &ClusterCa) -> (Server, SocketAddr, Gate) {
    closed_server_named(ca, "m1")
}

fn closed_server_named(ca: &ClusterCa, name: &str) -> (Server, SocketAddr, Gate) {
    closed_server_with(ca, name, limits())
}

fn closed_server_with(
    ca: &ClusterCa,
    name: &str,
    limits: ServerLimits,
) -> (Server, SocketAddr, Gate) {
    let identity = ca.issue(PeerRole::Master, name, &[]).unwrap();
    let server = Server::bind(anywhere(), &identity, limits).unwrap();
    let address = server.local_addr().unwrap();
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
async fn a_framework_that_waits_is_let_in_before_the_many_slaves() {
    let ca = cluster();
    let limits = ServerLimits {
        handshakes_max: 2,
        ..limits()
    };
    let (mut server, address, gate) = closed_server_with(&ca, "m1", limits);
    let hosts = [address.to_string()];
    let mut waiting = Vec::new();
    for number in 0..8 {
        let slave = client_of(&ca, PeerRole::Slave, &format!("s{number}"));
        waiting.push(Masters::new(&slave, Protocol::Slave, &hosts));
    }
    eventually(|| server.stats().waiting == 8).await;
    let framework = client_of(&ca, PeerRole::Framework, "f1");
    waiting.push(Masters::new(&framework, Protocol::Framework, &hosts));
    eventually(|| server.stats().waiting == 9).await;
    gate.open();
    eventually(|| server.stats().accepted == 3).await;
    let mut roles = Vec::new();
    for _ in 0..3 {
        let accepted = soon(server.accept()).await.expect("it waits to be taken");
        roles.push(accepted.peer().role());
    }
    assert!(roles.contains(&PeerRole::Framework), "{roles:?}");
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
    let (mut second, second_address, gate) = closed_server_named(&ca, "m2");
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
    assert_eq!((host, number), (address.to_string(), 1));
    assert!(!error.is_retryable(), "{error}");
    drop(server);
}

#[tokio::test]
async fn masters_that_are_learnt_of_are_dialled_and_those_that_were_given_stay() {
    let ca = cluster();
    let (first, first_address, _closed) = closed_server(&ca);
    let (mut second, second_address, gate) = closed_server_named(&ca, "m2");
    let (third, third_address, _also_closed) = closed_server_named(&ca, "m3");
    let slave = client_of(&ca, PeerRole::Slave, "s1");
    let mut masters = Masters::new(&slave, Protocol::Slave, &[first_address.to_string()]);
    eventually(|| first.connections() == 1).await;
    masters.learn(&[second_address, third_address].map(|address| address.to_string()));
    eventually(|| second.connections() == 1 && third.connections() == 1).await;
    // The third is none any more.
    masters.learn(&[second_address.to_string()]);
    eventually(|| third.connections() == 0).await;
    assert_eq!(first.connections(), 1, "it was given");
    gate.open();
    let (news, _accepted) = soon(async { tokio::join!(masters.next(), second.accept()) }).await;
    let MasterNews::Leads(connection) = news else {
        panic!("{news:?}")
    };
    assert_eq!(connection.peer().name(), "m2");
}

#[tokio::test]
async fn a_master_that_goes_by_several_addresses_has_one_connection() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let connected = connect(&client, Protocol::Slave, address);
    let (first, accepted) = soon(async { tokio::join!(connected, server.accept()) }).await;
    let (first, accepted) = (first.unwrap(), accepted.unwrap());
    let aliases = [address.to_string(), format!("localhost:{}", address.port())];
    let mut masters = Masters::holding(&client, Protocol::Slave, &aliases[..1], first.anchor());
    masters.learn(&aliases);
    let early = timeout(Duration::from_millis(300), masters.next()).await;
    assert!(early.is_err(), "there is one: {early:?}");
    // It ends, and one of the addresses takes its place: the other one waits.
    accepted.close(CloseCode::Refused, "not now");
    let (news, _accepted) = soon(async { tokio::join!(masters.next(), server.accept()) }).await;
    assert!(matches!(news, MasterNews::Leads(_)), "{news:?}");
    let early = timeout(Duration::from_millis(300), masters.next()).await;
    assert!(early.is_err(), "{early:?}");
}
