//! The process: commands come in on its standard input, go to every crew, and come back as one answer.

use std::collections::BTreeMap;
use std::io;
use std::process;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::load::companion::{answer, next_command};
use crate::load::machine;
use crate::load::orders::{Answer, CLIENTS_PER_RING, Command, Orders};
use crate::ring::kernel::Waker;

use super::crew::Crew;

/// Files that a process has open besides the slots of a ring.
const FILES_BESIDES: u64 = 64;

/// A command, or the orders before all commands, by number.
pub type Numbered<T> = (u64, T);

/// What one crew is told, and by which waker it hears of it.
struct Line {
    commands: Sender<Numbered<Command>>,
    waker: Waker,
}

/// Runs the process until the program that started it is gone.
pub fn serve() -> io::Result<()> {
    let Some(orders) = next_command::<Orders>()? else {
        return Ok(());
    };
    let files = machine::lift_open_files();
    let per_ring = files
        .saturating_sub(FILES_BESIDES)
        .min(CLIENTS_PER_RING as u64);
    let crews = crews(&orders, per_ring.max(1) as usize);
    let (answers, answered) = mpsc::channel();
    let mut lines = Vec::with_capacity(crews);
    for index in 0..crews {
        lines.push(start(&orders, index, crews, &answers)?);
    }
    // Each crew has said that it is ready: the answer to the orders.
    answer(&Answer::Settled(Default::default()))?;
    thread::Builder::new()
        .name("answers".to_owned())
        .spawn(move || collect(&answered, crews))?;
    let mut number = 0;
    while let Some(command) = next_command::<Command>()? {
        number += 1;
        for line in &lines {
            if line.commands.send((number, command)).is_ok() {
                line.waker.wake();
            }
        }
    }
    process::exit(0);
}

/// A thread for each core, and more where one ring cannot hold its share.
fn crews(orders: &Orders, per_ring: usize) -> usize {
    let cores = orders.cores.len().max(1);
    let least = orders.clients_max.div_ceil(per_ring);
    least.div_ceil(cores).max(1) * cores
}

/// Starts a crew and waits until it has its ring.
fn start(
    orders: &Orders,
    index: usize,
    crews: usize,
    answers: &Sender<Numbered<Answer>>,
) -> io::Result<Line> {
    let orders = orders.clone();
    let answers = answers.clone();
    let (commands, told) = mpsc::channel();
    let (ready, made) = mpsc::channel();
    thread::Builder::new()
        .name(format!("clients {index}"))
        .spawn(move || {
            let mut crew = match Crew::new(orders, index, crews) {
                Ok(crew) => crew,
                Err(error) => {
                    ready.send(Err(error)).expect("it is waited for");
                    return;
                }
            };
            ready.send(Ok(crew.waker())).expect("it is waited for");
            crew.work(&told, &answers);
        })?;
    let gone = |_| io::Error::other("a thread ended before it began");
    let made: io::Result<Waker> = made.recv().map_err(gone)?;
    match made {
        Ok(waker) => Ok(Line { commands, waker }),
        Err(error) => {
            answer(&Answer::Failed(error.to_string()))?;
            Err(error)
        }
    }
}

/// Joins the answers to each command, and says the whole when the last one is there.
fn collect(answered: &Receiver<Numbered<Answer>>, crews: usize) {
    let mut waiting: BTreeMap<u64, (usize, Answer)> = BTreeMap::new();
    while let Ok((number, part)) = answered.recv() {
        let (parts, whole) = match waiting.remove(&number) {
            Some((parts, whole)) => (parts + 1, join(whole, part)),
            None => (1, part),
        };
        let has_failed = matches!(whole, Answer::Failed(_));
        if parts < crews && !has_failed {
            waiting.insert(number, (parts, whole));
            continue;
        }
        // Without anybody who listens, or after a failure, there is nothing left to do.
        if answer(&whole).is_err() || has_failed {
            process::exit(i32::from(has_failed));
        }
    }
}

fn join(whole: Answer, part: Answer) -> Answer {
    match (whole, part) {
        (Answer::Settled(mut whole), Answer::Settled(part)) => {
            whole.add(&part);
            Answer::Settled(whole)
        }
        (Answer::Glance(mut whole), Answer::Glance(part)) => {
            whole.add(&part);
            Answer::Glance(whole)
        }
        (Answer::Count(mut whole), Answer::Count(part)) => {
            whole.add(&part);
            Answer::Count(whole)
        }
        (Answer::Failed(why), _) | (_, Answer::Failed(why)) => Answer::Failed(why),
        (Answer::Settled(_) | Answer::Glance(_) | Answer::Count(_), _) => {
            unreachable!("crews answer a command alike")
        }
    }
}
