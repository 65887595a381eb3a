//! One thread and one `send` a visit.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::SendFlags;

use super::log::Log;
use super::{Sends, Tally};
use outpour::load::machine::{monotonic_ns, sleep_until};

pub struct Naked {
    sockets: Vec<TcpStream>,
}

impl Naked {
    pub fn accept(listener: &TcpListener, sockets: usize) -> io::Result<Naked> {
        let accepted = listener.incoming().take(sockets);
        Ok(Naked {
            sockets: accepted.collect::<io::Result<_>>()?,
        })
    }
}

impl Sends for Naked {
    fn send(&mut self, log: &Log) -> io::Result<Tally> {
        let mut cursors = vec![0; self.sockets.len()];
        let mut tally = Tally::default();
        let mut behind = cursors.len();
        while behind > 0 {
            let lap_start_ns = monotonic_ns();
            let head = log.head(lap_start_ns);
            let (visits_before, short_before) = (tally.visits, tally.short_sends);
            behind = 0;
            for (socket, cursor) in self.sockets.iter().zip(&mut cursors) {
                if *cursor < head {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let end = log.visit_end(*cursor, head);
                    tally.visits += 1;
                    match rustix::net::send(socket, &log.bytes[*cursor..end], flags) {
                        Ok(taken) => *cursor += taken,
                        Err(rustix::io::Errno::AGAIN) => {}
                        Err(error) => return Err(error.into()),
                    }
                    tally.short_sends += u64::from(*cursor < end);
                }
                behind += usize::from(*cursor < log.bytes.len());
            }
            let lap_us = (monotonic_ns() - lap_start_ns) / 1_000;
            tally.lap_us_max = tally.lap_us_max.max(lap_us);
            if head < log.bytes.len() {
                sleep_until(log.due_ns(head));
            } else if behind > 0 && tally.visits - visits_before == tally.short_sends - short_before
            {
                // Only full sockets are left; they need the readers' time, not ours.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        tally.deliveries = log.messages * self.sockets.len() as u64;
        tally.system_calls = Some(tally.visits);
        Ok(tally)
    }
}
