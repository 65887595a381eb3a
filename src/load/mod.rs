//! The load generator, `outpour bench`: what it offers a server, what it measures, and how it says so.
//!
//! ```text
//! coordinator (scenario)  -- lines of JSON (orders) -->  clients: processes, a ring and a thread for each 19,000
//!   |  thread: publisher, on schedule whatever comes back
//!   |-- starts --> the embedded server, a process (server), unless there is a --target
//!   '-- counts, receipts, CPU time --> Results (result) --> table, files, exit status (report)
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`command_line`] | `outpour bench ...` and its exit status |
//! | [`scenario`] | what is offered, in which order, and what is made of it |
//! | [`publisher`] | messages out, on schedule |
//! | [`clients`], [`dialect`] | tens of thousands of connections, and what they speak |
//! | [`orders`] | what coordinator and clients say to each other |
//! | [`server`] | the embedded server |
//! | [`result`], [`report`], [`view`] | what was found, and how it is shown, in the end and meanwhile |
//! | [`companion`], [`machine`], [`stamp`] | processes, clocks and memory; the stamp in a message |
//!
//! Invariants:
//! 1. Latency counts from the time at which a message was due, which no stall moves.
//! 2. Every process reads one clock, CLOCK_MONOTONIC.
//! 3. A figure that the generator's own slowness may have made is called invalid, not shown as one.

pub mod clients;
pub mod command_line;
pub mod companion;
pub mod dialect;
pub mod machine;
pub mod netns;
pub mod orders;
pub mod publisher;
pub mod report;
pub mod result;
pub mod scenario;
pub mod server;
pub mod stamp;
pub mod view;

use std::ffi::OsStr;
use std::io;

/// What a process of this program is for if its first argument is a hidden role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Becomes the embedded server.
    Server,
    /// A unit of clients.
    Clients,
}

impl Role {
    pub fn named(name: &OsStr) -> Option<Role> {
        let roles = [(server::ROLE, Role::Server), (orders::ROLE, Role::Clients)];
        let role = roles.iter().find(|(known, _)| name == *known)?;
        Some(role.1)
    }

    /// Does its part until it is over; the process's further arguments are its own.
    pub fn act(self) -> io::Result<()> {
        let arguments = std::env::args_os().skip(2);
        match self {
            Role::Server => server::become_server(arguments),
            Role::Clients => clients::serve(),
        }
    }
}
