//! The publisher's thread: commands in, sockets polled, news out.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use super::events::EventConnection;
use super::http::HttpConnection;
use super::lane::{Answer, Connection, Lane};
use super::run::Run;
use super::{Command, News, Orders};
use crate::load::machine::{self, monotonic_ns, thread_cpu_ns};

/// The thread looks around so often at least, and says how far it is.
const LOOK_NS: u64 = 100_000_000;
/// The thread's niceness where it is not scheduled in real time.
const NICE: i32 = -15;

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
            let connection = Connection::Http(Box::new(connection));
            lanes.push(Lane::new(lanes.len() as u64, connection, http.batch));
        }
    }
    if let Some(events) = &orders.events {
        let all = lanes.len() + events.connections;
        for _ in 0..events.connections {
            let own: Vec<String> = orders
                .channels
                .iter()
                .skip(lanes.len())
                .step_by(all)
                .cloned()
                .collect();
            let connection =
                EventConnection::connect(events.address, &events.speech, &events.channels, &own)?;
            let connection = Connection::Events(connection);
            lanes.push(Lane::new(lanes.len() as u64, connection, 1));
        }
    }
    Ok(lanes)
}

/// Ahead of clients on the same core, where the rights allow. On a schedule the thread sleeps almost always and is to be on
/// time when it does not: real time, of the lowest rank (sched(7)). Publishing as much as is taken it would leave nothing
/// of the core to the clients, so it is then one among them, a little ahead.
fn go_first(is_paced: bool) -> io::Result<()> {
    let policy = match is_paced {
        true => ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
        false => ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other),
    };
    let ranked = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
    if is_paced && ranked.is_ok() {
        return Ok(());
    }
    match setpriority_process(Some(gettid()), NICE) {
        Ok(()) | Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
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
                    go_first(schedule.per_second.is_some())?;
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
        Err(Errno::INTR) => return Ok(()),
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
