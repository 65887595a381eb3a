//! The publisher's thread: commands in, sockets polled, news out.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::http::HttpConnection;
use super::lane::{Answer, Lane};
use super::run::Run;
use super::{Command, News, Orders};
use crate::load::machine::{self, monotonic_ns, thread_cpu_ns};

/// The thread looks around so often at least, and says how far it is.
const LOOK_NS: u64 = 100_000_000;

/// Publishes until the handle is gone; an error ends it too, and is told.
pub fn run(orders: &Orders, commands: &Receiver<Command>, alarm: &UnixStream, news: &Sender<News>) {
    let outcome = connect(orders).and_then(|mut lanes| {
        // Whoever listens no more has dropped the handle, and the commands end too.
        if news.send(News::Ready).is_err() {
            return Ok(());
        }
        serve(orders, &mut lanes, commands, alarm, news)
    });
    if let Err(error) = outcome
        && let Err(unheard) = news.send(News::Failed(error))
        && let News::Failed(error) = unheard.0
    {
        eprintln!("the publisher: {error}");
    }
}

fn connect(orders: &Orders) -> io::Result<Vec<Lane>> {
    if let Some(core) = orders.core {
        machine::pin(core)?;
    }
    let mut lanes = Vec::new();
    if let Some(http) = &orders.http {
        for _ in 0..http.connections {
            let connection = HttpConnection::connect(
                http.address,
                http.form.clone(),
                &orders.event,
                http.window,
            )?;
            lanes.push(Lane::new(lanes.len() as u64, connection, http.batch));
        }
    }
    Ok(lanes)
}

fn serve(
    orders: &Orders,
    lanes: &mut [Lane],
    commands: &Receiver<Command>,
    alarm: &UnixStream,
    news: &Sender<News>,
) -> io::Result<()> {
    let mut run: Option<Run> = None;
    let mut told_ns = 0;
    let mut answers = Vec::new();
    loop {
        loop {
            match commands.try_recv() {
                Ok(Command::Run(schedule)) => {
                    run = Some(Run::begin(schedule, lanes, thread_cpu_ns()));
                }
                Ok(Command::Stop) => {
                    if let Some(run) = &mut run {
                        run.stop();
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        let mut wake_ns = monotonic_ns() + LOOK_NS;
        if let Some(current) = &mut run {
            wake_ns = wake_ns.min(current.turn(lanes, orders)?);
        }
        sleep(lanes, alarm, wake_ns, &mut answers)?;
        let Some(current) = &mut run else {
            answers.clear();
            continue;
        };
        for answer in answers.drain(..) {
            current.take_in(answer);
        }
        let now_ns = monotonic_ns();
        let news_now = if current.is_over(lanes) {
            let tally = current.tally(thread_cpu_ns());
            run = None;
            News::Done(Box::new(tally))
        } else if now_ns > told_ns + LOOK_NS {
            told_ns = now_ns;
            News::Progress(Box::new(current.counts(thread_cpu_ns())))
        } else {
            continue;
        };
        if news.send(news_now).is_err() {
            return Ok(());
        }
    }
}

/// Waits for sockets, for a command or for the time, and moves bytes.
fn sleep(
    lanes: &mut [Lane],
    alarm: &UnixStream,
    wake_ns: u64,
    answers: &mut Vec<Answer>,
) -> io::Result<()> {
    let wait_ns = wake_ns.saturating_sub(monotonic_ns());
    let timeout = Timespec {
        tv_sec: (wait_ns / 1_000_000_000) as i64,
        tv_nsec: (wait_ns % 1_000_000_000) as i64,
    };
    let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(lanes.len() + 1);
    let alarm_descriptor = alarm.as_fd();
    polled.push(PollFd::from_borrowed_fd(alarm_descriptor, PollFlags::IN));
    for lane in lanes.iter() {
        let mut flags = PollFlags::IN;
        if lane.has_unsent() {
            flags |= PollFlags::OUT;
        }
        polled.push(PollFd::from_borrowed_fd(lane.descriptor(), flags));
    }
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let happened: Vec<PollFlags> = polled.iter().map(PollFd::revents).collect();
    if !happened[0].is_empty() {
        silence(alarm)?;
    }
    let now_ns = monotonic_ns();
    for (lane, happened) in lanes.iter_mut().zip(&happened[1..]) {
        if happened.contains(PollFlags::OUT) {
            lane.flush(now_ns)?;
        }
        if happened.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            lane.receive(answers, now_ns)?;
        }
    }
    Ok(())
}

/// Takes the bytes that woke the thread. The end of the stream is told by the commands' end.
fn silence(mut alarm: &UnixStream) -> io::Result<()> {
    match alarm.read(&mut [0; 64]) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}
