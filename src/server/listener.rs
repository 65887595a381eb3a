//! Listening sockets: one for each shard on the same port, among which the kernel spreads the
//! connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::options::Options;

/// One listener for each shard, and where they listen: port 0 becomes the port that the first one
/// got.
pub fn listeners(options: &Options, shards: u16) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    refuse_occupied(options.address)?;
    let first = listener(options, options.address)?;
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..shards {
        all.push(listener(options, address)?);
    }
    Ok((address, all))
}

/// With SO_REUSEPORT a second server on the port would not fail: it would take some of the
/// connections, and the clients of the two would not hear each other. A bind without it fails if
/// anybody listens there.
fn refuse_occupied(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let given_up = Instant::now() + LEFT_OVER;
    loop {
        match unbound(address)?.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < given_up => {
                thread::sleep(RETRY);
            }
            bound => return bound,
        }
    }
}

/// The kernel takes a ring apart in the background when its process has ended, and the ring's
/// listener goes last: a server that is started again at once waits so long for the one before.
const LEFT_OVER: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_millis(20);

fn unbound(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a server that has just ended, in TIME_WAIT, do not keep the port.
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(address) = address {
        // `::` serves IPv4 too, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}

/// What it accepts inherits its options.
fn listener(options: &Options, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = unbound(address)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    // Silent peers are found by the protocol's pings, those that do not acknowledge by this.
    socket.set_keepalive(false)?;
    let peer_timeout = Duration::from_millis(options.peer_timeout_ms.into());
    socket.set_tcp_user_timeout(Some(peer_timeout))?;
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Options {
        Options {
            address: address.parse().expect("the test gives an address"),
            ..Options::default()
        }
    }

    #[test]
    fn all_shards_get_the_port_that_the_first_one_got() {
        let (address, listeners) = listeners(&at("127.0.0.1:0"), 3).expect("a free port");
        assert_ne!(address.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr().expect("it is bound"), address);
        }
    }

    #[test]
    fn a_second_server_on_the_port_is_refused() {
        let (address, _kept) = listeners(&at("127.0.0.1:0"), 1).expect("a free port");
        let error = listeners(&at(&address.to_string()), 1).expect_err("it is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let (address, _kept) = listeners(&at("[::]:0"), 2).expect("a free port");
        std::net::TcpStream::connect(("127.0.0.1", address.port())).expect("IPv4 is served");
    }
}
