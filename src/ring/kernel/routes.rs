//! The ways that a ring connects by: addresses and options, where the kernel can read them.
//!
//! A socket is made, set up and connected by one chain of submissions, in which each waits for the
//! one before. What they point to is read when their turn comes, so it lies here, in memory that
//! does not move and lives as long as the ring.

use io_uring::opcode;
use io_uring::squeue::{self, Flags};
use io_uring::types::{DestinationSlot, Fixed};
use socket2::{Domain, SockAddr, Type};
use std::net::{IpAddr, SocketAddr};

use super::tag::{Kind, of_socket};
use crate::ring::Socket;

/// One way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The local address; `None` leaves it to the kernel.
    pub from: Option<IpAddr>,
    pub to: SocketAddr,
    /// SO_RCVBUF, where it shall not be the kernel's choice.
    pub receive_buffer_bytes: Option<u32>,
}

/// Submissions of the longest chain.
pub(super) const CHAIN_MAX: usize = 6;

#[derive(Default)]
#[allow(clippy::vec_box, reason = "a way must not move when others are added")]
pub(super) struct Routes(Vec<Box<Way>>);

struct Way {
    from: Option<SockAddr>,
    to: SockAddr,
    domain: Domain,
    receive_buffer_bytes: Option<libc::c_int>,
}

static ON: libc::c_int = 1;

impl Routes {
    pub(super) fn add(&mut self, route: Route) -> u16 {
        let number = u16::try_from(self.0.len()).expect("there are less than 65,536 routes");
        let bytes = route.receive_buffer_bytes;
        self.0.push(Box::new(Way {
            // Port 0: any.
            from: route.from.map(|from| SocketAddr::new(from, 0).into()),
            to: route.to.into(),
            domain: Domain::for_address(route.to),
            receive_buffer_bytes: bytes
                .map(|bytes| libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX)),
        }));
        number
    }

    pub(super) fn has(&self, route: u16) -> bool {
        usize::from(route) < self.0.len()
    }

    /// The chain for one connection. All but the last are silent when they succeed; the first that
    /// fails is reported, and nothing behind it is.
    pub(super) fn chain(&self, socket: Socket, route: u16) -> impl Iterator<Item = squeue::Entry> {
        let way = &self.0[usize::from(route)];
        let slot = Fixed(socket.slot);
        let place = DestinationSlot::try_from_slot_target(socket.slot);
        let made = opcode::Socket::new(way.domain.into(), Type::STREAM.into(), libc::IPPROTO_TCP)
            .file_index(Some(place.expect("slots are below 2^20")))
            .build()
            .user_data(of_socket(Kind::Dial, socket));
        let set = |level: i32, name: i32, value: *const libc::c_int| {
            let (level, name) = (level as u32, name as u32);
            let length = size_of::<libc::c_int>() as u32;
            opcode::SetSockOpt::new(slot, level, name, value.cast(), length).build()
        };
        let prompt = set(libc::IPPROTO_TCP, libc::TCP_NODELAY, &raw const ON);
        let buffer = way
            .receive_buffer_bytes
            .as_ref()
            .map(|bytes| set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes));
        // The port is chosen when both ends are known: one address then has a range of ports for
        // each peer, and finding a free one is quick.
        let late = way.from.as_ref().map(|_| {
            set(
                libc::IPPROTO_IP,
                libc::IP_BIND_ADDRESS_NO_PORT,
                &raw const ON,
            )
        });
        let bound = way
            .from
            .as_ref()
            .map(|from| opcode::Bind::new(slot, from.as_ptr().cast(), from.len()).build());
        let (to, length) = (way.to.as_ptr().cast(), way.to.len());
        let connected = opcode::Connect::new(slot, to, length)
            .build()
            .user_data(of_socket(Kind::Connect, socket));
        let between = [Some(prompt), buffer, late, bound].into_iter().flatten();
        let before = std::iter::once(made)
            .chain(between.map(move |entry| entry.user_data(of_socket(Kind::Connect, socket))))
            .map(|entry| entry.flags(Flags::SKIP_SUCCESS | Flags::IO_LINK));
        before.chain(std::iter::once(connected))
    }
}
