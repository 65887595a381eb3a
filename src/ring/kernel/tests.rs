//! The kernel ring through real sockets on loopback.

mod calls;

use super::*;
use socket2::{Domain, Protocol, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

const SETTINGS: Settings = Settings {
    file_slots: 256,
    submission_entries: 64,
    completion_entries: 256,
    receive_buffers: 64,
    receive_buffer_bytes: 1024,
    accepts: 64,
    skims: 64,
};

/// Long enough for any machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(10);

struct Batch(Vec<(u32, Vec<Vec<u8>>)>);

impl Sends for Batch {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn slot(&self, index: usize) -> u32 {
        self.0[index].0
    }

    fn piece(&self, index: usize, piece: usize) -> Option<&[u8]> {
        self.0[index].1.get(piece).map(Vec::as_slice)
    }
}

fn nothing() -> Batch {
    Batch(Vec::new())
}

fn one(slot: u32, bytes: &[u8]) -> Batch {
    Batch(vec![(slot, vec![bytes.to_vec()])])
}

/// A ring that listens on loopback, and what it has said.
struct Desktop {
    ring: KernelRing,
    address: SocketAddr,
}

impl Desktop {
    fn new(settings: Settings) -> Desktop {
        Desktop::with_send_buffer(settings, None)
    }

    fn with_send_buffer(settings: Settings, bytes: Option<usize>) -> Desktop {
        let listener = listen(Domain::IPV4, (Ipv4Addr::LOCALHOST, 0).into(), bytes);
        Desktop::on(settings, listener)
    }

    fn on(settings: Settings, listener: TcpListener) -> Desktop {
        let mut ring = KernelRing::new(settings).expect("a ring");
        let address = listener.local_addr().expect("bound");
        ring.listen(listener);
        Desktop { ring, address }
    }

    fn turn(&mut self, sends: &Batch, wait: Wait) -> (Vec<Completion>, Vec<ShortSend>) {
        self.ring.enter(sends, wait).expect("the ring works");
        (self.ring.take_completions(), self.ring.take_short_sends())
    }

    /// Turns until a completion is what is looked for; the others are dropped.
    fn until<T>(&mut self, mut look: impl FnMut(&mut KernelRing, Completion) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            let (completions, short) = self.turn(&nothing(), Wait::Milliseconds(1_000));
            assert!(short.is_empty());
            let mut found = None;
            for completion in completions {
                let answer = look(&mut self.ring, completion);
                found = found.or(answer);
            }
            if let Some(found) = found {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "it never came");
        }
    }

    fn accept(&mut self, socket: Socket) -> TcpStream {
        self.accept_with(socket, None)
    }

    fn accept_with(&mut self, socket: Socket, receive_bytes: Option<usize>) -> TcpStream {
        self.ring.push(Operation::Accept { socket });
        let client = connect(self.address, receive_bytes);
        let peer = self.until(|_, completion| match completion {
            Completion::Accepted {
                socket: accepted,
                peer,
            } if accepted == socket => Some(peer),
            _ => None,
        });
        assert_eq!(
            peer.expect("accepted"),
            client.local_addr().expect("connected")
        );
        client
    }

    fn receive(&mut self, socket: Socket, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.until(|ring, completion| {
            match completion {
                Completion::Received {
                    socket: from,
                    buffer,
                } => {
                    assert_eq!(from, socket);
                    bytes.extend_from_slice(ring.received(&buffer));
                    ring.recycle(buffer);
                }
                Completion::ReceiveEnded {
                    socket,
                    why: End::Rearm,
                } => ring.push(Operation::Receive { socket }),
                other => panic!("{other:?}"),
            }
            (bytes.len() >= count).then_some(())
        });
        bytes
    }

    fn ended(&mut self, socket: Socket) -> End {
        self.until(|_, completion| match completion {
            Completion::ReceiveEnded { socket: ended, why } if ended == socket => Some(why),
            _ => None,
        })
    }

    fn close(&mut self, socket: Socket) {
        self.ring.push(Operation::Close { socket });
        self.until(|_, completion| match completion {
            Completion::Closed { socket: closed } if closed == socket => Some(()),
            _ => None,
        });
    }
}

fn listen(domain: Domain, address: SocketAddr, send_bytes: Option<usize>) -> TcpListener {
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("socket");
    if domain == Domain::IPV6 {
        socket.set_only_v6(false).expect("both families");
    }
    if let Some(bytes) = send_bytes {
        socket.set_send_buffer_size(bytes).expect("a send buffer");
    }
    socket.set_tcp_nodelay(true).expect("no delay");
    socket.bind(&address.into()).expect("bound");
    socket.listen(512).expect("listening");
    socket.into()
}

fn connect(address: SocketAddr, receive_bytes: Option<usize>) -> TcpStream {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("socket");
    if let Some(bytes) = receive_bytes {
        socket
            .set_recv_buffer_size(bytes)
            .expect("a receive buffer");
    }
    socket.connect(&address.into()).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("patience");
    socket.into()
}

/// The peer closed. (A plain read may be interrupted: the kernel takes a ring apart in the context
/// of the thread that dropped it.)
fn assert_end(client: &mut TcpStream) {
    let count = client.read_to_end(&mut Vec::new());
    assert_eq!(count.expect("an end"), 0);
}

fn socket(slot: u32) -> Socket {
    Socket {
        slot,
        generation: slot % 7,
    }
}

/// Bytes that tell their own place.
fn pattern(start: usize, length: usize) -> Vec<u8> {
    (start..start + length)
        .map(|place| (place % 251) as u8)
        .collect()
}

#[test]
fn more_slots_than_the_kernel_allows_are_refused_by_name() {
    let settings = Settings {
        file_slots: (1 << 20) + 1,
        ..SETTINGS
    };
    let error = KernelRing::new(settings).err().expect("beyond any limit");
    let RingError::FileSlots { slots, source } = error else {
        panic!("{error}");
    };
    assert_eq!(slots, settings.file_slots);
    assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
}

#[test]
fn an_accept_knows_the_peer_of_either_family() {
    let mut four = Desktop::new(SETTINGS);
    let client = four.accept(socket(3));
    assert!(client.local_addr().expect("connected").is_ipv4());

    let listener = listen(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into(), None);
    let port = listener.local_addr().expect("bound").port();
    let mut both = Desktop::on(SETTINGS, listener);
    both.address = (Ipv4Addr::LOCALHOST, port).into();
    both.accept(socket(0));
    both.address = (Ipv6Addr::LOCALHOST, port).into();
    let client = both.accept(socket(1));
    assert!(client.local_addr().expect("connected").is_ipv6());
}

#[test]
fn accepts_that_wait_together_each_get_their_own_peer() {
    let mut desk = Desktop::new(SETTINGS);
    for slot in 0..40 {
        let socket = socket(slot);
        desk.ring.push(Operation::Accept { socket });
    }
    desk.turn(&nothing(), Wait::Poll);
    let clients: Vec<TcpStream> = (0..40).map(|_| connect(desk.address, None)).collect();
    let mut peers = Vec::new();
    desk.until(|_, completion| {
        if let Completion::Accepted { socket, peer } = completion {
            peers.push((socket, peer.expect("accepted")));
        }
        (peers.len() == 40).then_some(())
    });
    // Each slot leads to the client that it was said to.
    let batch = Batch(
        peers
            .iter()
            .map(|(socket, peer)| (socket.slot, vec![peer.port().to_be_bytes().to_vec()]))
            .collect(),
    );
    assert!(desk.turn(&batch, Wait::Poll).1.is_empty());
    for mut client in clients {
        let mut port = [0; 2];
        client.read_exact(&mut port).expect("its port");
        let own = client.local_addr().expect("connected").port();
        assert_eq!(u16::from_be_bytes(port), own);
    }
}

#[test]
fn bytes_come_in_and_go_out_and_the_end_is_told() {
    let mut desk = Desktop::new(SETTINGS);
    let socket = socket(9);
    let mut client = desk.accept(socket);
    desk.ring.push(Operation::Receive { socket });
    for length in [1, 1_000, 5_000] {
        client.write_all(&pattern(0, length)).expect("sent");
        let bytes = desk.receive(socket, length);
        assert_eq!(bytes, pattern(0, length));
        let (_, short) = desk.turn(&one(socket.slot, &bytes), Wait::Poll);
        assert!(short.is_empty());
        let mut echo = vec![0; length];
        client.read_exact(&mut echo).expect("an echo");
        assert_eq!(echo, bytes);
    }
    client.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(desk.ended(socket), End::EndOfStream);
    desk.ring.push(Operation::ShutdownWrite { socket });
    desk.turn(&nothing(), Wait::Poll);
    assert_end(&mut client);
    desk.close(socket);
}

#[test]
fn healthy_sends_leave_no_completion_even_beyond_the_submission_queue() {
    let settings = Settings {
        submission_entries: 8,
        completion_entries: 8,
        ..SETTINGS
    };
    let mut desk = Desktop::new(settings);
    let mut clients: Vec<TcpStream> = (0..50).map(|slot| desk.accept(socket(slot))).collect();
    let before = desk.ring.tally();
    let batch = Batch(
        (0..200_usize)
            .map(|send| {
                let bytes = pattern(100 * (send / 50), 100);
                let pieces = match send % 3 {
                    0 => vec![bytes],
                    1 => vec![bytes[..1].to_vec(), bytes[1..].to_vec()],
                    _ => bytes.chunks(7).map(<[u8]>::to_vec).collect(),
                };
                ((send % 50) as u32, pieces)
            })
            .collect(),
    );
    let (completions, short) = desk.turn(&batch, Wait::Poll);
    assert!(completions.is_empty() && short.is_empty());
    let after = desk.ring.tally();
    assert_eq!(after.completions, before.completions);
    assert_eq!(after.enters - before.enters, 200 / 8);
    for client in &mut clients {
        let mut bytes = vec![0; 400];
        client.read_exact(&mut bytes).expect("all four, in order");
        assert_eq!(bytes, pattern(0, 400));
    }
}

/// Sends `total` bytes to a peer that reads slowly, in sends cut by `pieces`; says where the sends
/// fell short within their sends.
fn send_slowly(total: usize, pieces: impl Fn(usize) -> Vec<usize>) -> Vec<(usize, usize)> {
    let mut desk = Desktop::with_send_buffer(SETTINGS, Some(4_096));
    let socket = socket(1);
    let mut client = desk.accept_with(socket, Some(2_048));
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut some = [0; 1_500];
        loop {
            let count = client.read(&mut some).expect("bytes");
            if count == 0 {
                return bytes;
            }
            bytes.extend_from_slice(&some[..count]);
            thread::sleep(Duration::from_micros(50));
        }
    });
    let mut cursor = 0;
    let mut cuts = Vec::new();
    while cursor < total {
        let mut next = cursor;
        let lengths = pieces(cuts.len());
        let list = lengths.iter().map(|&length| {
            let start = next;
            next += length;
            pattern(start, length)
        });
        let batch = Batch(vec![(socket.slot, list.collect())]);
        let (_, short) = desk.turn(&batch, Wait::Poll);
        let Some(send) = short.first() else {
            cursor = next;
            continue;
        };
        let taken = send.taken.expect("the peer lives") as usize;
        assert!(short.len() == 1 && send.index == 0 && cursor + taken < next);
        cursor += taken;
        cuts.push((cuts.len(), taken));
        desk.ring.push(Operation::AwaitWritable { socket });
        desk.until(|_, completion| match completion {
            Completion::Writable { .. } => Some(()),
            _ => None,
        });
    }
    desk.ring.push(Operation::ShutdownWrite { socket });
    desk.turn(&nothing(), Wait::Poll);
    let bytes = reader.join().expect("a reader");
    assert_eq!(bytes.len(), cursor, "reported is not what arrived");
    assert!(bytes == pattern(0, cursor), "bytes were lost or repeated");
    cuts
}

#[test]
fn a_short_send_tells_to_the_byte_what_went_out() {
    let cuts = send_slowly(300_000, |_| vec![20_000]);
    assert!(cuts.len() > 5, "the socket was never full");
    assert!(cuts.iter().any(|&(_, taken)| taken > 0));
}

#[test]
fn a_gathered_send_falls_short_in_any_of_its_pieces() {
    // The first piece grows, so that the cut falls behind, into and before it.
    let lengths = |turn: usize| vec![1 + 997 * (turn % 24), 700, 9_000, 12_000];
    let cuts = send_slowly(600_000, lengths);
    let mut pieces = [0; 4];
    for (turn, taken) in cuts {
        let mut end = 0;
        for (piece, length) in lengths(turn).into_iter().enumerate() {
            end += length;
            if taken < end {
                pieces[piece] += 1;
                break;
            }
        }
    }
    assert!(pieces[0] > 0 && pieces[2] > 0, "cuts per piece: {pieces:?}");
}

#[test]
fn every_full_socket_of_a_batch_is_reported_once_and_in_order() {
    let settings = Settings {
        submission_entries: 4,
        completion_entries: 4,
        ..SETTINGS
    };
    let mut desk = Desktop::with_send_buffer(settings, Some(4_096));
    let clients: Vec<TcpStream> = (0..30)
        .map(|slot| desk.accept_with(socket(slot), Some(2_048)))
        .collect();
    let flood = |length| {
        let sends = (0..30).map(|slot| {
            let length = if slot % 3 == 0 { length } else { 10 };
            (slot, vec![vec![7; length]])
        });
        Batch(sends.collect())
    };
    let (_, short) = desk.turn(&flood(4 << 20), Wait::Milliseconds(60_000));
    let indexes: Vec<u32> = short.iter().map(|send| send.index).collect();
    assert_eq!(indexes, (0..30).step_by(3).collect::<Vec<u32>>());
    assert!(short.iter().all(|send| send.taken.expect("alive") > 0));
    // A full socket takes nothing, and is reported all the same.
    let mut is_full = false;
    while !is_full {
        let (_, short) = desk.turn(&flood(1 << 20), Wait::Poll);
        assert_eq!(short.len(), 10);
        is_full = short.iter().all(|send| send.taken == Ok(0));
    }
    drop(clients);
}

#[test]
fn a_dead_peer_breaks_the_receive_and_the_send() {
    let mut desk = Desktop::new(SETTINGS);
    let socket = socket(2);
    let client = desk.accept(socket);
    desk.ring.push(Operation::Receive { socket });
    desk.turn(&nothing(), Wait::Poll);
    let client = socket2::Socket::from(client);
    client.set_linger(Some(Duration::ZERO)).expect("a reset");
    drop(client);
    assert_eq!(desk.ended(socket), End::Broken(libc::ECONNRESET));
    let (_, short) = desk.turn(&one(socket.slot, b"hello"), Wait::Poll);
    let broken = ShortSend {
        index: 0,
        taken: Err(libc::EPIPE),
    };
    assert_eq!(short, [broken]);
    desk.close(socket);
}

#[test]
fn a_send_to_an_empty_slot_is_an_error_of_that_send_alone() {
    let mut desk = Desktop::new(SETTINGS);
    let mut client = desk.accept(socket(5));
    let batch = Batch(vec![
        (4, vec![vec![1]]),
        (5, vec![vec![2], vec![3]]),
        (6, vec![vec![4], vec![5]]),
    ]);
    let (_, short) = desk.turn(&batch, Wait::Poll);
    let empty = |index| ShortSend {
        index,
        taken: Err(libc::EBADF),
    };
    assert_eq!(short, [empty(0), empty(2)]);
    let mut bytes = [0; 2];
    client.read_exact(&mut bytes).expect("the middle one");
    assert_eq!(bytes, [2, 3]);
}

#[test]
fn a_full_completion_queue_loses_nothing() {
    let settings = Settings {
        submission_entries: 2,
        completion_entries: 2,
        receive_buffers: 256,
        ..SETTINGS
    };
    let mut desk = Desktop::new(settings);
    let mut clients: Vec<TcpStream> = (0..40).map(|slot| desk.accept(socket(slot))).collect();
    for slot in 0..40 {
        let socket = socket(slot);
        desk.ring.push(Operation::Receive { socket });
    }
    desk.turn(&nothing(), Wait::Poll);
    let mut got = vec![Vec::new(); 40];
    let mut rearms = 0;
    for round in 0..20 {
        for client in &mut clients {
            // Several buffers each, so that one receive posts several completions.
            client
                .write_all(&pattern(round * 3_000, 3_000))
                .expect("sent");
        }
        let enough = (round + 1) * 3_000;
        desk.until(|ring, completion| {
            match completion {
                Completion::Received { socket, buffer } => {
                    got[socket.slot as usize].extend_from_slice(ring.received(&buffer));
                    ring.recycle(buffer);
                }
                Completion::ReceiveEnded { socket, why } => {
                    assert_eq!(why, End::Rearm);
                    rearms += 1;
                    ring.push(Operation::Receive { socket });
                }
                other => panic!("{other:?}"),
            }
            got.iter().all(|bytes| bytes.len() == enough).then_some(())
        });
    }
    assert!(rearms > 0, "the queue was never full");
    assert!(got.iter().all(|bytes| *bytes == pattern(0, 60_000)));
}

#[test]
fn a_turn_takes_more_than_the_kernel_does_in_one_call() {
    let mut desk = Desktop::new(SETTINGS);
    let mut clients: Vec<TcpStream> = (0..60).map(|slot| desk.accept(socket(slot))).collect();
    for slot in 0..60 {
        let socket = socket(slot);
        desk.ring.push(Operation::Receive { socket });
    }
    desk.turn(&nothing(), Wait::Poll);
    for client in &mut clients {
        client.write_all(b"x").expect("sent");
    }
    let (completions, _) = desk.turn(&nothing(), Wait::Poll);
    assert_eq!(completions.len(), 60);
    for completion in completions {
        let Completion::Received { buffer, .. } = completion else {
            panic!("{completion:?}");
        };
        desk.ring.recycle(buffer);
    }
}

#[test]
fn when_no_buffer_is_left_the_receive_ends_and_goes_on_later() {
    let settings = Settings {
        receive_buffers: 2,
        receive_buffer_bytes: 16,
        ..SETTINGS
    };
    let mut desk = Desktop::new(settings);
    let socket = socket(0);
    let mut client = desk.accept(socket);
    desk.ring.push(Operation::Receive { socket });
    client.write_all(&pattern(0, 100)).expect("sent");
    let mut kept = Vec::new();
    let why = desk.until(|_, completion| match completion {
        Completion::Received { buffer, .. } => {
            kept.push(buffer);
            None
        }
        Completion::ReceiveEnded { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!((why, kept.len()), (End::Rearm, 2));
    let mut bytes = Vec::new();
    for buffer in kept {
        bytes.extend_from_slice(desk.ring.received(&buffer));
        desk.ring.recycle(buffer);
    }
    desk.ring.push(Operation::Receive { socket });
    bytes.extend(desk.receive(socket, 68));
    assert_eq!(bytes, pattern(0, 100));
}

#[test]
fn a_receive_stops_when_told_and_a_stopped_one_bears_no_grudge() {
    let mut desk = Desktop::new(SETTINGS);
    let socket = socket(7);
    let mut client = desk.accept(socket);
    desk.ring.push(Operation::Receive { socket });
    desk.ring.push(Operation::StopReceiving { socket });
    assert_eq!(desk.ended(socket), End::Rearm);
    // Nothing is there to stop.
    desk.ring.push(Operation::StopReceiving { socket });
    desk.ring.push(Operation::Receive { socket });
    client.write_all(b"on").expect("sent");
    assert_eq!(desk.receive(socket, 2), b"on");
}

#[test]
fn what_comes_late_carries_the_generation_that_it_was_meant_for() {
    let mut desk = Desktop::new(SETTINGS);
    let old = Socket {
        slot: 4,
        generation: GENERATION_MASK,
    };
    let new = Socket {
        slot: 4,
        generation: 0,
    };
    let mut first = desk.accept(old);
    desk.ring.push(Operation::Receive { socket: old });
    desk.close(old);
    let mut second = desk.accept(new);
    desk.ring.push(Operation::Receive { socket: new });
    first.write_all(b"late").expect("the receive holds it open");
    assert_eq!(desk.receive(old, 4), b"late");
    second.write_all(b"now").expect("sent");
    assert_eq!(desk.receive(new, 3), b"now");
    drop(first);
    assert_eq!(desk.ended(old), End::EndOfStream);
}

#[test]
fn a_shutdown_never_reaches_the_next_connection_of_its_slot() {
    let mut desk = Desktop::new(SETTINGS);
    let at = |generation| Socket {
        slot: 0,
        generation,
    };
    let mut client = desk.accept(at(0));
    for generation in 0..100 {
        let socket = at(generation);
        desk.ring.push(Operation::ShutdownWrite { socket });
        desk.ring.push(Operation::Shutdown { socket });
        desk.close(socket);
        assert_end(&mut client);
        client = desk.accept(at(generation + 1));
        let (_, short) = desk.turn(&one(0, b"alive"), Wait::Poll);
        assert!(short.is_empty());
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).expect("a living connection");
    }
}

#[test]
fn a_shutdown_ends_a_receive_and_a_wait_for_room() {
    let mut desk = Desktop::with_send_buffer(SETTINGS, Some(4_096));
    let socket = socket(6);
    let _client = desk.accept_with(socket, Some(2_048));
    let (_, short) = desk.turn(&one(6, &vec![1; 1 << 20]), Wait::Poll);
    assert_eq!(short.len(), 1);
    desk.ring.push(Operation::Receive { socket });
    desk.ring.push(Operation::AwaitWritable { socket });
    desk.turn(&nothing(), Wait::Poll);
    desk.ring.push(Operation::Shutdown { socket });
    let (mut ended, mut writable) = (None, false);
    desk.until(|_, completion| {
        match completion {
            Completion::ReceiveEnded { why, .. } => ended = Some(why),
            Completion::Writable { .. } => writable = true,
            other => panic!("{other:?}"),
        }
        (ended.is_some() && writable).then_some(())
    });
    assert_eq!(ended, Some(End::EndOfStream));
    let (_, short) = desk.turn(&one(6, b"more"), Wait::Poll);
    assert_eq!(short[0].taken, Err(libc::EPIPE));
    desk.close(socket);
}

#[test]
#[should_panic(expected = "slot 3 is closing")]
fn an_operation_on_a_slot_that_is_closing_is_our_fault() {
    let mut desk = Desktop::new(SETTINGS);
    let socket = socket(3);
    let _client = desk.accept(socket);
    desk.ring.push(Operation::Close { socket });
    desk.ring.push(Operation::Receive { socket });
}

#[test]
fn stopped_accepts_end_and_leave_their_slots_empty() {
    let mut desk = Desktop::new(SETTINGS);
    for slot in 0..64 {
        let socket = socket(slot);
        desk.ring.push(Operation::Accept { socket });
        if slot == 31 {
            desk.turn(&nothing(), Wait::Poll);
        }
    }
    desk.ring.push(Operation::StopAccepting);
    let mut stopped = 0;
    desk.until(|_, completion| {
        if let Completion::Accepted { peer, .. } = completion {
            let error = peer.expect_err("nobody called");
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
            stopped += 1;
        }
        (stopped == 64).then_some(())
    });
    // The pool is whole again, and so is the listener.
    for slot in 0..64 {
        desk.accept(socket(slot));
    }
}

#[test]
fn a_closed_slot_is_used_again() {
    let settings = Settings {
        file_slots: 2,
        accepts: 1,
        ..SETTINGS
    };
    let mut desk = Desktop::new(settings);
    for generation in 0..50 {
        let socket = Socket {
            slot: 1,
            generation,
        };
        let mut client = desk.accept(socket);
        desk.close(socket);
        assert_end(&mut client);
    }
}

#[test]
fn rings_of_two_threads_wake_each_other() {
    const LAPS: usize = 200;
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || {
        let mut desk = Desktop::new(SETTINGS);
        let (back, forth): (mpsc::Sender<RawFd>, _) = mpsc::channel();
        tell.send((desk.ring.descriptor(), back)).expect("sent");
        let peer: RawFd = forth.recv().expect("a peer");
        desk.ring.set_peers(vec![peer, desk.ring.descriptor()]);
        for _ in 0..LAPS {
            desk.until(|_, completion| matches!(completion, Completion::Woken).then_some(()));
            desk.ring.push(Operation::Wake { shard: 0 });
        }
        desk.turn(&nothing(), Wait::Poll);
    });
    let mut desk = Desktop::new(SETTINGS);
    let (peer, back) = told.recv().expect("a peer");
    let own = desk.ring.descriptor();
    desk.ring.set_peers(vec![own, peer]);
    back.send(own).expect("sent");
    let before = desk.ring.tally();
    for _ in 0..LAPS {
        desk.ring.push(Operation::Wake { shard: 1 });
        desk.until(|_, completion| matches!(completion, Completion::Woken).then_some(()));
    }
    let after = desk.ring.tally();
    // A wake sent leaves nothing here: what came are the answers.
    assert_eq!(after.completions - before.completions, LAPS as u64);
    other.join().expect("a thread");
    // Its ring is gone, and so is whoever could sleep there.
    desk.ring.push(Operation::Wake { shard: 1 });
    let (completions, _) = desk.turn(&nothing(), Wait::Poll);
    assert!(completions.is_empty());
}

#[test]
fn another_thread_wakes_a_ring_that_sleeps() {
    let mut desk = Desktop::new(SETTINGS);
    let waker = desk.ring.waker();
    // A wake from before the first sleep is not lost.
    waker.wake();
    let (completions, _) = desk.turn(&nothing(), Wait::Milliseconds(10_000));
    assert!(matches!(completions[..], [Completion::Woken]));
    let (done, lap) = mpsc::channel();
    let other = thread::spawn(move || {
        for _ in 0..50 {
            waker.clone().wake();
            lap.recv().expect("an answer");
        }
    });
    for _ in 0..50 {
        desk.until(|_, completion| matches!(completion, Completion::Woken).then_some(()));
        done.send(()).expect("sent");
    }
    other.join().expect("a thread");
}

#[test]
fn the_waker_outlives_a_full_completion_queue() {
    let settings = Settings {
        submission_entries: 1,
        completion_entries: 1,
        ..SETTINGS
    };
    let mut desk = Desktop::new(settings);
    let waker = desk.ring.waker();
    let mut clients: Vec<TcpStream> = (0..20).map(|slot| desk.accept(socket(slot))).collect();
    for _ in 0..20 {
        for slot in 0..20 {
            let socket = socket(slot);
            desk.ring.push(Operation::Receive { socket });
        }
        for client in &mut clients {
            client.write_all(b"x").expect("sent");
        }
        waker.wake();
        let (mut ended, mut is_woken) = (0, false);
        for slot in 0..20 {
            let socket = socket(slot);
            desk.ring.push(Operation::StopReceiving { socket });
        }
        desk.until(|ring, completion| {
            match completion {
                Completion::Woken => is_woken = true,
                Completion::ReceiveEnded { .. } => ended += 1,
                Completion::Received { buffer, .. } => ring.recycle(buffer),
                other => panic!("{other:?}"),
            }
            (is_woken && ended == 20).then_some(())
        });
    }
}

#[test]
fn a_ring_with_nothing_to_do_costs_no_system_call() {
    let mut desk = Desktop::new(SETTINGS);
    let socket = socket(0);
    let mut client = desk.accept(socket);
    desk.ring.push(Operation::Receive { socket });
    desk.turn(&nothing(), Wait::Poll);
    let before = desk.ring.tally().enters;
    for _ in 0..1_000 {
        let (completions, _) = desk.turn(&nothing(), Wait::Poll);
        assert!(completions.is_empty());
    }
    assert_eq!(desk.ring.tally().enters, before);
    // And yet it hears when something comes.
    client.write_all(b"x").expect("sent");
    let start = Instant::now();
    while desk.ring.tally().enters == before {
        desk.turn(&nothing(), Wait::Poll);
        assert!(start.elapsed() < PATIENCE);
    }
}

#[test]
fn a_sleep_ends_in_time() {
    let mut desk = Desktop::new(SETTINGS);
    let start = Instant::now();
    let (completions, _) = desk.turn(&nothing(), Wait::Milliseconds(20));
    assert!(completions.is_empty());
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn a_signal_ends_a_sleep_and_breaks_nothing() {
    let came = Arc::new(AtomicBool::new(false));
    let signal = signal_hook::consts::SIGUSR1;
    signal_hook::flag::register(signal, Arc::clone(&came)).expect("a handler");
    let mut desk = Desktop::new(SETTINGS);
    let socket = socket(0);
    let mut client = desk.accept(socket);
    desk.ring.push(Operation::Receive { socket });
    // A process id that names a thread reaches that thread first.
    let thread_id = rustix::thread::gettid();
    let is_over = Arc::new(AtomicBool::new(false));
    let is_over_there = Arc::clone(&is_over);
    let other = thread::spawn(move || {
        while !is_over_there.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
            rustix::process::kill_process(thread_id, rustix::process::Signal::USR1)
                .expect("a signal");
        }
    });
    let start = Instant::now();
    for _ in 0..5 {
        let (completions, _) = desk.turn(&nothing(), Wait::Milliseconds(60_000));
        assert!(completions.is_empty());
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(came.load(Ordering::Relaxed) && start.elapsed() < PATIENCE);
    other.join().expect("a thread");
    client.write_all(b"still here").expect("sent");
    assert_eq!(desk.receive(socket, 10), b"still here");
}

#[test]
fn a_ring_that_goes_closes_its_connections() {
    let mut desk = Desktop::new(SETTINGS);
    let mut client = desk.accept(socket(0));
    desk.ring.push(Operation::Receive { socket: socket(0) });
    desk.ring.push(Operation::Accept { socket: socket(1) });
    desk.turn(&nothing(), Wait::Poll);
    drop(desk);
    assert_end(&mut client);
}

/// Two rings on this thread, of which each can give connections to the other.
fn neighbours(settings: Settings) -> (Desktop, Desktop) {
    let (mut one, mut other) = (Desktop::new(settings), Desktop::new(settings));
    let both = vec![one.ring.descriptor(), other.ring.descriptor()];
    one.ring.set_peers(both.clone());
    other.ring.set_peers(both);
    (one, other)
}

fn moved(desk: &mut Desktop, socket: Socket) -> Result<(), i32> {
    desk.until(|_, completion| match completion {
        Completion::Moved {
            socket: moved,
            outcome,
        } if moved == socket => Some(outcome),
        other => panic!("{other:?}"),
    })
}

fn arrived(desk: &mut Desktop) -> Socket {
    desk.until(|_, completion| match completion {
        Completion::Arrived { socket } => Some(socket),
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_connection_moves_with_what_was_not_read_and_comes_back() {
    let (mut one, mut other) = neighbours(SETTINGS);
    let here = socket(3);
    let mut client = one.accept(here);
    one.ring.push(Operation::Receive { socket: here });
    client.write_all(b"read here").expect("sent");
    assert_eq!(one.receive(here, 9), b"read here");
    one.ring.push(Operation::StopReceiving { socket: here });
    assert_eq!(one.ended(here), End::Rearm);
    client.write_all(b"read there").expect("sent");
    let there = Socket {
        slot: 200,
        generation: GENERATION_MASK,
    };
    for lap in 0..20 {
        one.ring.push(Operation::Move {
            socket: here,
            shard: 1,
            there,
        });
        one.turn(&nothing(), Wait::Poll);
        assert_eq!(arrived(&mut other), there);
        assert_eq!(moved(&mut one, here), Ok(()));
        // What is left here is an empty slot, and only that.
        let (_, short) = one.turn(&one_byte(here.slot), Wait::Poll);
        assert_eq!(short[0].taken, Err(libc::EBADF));
        other.ring.push(Operation::Receive { socket: there });
        if lap == 0 {
            assert_eq!(other.receive(there, 10), b"read there");
        }
        assert!(other.turn(&one_byte(there.slot), Wait::Poll).1.is_empty());
        let mut byte = [0];
        client.read_exact(&mut byte).expect("an answer from there");
        other.ring.push(Operation::StopReceiving { socket: there });
        assert_eq!(other.ended(there), End::Rearm);
        other.ring.push(Operation::Move {
            socket: there,
            shard: 0,
            there: here,
        });
        other.turn(&nothing(), Wait::Poll);
        assert_eq!(arrived(&mut one), here);
        assert_eq!(moved(&mut other, there), Ok(()));
        assert!(one.turn(&one_byte(here.slot), Wait::Poll).1.is_empty());
        client.read_exact(&mut byte).expect("an answer from here");
    }
    one.close(here);
    assert_end(&mut client);
}

fn one_byte(slot: u32) -> Batch {
    one(slot, b"x")
}

#[test]
fn a_peer_that_goes_while_it_moves_is_found_gone_there() {
    let (mut one, mut other) = neighbours(SETTINGS);
    let (here, there) = (socket(0), socket(1));
    let client = one.accept(here);
    // What was not read when a socket closes makes the close a reset.
    assert!(one.turn(&one_byte(here.slot), Wait::Poll).1.is_empty());
    one.ring.push(Operation::Move {
        socket: here,
        shard: 1,
        there,
    });
    drop(client);
    one.turn(&nothing(), Wait::Poll);
    assert_eq!(arrived(&mut other), there);
    assert_eq!(moved(&mut one, here), Ok(()));
    other.ring.push(Operation::Receive { socket: there });
    assert_eq!(other.ended(there), End::Broken(libc::ECONNRESET));
    other.close(there);
}

#[test]
fn a_connection_stays_when_there_is_no_place_for_it() {
    let (mut one, mut other) = neighbours(SETTINGS);
    let here = socket(2);
    let mut client = one.accept(here);
    one.ring.push(Operation::Move {
        socket: here,
        shard: 1,
        there: Socket {
            slot: SETTINGS.file_slots,
            generation: 0,
        },
    });
    assert_eq!(moved(&mut one, here), Err(libc::EINVAL));
    let (completions, _) = other.turn(&nothing(), Wait::Milliseconds(1));
    assert!(completions.is_empty(), "{completions:?}");
    // It is still in its slot.
    assert!(one.turn(&one_byte(here.slot), Wait::Poll).1.is_empty());
    let mut byte = [0];
    client.read_exact(&mut byte).expect("an answer");
    one.close(here);
}

#[test]
#[should_panic(expected = "slot 0 is moving")]
fn an_operation_on_a_connection_that_moves_is_our_fault() {
    let (mut one, _other) = neighbours(SETTINGS);
    let here = socket(0);
    let _client = one.accept(here);
    one.ring.push(Operation::Move {
        socket: here,
        shard: 1,
        there: socket(0),
    });
    one.ring.push(Operation::Receive { socket: here });
}

#[test]
fn a_full_completion_queue_loses_no_arrival() {
    let settings = Settings {
        submission_entries: 2,
        completion_entries: 2,
        ..SETTINGS
    };
    let (mut one, mut other) = neighbours(settings);
    let mut clients: Vec<TcpStream> = (0..40).map(|slot| one.accept(socket(slot))).collect();
    for slot in 0..40 {
        one.ring.push(Operation::Move {
            socket: socket(slot),
            shard: 1,
            there: socket(slot),
        });
    }
    one.turn(&nothing(), Wait::Poll);
    let (mut there, mut left) = (0, 0);
    let start = Instant::now();
    while there < 40 || left < 40 {
        let (completions, _) = other.turn(&nothing(), Wait::Milliseconds(10));
        there += completions.len();
        let (completions, _) = one.turn(&nothing(), Wait::Milliseconds(10));
        left += completions.len();
        assert!(start.elapsed() < PATIENCE, "{there} came, {left} left");
    }
    let batch = Batch((0..40).map(|slot| (slot, vec![vec![slot as u8]])).collect());
    assert!(other.turn(&batch, Wait::Poll).1.is_empty());
    for (slot, client) in clients.iter_mut().enumerate() {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("an answer");
        assert_eq!(byte[0] as usize, slot);
    }
}

#[test]
fn rings_of_two_threads_pass_a_connection_to_and_fro() {
    const LAPS: u32 = 100;
    // Two slots in turn: the one that it left is not empty before that is told, and it may be back
    // before.
    let home = |lap: u32| Socket {
        slot: 1 + lap % 2,
        generation: lap,
    };
    let abroad = |lap: u32| Socket {
        slot: 3 + lap % 2,
        generation: lap,
    };
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || {
        let mut desk = Desktop::new(SETTINGS);
        let (back, forth): (mpsc::Sender<RawFd>, _) = mpsc::channel();
        tell.send((desk.ring.descriptor(), back)).expect("sent");
        let peer: RawFd = forth.recv().expect("a peer");
        desk.ring.set_peers(vec![peer]);
        assert_eq!(arrived(&mut desk), abroad(0));
        for lap in 0..LAPS {
            pass(
                &mut desk,
                abroad(lap),
                home(lap + 1),
                abroad(lap + 1),
                lap + 1 < LAPS,
            );
        }
    });
    let mut desk = Desktop::new(SETTINGS);
    let (peer, back) = told.recv().expect("a peer");
    desk.ring.set_peers(vec![peer]);
    back.send(desk.ring.descriptor()).expect("sent");
    let mut client = desk.accept(home(0));
    for lap in 0..LAPS {
        pass(&mut desk, home(lap), abroad(lap), home(lap + 1), true);
    }
    other.join().expect("a thread");
    let (_, short) = desk.turn(&one_byte(home(LAPS).slot), Wait::Poll);
    assert!(short.is_empty());
    let mut byte = [0];
    client.read_exact(&mut byte).expect("an answer");
}

/// Gives the connection away, and waits until that is told and, if it comes back, until it has.
fn pass(desk: &mut Desktop, from: Socket, to: Socket, back: Socket, comes_back: bool) {
    desk.ring.push(Operation::Move {
        socket: from,
        shard: 0,
        there: to,
    });
    let (mut is_gone, mut is_back) = (false, !comes_back);
    desk.until(|_, completion| {
        match completion {
            Completion::Moved { socket, outcome } => {
                assert_eq!((socket, outcome), (from, Ok(())));
                is_gone = true;
            }
            Completion::Arrived { socket } => {
                assert_eq!(socket, back);
                is_back = true;
            }
            other => panic!("{other:?}"),
        }
        (is_gone && is_back).then_some(())
    });
}
