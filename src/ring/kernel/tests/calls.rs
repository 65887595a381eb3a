//! A ring that connects, and that throws away what it receives.

use super::*;

/// A listener, and a ring with a route to it from this address.
fn caller(from: Option<IpAddr>, receive_bytes: Option<u32>) -> (Desktop, TcpListener, u16) {
    let mut desktop = Desktop::new(SETTINGS);
    let listener = listen(Domain::IPV4, (Ipv4Addr::LOCALHOST, 0).into(), None);
    let route = desktop.ring.add_route(Route {
        from,
        to: listener.local_addr().expect("bound"),
        receive_buffer_bytes: receive_bytes,
    });
    (desktop, listener, route)
}

fn call(desktop: &mut Desktop, socket: Socket, route: u16) -> Result<(), i32> {
    desktop.ring.push(Operation::Connect { socket, route });
    desktop.until(|_, completion| match completion {
        Completion::Connected {
            socket: connected,
            outcome,
        } if connected == socket => Some(outcome),
        _ => None,
    })
}

/// Skims until so many bytes came, and how often it was told.
fn skimmed(desktop: &mut Desktop, socket: Socket, bytes_wanted: u32) -> u32 {
    let (mut bytes_seen, mut times) = (0, 0);
    desktop.until(|ring, completion| {
        match completion {
            Completion::Skimmed {
                socket: from,
                bytes,
            } => {
                assert_eq!(from, socket);
                bytes_seen += bytes;
                times += 1;
            }
            Completion::ReceiveEnded {
                why: End::Rearm, ..
            } => ring.push(Operation::Skim { socket }),
            other => panic!("{other:?}"),
        }
        (bytes_seen >= bytes_wanted).then_some(())
    });
    assert_eq!(bytes_seen, bytes_wanted);
    times
}

#[test]
fn a_ring_connects_from_the_address_that_it_was_told() {
    let from = Ipv4Addr::new(127, 0, 0, 7);
    let (mut desktop, listener, route) = caller(Some(from.into()), None);
    let missing = desktop.ring.missing_to_connect().expect("a probe");
    assert_eq!(missing, [""; 0]);
    for slot in [0, 255] {
        assert_eq!(call(&mut desktop, socket(slot), route), Ok(()));
        let (mut server, peer) = listener.accept().expect("accepted");
        assert_eq!(peer.ip(), from);
        let (_, short) = desktop.turn(&one(slot, b"hello"), Wait::Poll);
        assert!(short.is_empty());
        let mut bytes = [0; 5];
        server.read_exact(&mut bytes).expect("received");
        assert_eq!(&bytes, b"hello");
        desktop.ring.push(Operation::Receive {
            socket: socket(slot),
        });
        server.write_all(b"good day").expect("sent");
        assert_eq!(desktop.receive(socket(slot), 8), b"good day");
    }
}

#[test]
fn what_does_not_connect_leaves_its_slot_empty() {
    let (mut desktop, listener, route) = caller(None, None);
    drop(listener);
    let nobody = call(&mut desktop, socket(3), route);
    assert_eq!(nobody, Err(libc::ECONNREFUSED));
    let listener = listen(Domain::IPV4, (Ipv4Addr::LOCALHOST, 0).into(), None);
    let to = listener.local_addr().expect("bound");
    let mut route = |from: Option<IpAddr>| {
        desktop.ring.add_route(Route {
            from,
            to,
            receive_buffer_bytes: None,
        })
    };
    let (foreign, own) = (route(Some([192, 0, 2, 1].into())), route(None));
    let not_ours = call(&mut desktop, socket(3), foreign);
    assert_eq!(not_ours, Err(libc::EADDRNOTAVAIL));
    assert_eq!(call(&mut desktop, socket(3), own), Ok(()));
    desktop.close(socket(3));
}

#[test]
fn more_connects_than_the_queue_holds_go_in_one_batch() {
    let (mut desktop, listener, route) = caller(Some([127, 0, 0, 3].into()), Some(8_192));
    for slot in 0..200 {
        let socket = socket(slot);
        desktop.ring.push(Operation::Connect { socket, route });
    }
    let mut connected = 0;
    desktop.until(|_, completion| {
        if let Completion::Connected { outcome, .. } = completion {
            assert_eq!(outcome, Ok(()));
            connected += 1;
        }
        (connected == 200).then_some(())
    });
    for _ in 0..200 {
        listener.accept().expect("accepted");
    }
}

#[test]
fn skimmed_bytes_are_counted_to_the_last_and_an_end_ends_it() {
    let (mut desktop, listener, route) = caller(None, None);
    assert_eq!(call(&mut desktop, socket(9), route), Ok(()));
    let (mut server, _) = listener.accept().expect("accepted");
    desktop.ring.push(Operation::Skim { socket: socket(9) });
    for round in 0..100 {
        server.write_all(&pattern(round, 777)).expect("sent");
    }
    skimmed(&mut desktop, socket(9), 77_700);
    let writing = thread::spawn(move || {
        server.write_all(&vec![1; 3_000_000]).expect("sent");
        server
    });
    let times = skimmed(&mut desktop, socket(9), 3_000_000);
    assert!(
        times < 3_000,
        "{times}: no receive buffer of 1,024 bytes bounds a skim"
    );
    drop(writing.join().expect("written"));
    assert_eq!(desktop.ended(socket(9)), End::EndOfStream);
}

#[test]
fn a_skim_of_some_leaves_the_rest_in_the_socket() {
    let (mut desktop, listener, route) = caller(None, None);
    assert_eq!(call(&mut desktop, socket(1), route), Ok(()));
    let (mut server, _) = listener.accept().expect("accepted");
    server.write_all(&pattern(0, 1_000)).expect("sent");
    for _ in 0..3 {
        desktop.ring.push(Operation::SkimSome {
            socket: socket(1),
            bytes_max: 100,
        });
        assert_eq!(skimmed(&mut desktop, socket(1), 100), 1);
    }
    desktop.ring.push(Operation::Receive { socket: socket(1) });
    assert_eq!(desktop.receive(socket(1), 700), pattern(300, 700));
}

#[test]
fn a_skim_can_be_stopped_and_bytes_be_read_again() {
    let (mut desktop, listener, route) = caller(None, None);
    assert_eq!(call(&mut desktop, socket(1), route), Ok(()));
    let (mut server, _) = listener.accept().expect("accepted");
    desktop.ring.push(Operation::Skim { socket: socket(1) });
    server.write_all(b"to be thrown away").expect("sent");
    skimmed(&mut desktop, socket(1), 17);
    desktop
        .ring
        .push(Operation::StopSkimming { socket: socket(1) });
    assert_eq!(desktop.ended(socket(1)), End::Rearm);
    desktop.ring.push(Operation::Receive { socket: socket(1) });
    server.write_all(b"to be read").expect("sent");
    assert_eq!(desktop.receive(socket(1), 10), b"to be read");
}

#[test]
fn a_reader_that_takes_little_holds_its_sender_back() {
    let (mut desktop, listener, route) = caller(None, Some(4_096));
    assert_eq!(call(&mut desktop, socket(1), route), Ok(()));
    let (mut server, _) = listener.accept().expect("accepted");
    server.set_nonblocking(true).expect("a socket");
    let mut fill = || {
        let mut written = 0;
        while let Ok(count) = server.write(&[7; 4_096]) {
            written += count;
        }
        written
    };
    let at_first = fill();
    assert!(at_first < 8 << 20, "{at_first} bytes for a small buffer");
    desktop.ring.push(Operation::SkimSome {
        socket: socket(1),
        bytes_max: 10,
    });
    assert_eq!(skimmed(&mut desktop, socket(1), 10), 1);
    assert_eq!(fill(), 0, "ten bytes open no window");
}
