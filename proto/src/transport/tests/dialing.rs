//! Finding a master, and finding it again.

use std::{
    future::pending,
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use super::*;

/// Short steps, so that tests see several of them.
fn quick() -> Backoff {
    Backoff::new(Duration::from_millis(10), Duration::from_millis(50))
}

/// An address where nobody answers. The socket is held, so that no other test listens there.
fn nobody() -> (std::net::UdpSocket, SocketAddr) {
    let socket = std::net::UdpSocket::bind(anywhere()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn each_failed_attempt_says_why_and_when_the_next_one_is() {
    let ca = cluster();
    let (_server, foreign) = server_of(&cluster());
    let (_held, silent) = nobody();
    let hosts = vec![
        foreign.to_string(),
        "no port".to_owned(),
        silent.to_string(),
    ];
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let mut dialer = Dialer::new(client, Protocol::Slave, hosts.clone()).with_backoff(quick());
    let mut seen = Vec::new();
    let dialed = dialer.dial(pending(), |failed| {
        seen.push((
            failed.number,
            failed.host.to_owned(),
            failed.error.to_string(),
            failed.retry_in,
        ));
        match failed.number {
            1 | 4 => {
                assert!(!failed.error.is_retryable());
                let source = std::error::Error::source(failed.error).unwrap().to_string();
                assert!(
                    source.starts_with("peer's certificate is not trusted"),
                    "{source}"
                );
            }
            2 => assert!(matches!(failed.error, ConnectError::Resolve { .. })),
            _ => assert!(matches!(failed.error, ConnectError::NoAnswer { .. })),
        }
        if failed.number == 4 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(soon(dialed).await.is_none());
    let hosts_seen: Vec<&str> = seen.iter().map(|(_, host, ..)| host.as_str()).collect();
    assert_eq!(hosts_seen, [&hosts[0], &hosts[1], &hosts[2], &hosts[0]]);
    assert_eq!(seen[2].2, format!("no answer from {}", hosts[2]));
    assert!(
        seen[0].3.is_zero() && seen[1].3.is_zero(),
        "no pause within a round"
    );
    assert!(
        seen[2].3 <= Duration::from_millis(10),
        "then at most the first step"
    );
}

#[tokio::test]
async fn shutdown_ends_the_dialing_of_nobody() {
    let ca = cluster();
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (_held, silent) = nobody();
    let mut dialer = Dialer::new(client.clone(), Protocol::Slave, vec![silent.to_string()]);
    let soon_after = tokio::time::sleep(Duration::from_millis(50));
    assert!(
        soon(dialer.dial(soon_after, |_| ControlFlow::Continue(())))
            .await
            .is_none()
    );
    let mut without_hosts = Dialer::new(client, Protocol::Slave, Vec::new());
    assert!(
        soon(without_hosts.dial(pending(), |_| ControlFlow::Continue(())))
            .await
            .is_none()
    );
}

#[tokio::test]
async fn the_second_master_is_found_when_the_first_is_down_and_stays_the_first_choice() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (_held, silent) = nobody();
    let hosts = vec![silent.to_string(), address.to_string()];
    let mut dialer = Dialer::new(client, Protocol::Slave, hosts).with_backoff(quick());
    let mut failures = 0;
    for _ in 0..2 {
        let dialed = dialer.dial(pending(), |_| {
            failures += 1;
            ControlFlow::Continue(())
        });
        let (connection, accepted) = soon(async { tokio::join!(dialed, server.accept()) }).await;
        assert_eq!(connection.unwrap().remote_address(), address);
        drop(accepted);
    }
    assert_eq!(failures, 1, "the second time the good one was dialed first");
}

#[tokio::test]
async fn a_host_name_with_several_addresses_is_reached_at_the_one_that_answers() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    // Means 127.0.0.1 and, on most machines, ::1 as well, where nobody listens.
    let hosts = vec![format!("localhost:{}", address.port())];
    let mut dialer = Dialer::new(client, Protocol::Slave, hosts);
    let dialed = dialer.dial(pending(), |failed| panic!("{failed:?}"));
    let (connection, _accepted) = soon(async { tokio::join!(dialed, server.accept()) }).await;
    assert_eq!(connection.unwrap().remote_address(), address);
}

#[tokio::test]
async fn a_slave_finds_its_master_again_after_a_restart() {
    let ca = cluster();
    let identity = ca.issue(PeerRole::Master, "m1", &[]).unwrap();
    let mut server = Server::bind(anywhere(), &identity, limits()).unwrap();
    let address = server.local_addr().unwrap();
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let mut dialer =
        Dialer::new(client, Protocol::Slave, vec![address.to_string()]).with_backoff(quick());
    let dialed = dialer.dial(pending(), |failed| panic!("{failed:?}"));
    let (slave, master) = soon(async { tokio::join!(dialed, server.accept()) }).await;
    let (to_master, mut events) = slave.unwrap().split::<Call, Event>(8);
    let held = master.unwrap().split::<Event, Call>(8);

    soon(server.close(PATIENCE)).await;
    let reason = "shutting down".to_owned();
    let ended = Disconnect::ByPeer {
        code: CloseCode::ShuttingDown,
        reason,
    };
    assert!(ended.is_retryable());
    assert_eq!(soon(events.recv()).await, Err(RecvError::Closed(ended)));
    assert!(matches!(to_master.send(update(1)).await, Err(SendError(_))));

    // The process that held them is gone.
    drop(held);
    // The master stays away until the slave has noticed, then comes back on the same port.
    let attempts = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&attempts);
    let redial = tokio::spawn(async move {
        let report = |_: &FailedAttempt<'_>| {
            *counted.lock().unwrap() += 1;
            ControlFlow::Continue(())
        };
        dialer.dial(pending(), report).await
    });
    eventually(|| *attempts.lock().unwrap() >= 1).await;
    // The port is free once the tasks of the old endpoint have ended.
    let mut server = soon(async {
        loop {
            match Server::bind(address, &identity, limits()) {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    let master = soon(server.accept()).await.unwrap();
    let slave = soon(redial).await.unwrap().unwrap();
    let (to_master, _events) = slave.split::<Call, Event>(8);
    let (_to_slave, mut calls) = master.split::<Event, Call>(8);
    to_master.send(update(2)).await.unwrap();
    assert_eq!(soon(calls.recv()).await, Ok(update(2)));
}
