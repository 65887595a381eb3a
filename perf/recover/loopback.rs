//! What loopback itself moves: plain bytes between the server's core and the readers', over as many
//! sockets as readers come back with.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use outpour::load::machine::{self, monotonic_ns};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// One write; the server sends as much at a time to one who catches up.
const WRITE_BYTES: usize = 64 << 10;
const READ_BYTES: usize = 256 << 10;

/// Bytes a second, written for so long.
pub fn bytes_per_second(
    sender_core: usize,
    reader_core: usize,
    sockets: usize,
    seconds: u64,
) -> io::Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..sockets {
        near.push(TcpStream::connect(address)?);
        far.push(listener.accept()?.0);
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| read(&near, reader_core, &is_over));
        let sending = scope.spawn(|| send(&far, sender_core, seconds));
        let start_ns = sending.join().expect("it does not panic");
        is_over.store(true, Ordering::Relaxed);
        let (bytes, end_ns) = reading.join().expect("it does not panic")?;
        // What is still in the sockets when sending ends is read too, and its time counts.
        Ok(bytes as f64 / ((end_ns - start_ns?) as f64 / 1e9))
    })
}

/// Gives the time at which it began.
fn send(sockets: &[TcpStream], core: usize, seconds: u64) -> io::Result<u64> {
    machine::pin(core)?;
    let chunk = vec![b'x'; WRITE_BYTES];
    for socket in sockets {
        socket.set_nonblocking(true)?;
    }
    let start_ns = monotonic_ns();
    let end_ns = start_ns + seconds * 1_000_000_000;
    while monotonic_ns() < end_ns {
        for mut socket in sockets {
            match socket.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(start_ns)
}

/// Reads until it is over and nothing is left; gives the bytes, and when the last of them were read.
fn read(sockets: &[TcpStream], core: usize, is_over: &AtomicBool) -> io::Result<(u64, u64)> {
    machine::pin(core)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&poll, socket, data, epoll::EventFlags::IN)?;
    }
    let mut buffer = vec![0; READ_BYTES];
    let mut events = Vec::with_capacity(1024);
    let (mut bytes, mut last_ns) = (0, monotonic_ns());
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: 5_000_000,
    };
    loop {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if events.is_empty() && is_over.load(Ordering::Relaxed) {
            return Ok((bytes, last_ns));
        }
        for event in &events {
            let mut socket = &sockets[event.data.u64() as usize];
            match socket.read(&mut buffer) {
                Ok(got) => bytes += got as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !events.is_empty() {
            last_ns = monotonic_ns();
        }
    }
}
