//! Messages in both directions: order, batches, pressure, endings.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn messages_flow_both_ways_and_are_counted() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (to_master, mut events) = slave.split::<Call, Event>(8);
    let (to_slave, mut calls) = master.split::<Event, Call>(8);

    let hello = Call::Register {
        name: "s1".into(),
        incarnation: 3,
    };
    to_master.send(hello.clone()).await.unwrap();
    assert_eq!(soon(calls.recv()).await, Ok(hello));
    to_slave.try_send(Event::Registered { id: 7 }).unwrap();
    assert_eq!(soon(events.recv()).await, Ok(Event::Registered { id: 7 }));

    let (ours, theirs) = (to_master.stats(), to_slave.stats());
    assert_eq!((ours.frames_sent, ours.frames_received), (1, 1));
    assert_eq!((theirs.frames_sent, theirs.frames_received), (1, 1));
    assert_eq!(ours.bytes_sent, theirs.bytes_received);
    assert_eq!(ours.bytes_received, theirs.bytes_sent);
    assert!(ours.bytes_sent > 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_messages_arrive_in_order() {
    const COUNT: u64 = 100_000;
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (to_master, mut events) = slave.split::<Call, Event>(4_096);
    let (to_slave, mut calls) = master.split::<Event, Call>(4_096);
    let begin = Instant::now();
    let sending = tokio::spawn(async move {
        for sequence in 0..COUNT {
            to_master.send(update(sequence)).await.unwrap();
        }
        to_master
    });
    // And as many small ones the other way at the same time.
    let answering = tokio::spawn(async move {
        let mut batch = Vec::new();
        let mut expected = 0;
        while expected < COUNT {
            calls.recv_batch(&mut batch, 512).await.unwrap();
            assert!(batch.len() <= 512);
            for call in batch.drain(..) {
                assert_eq!(call, update(expected));
                to_slave
                    .send(Event::Acknowledged { sequence: expected })
                    .await
                    .unwrap();
                expected += 1;
            }
        }
        (to_slave, calls)
    });
    for sequence in 0..COUNT {
        assert_eq!(
            soon(events.recv()).await,
            Ok(Event::Acknowledged { sequence })
        );
    }
    let took = begin.elapsed();
    let (to_master, (to_slave, _calls)) = (sending.await.unwrap(), answering.await.unwrap());
    assert_eq!(to_master.stats().frames_sent, COUNT);
    assert_eq!(to_slave.stats().frames_received, COUNT);
    eprintln!(
        "{COUNT} messages each way in {took:?}: {:.0} messages/s",
        2.0 * COUNT as f64 / took.as_secs_f64()
    );
}

#[tokio::test]
async fn large_messages_fill_a_queue_by_their_bytes_before_their_count() {
    const BYTES: usize = 1 << 20;
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (_to_master, mut events) = slave.split::<Call, Event>(8);
    let (to_slave, _calls) = master.split_bounded::<Event, Call>(QueueBound {
        messages: 100_000,
        bytes: BYTES,
        weigh: |event| match event {
            Event::Error { why } => why.len(),
            _ => 0,
        },
    });
    let of = |bytes: usize| Event::Error {
        why: "x".repeat(bytes),
    };
    // One that is larger than the bound passes an empty queue.
    to_slave.try_send(of(2 * BYTES)).unwrap();
    assert_eq!(soon(events.recv()).await, Ok(of(2 * BYTES)));

    let mut sent = 0;
    soon(async {
        // Full may mean only that the writer had no turn yet; it must stay full.
        let mut refused = 0;
        while refused < 20 {
            match to_slave.try_send(of(64 << 10)) {
                Ok(()) => {
                    sent += 1;
                    refused = 0;
                }
                Err(TrySendError::Full(_)) => {
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TrySendError::Closed(_)) => panic!("the peer is alive"),
            }
        }
    })
    .await;
    // The queue, what the writer holds, and the windows.
    assert!(sent < 200, "{sent} messages of 64 KiB were taken");
    to_slave.try_send(Event::Registered { id: 1 }).unwrap();
    // What was written makes room again, all of it.
    for _ in 0..sent {
        assert_eq!(soon(events.recv()).await, Ok(of(64 << 10)));
    }
    assert_eq!(soon(events.recv()).await, Ok(Event::Registered { id: 1 }));
    to_slave.try_send(of(2 * BYTES)).unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_a_bounded_queue_and_no_more() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (_to_master, mut events) = slave.split::<Call, Event>(8);
    let (to_slave, _calls) = master.split::<Event, Call>(16);

    let big = || Event::Error {
        why: "x".repeat(64 * 1024),
    };
    let mut sent = 0_u64;
    let refused = soon(async {
        loop {
            match to_slave.try_send(big()) {
                Ok(()) => sent += 1,
                // Full may mean only that the writer had no turn yet; it must stay full.
                Err(TrySendError::Full(message)) => {
                    let queued = to_slave.stats().bytes_sent;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    if to_slave.stats().bytes_sent == queued {
                        break message;
                    }
                }
                Err(TrySendError::Closed(_)) => panic!("the peer is alive"),
            }
        }
    })
    .await;
    assert_eq!(refused, big(), "the message comes back");
    assert!(to_slave.stats().sends_refused > 0);
    // Both windows and both queues, with room for what is between them.
    let bytes = sent * 64 * 1024;
    assert!(
        bytes < 6 * 1024 * 1024,
        "{bytes} bytes were taken for a peer that reads nothing"
    );

    // It is slow, not broken: what was taken arrives once it reads.
    for _ in 0..sent {
        assert_eq!(soon(events.recv()).await, Ok(big()));
    }
    // An owner that does not want to wait closes, and the time for that is bounded too.
    loop {
        match to_slave.try_send(big()) {
            Ok(()) => tokio::task::yield_now().await,
            Err(TrySendError::Full(_)) => break,
            Err(TrySendError::Closed(_)) => panic!("the peer is alive"),
        }
    }
    to_slave.close(CloseCode::SlowReader, "does not read");
    assert_eq!(soon(to_slave.closed()).await, Disconnect::ByUs);
    assert!(matches!(
        to_slave.try_send(big()),
        Err(TrySendError::Closed(_))
    ));
    let ended = soon(async {
        loop {
            if let Err(error) = events.recv().await {
                break error;
            }
        }
    });
    let reason = "does not read".to_owned();
    let by_peer = Disconnect::ByPeer {
        code: CloseCode::SlowReader,
        reason,
    };
    assert_eq!(ended.await, RecvError::Closed(by_peer));
}

#[tokio::test]
async fn what_was_queued_before_a_close_still_arrives() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    for round in 0..20 {
        let (slave, master) = pair(&mut server, &client, address).await;
        let (to_master, mut events) = slave.split::<Call, Event>(8);
        let (to_slave, calls) = master.split::<Event, Call>(64);
        for id in 0..50 {
            to_slave.try_send(Event::Registered { id }).unwrap();
        }
        let refusal = Event::Error {
            why: "unknown framework".into(),
        };
        to_slave.try_send(refusal.clone()).unwrap();
        to_slave.close(CloseCode::Refused, "see the message");
        to_slave.close(CloseCode::Done, "the second close changes nothing");
        if round % 2 == 0 {
            drop((to_slave, calls));
        }
        for id in 0..50 {
            assert_eq!(soon(events.recv()).await, Ok(Event::Registered { id }));
        }
        assert_eq!(soon(events.recv()).await, Ok(refusal));
        let reason = "see the message".to_owned();
        let by_peer = Disconnect::ByPeer {
            code: CloseCode::Refused,
            reason,
        };
        assert_eq!(
            soon(events.recv()).await,
            Err(RecvError::Closed(by_peer.clone()))
        );
        assert_eq!(soon(to_master.closed()).await, by_peer);
        assert_eq!(to_master.disconnect(), Some(by_peer));
        assert_eq!(to_master.send(update(1)).await, Err(SendError(update(1))));
    }
}

#[tokio::test]
async fn dropping_the_last_sender_delivers_the_rest_and_says_goodbye() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (to_master, events) = slave.split::<Call, Event>(64);
    let (_to_slave, mut calls) = master.split::<Event, Call>(8);
    for sequence in 0..30 {
        to_master.clone().try_send(update(sequence)).unwrap();
    }
    drop((to_master, events));
    for sequence in 0..30 {
        assert_eq!(soon(calls.recv()).await, Ok(update(sequence)));
    }
    let done = Disconnect::ByPeer {
        code: CloseCode::Done,
        reason: String::new(),
    };
    assert_eq!(soon(calls.recv()).await, Err(RecvError::Closed(done)));
}

#[tokio::test]
async fn a_plain_thread_can_send_without_a_runtime() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (_to_master, mut events) = slave.split::<Call, Event>(8);
    let (to_slave, _calls) = master.split::<Event, Call>(8);
    let core = std::thread::spawn(move || {
        to_slave.try_send(Event::Registered { id: 1 }).unwrap();
        to_slave.close(CloseCode::Superseded, "");
    });
    assert_eq!(soon(events.recv()).await, Ok(Event::Registered { id: 1 }));
    core.join().unwrap();
}

#[tokio::test]
async fn the_largest_message_passes_and_a_larger_one_ends_the_connection_as_our_bug() {
    let ca = cluster();
    let (mut server, address) = server_of(&ca);
    let client = client_of(&ca, PeerRole::Slave, "s1");
    let (slave, master) = pair(&mut server, &client, address).await;
    let (to_master, _events) = slave.split::<Call, Event>(8);
    let (_to_slave, mut calls) = master.split::<Event, Call>(8);
    let blob = |bytes| Call::Blob(vec![7; bytes].into());
    // Version, variant, and a length of five bytes.
    let largest = crate::codec::FRAME_BYTES_MAX - 7;
    to_master.send(blob(largest)).await.unwrap();
    assert_eq!(soon(calls.recv()).await, Ok(blob(largest)));
    to_master.send(blob(largest + 1)).await.unwrap();
    assert_eq!(soon(to_master.closed()).await, Disconnect::ByUs);
    let error = soon(calls.recv()).await.unwrap_err();
    let internal = |ended: &Disconnect| {
        matches!(
            ended,
            Disconnect::ByPeer {
                code: CloseCode::Internal,
                ..
            }
        )
    };
    assert!(
        matches!(&error, RecvError::Closed(ended) if internal(ended)),
        "{error:?}"
    );
}

#[test]
fn a_master_that_was_restarted_says_that_it_does_not_know_the_connection() {
    let ca = cluster();
    let identity = ca.issue(PeerRole::Master, "m1", &[]).unwrap();
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (ours, theirs) = (runtime(), runtime());
    let client = ours.block_on(async { client_of(&ca, PeerRole::Slave, "s1") });
    let mut server = theirs
        .block_on(async { Server::bind(anywhere(), &identity, limits()).expect("a port is free") });
    let address = server.local_addr().unwrap();
    let slave = ours.spawn(async move { connect(&client, Protocol::Slave, address).await });
    let master = theirs.block_on(soon(server.accept())).expect("accepted");
    let slave = ours.block_on(slave).unwrap().expect("connected");
    // As kill -9 does: everything is gone, and nobody is told.
    theirs.shutdown_timeout(PATIENCE);
    drop((server, master));

    let theirs = runtime();
    let _enter = theirs.enter();
    let _server = Server::bind(address, &identity, limits()).expect("its port is free again");
    let began = Instant::now();
    let ended = ours.block_on(soon(async {
        let (to_master, mut from_master) = slave.split::<Call, Event>(8);
        to_master.try_send(update(1)).expect("there is room");
        from_master.recv().await
    }));
    assert_eq!(ended, Err(RecvError::Closed(Disconnect::Reset)));
    assert!(
        began.elapsed() < IDLE_TIMEOUT / 2,
        "after {:?}",
        began.elapsed()
    );
}
