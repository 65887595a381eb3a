//! tokio's current-thread runtime: a task per socket, told through a watch channel where the
//! log's head is. The straightforward way to write it.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::log::Log;
use super::{Tally, accepted, next_run};
use outpour::load::machine::monotonic_ns;

pub fn serve(listener: &TcpListener, sockets: usize) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut streams = Vec::with_capacity(sockets);
        for stream in listener.incoming().take(sockets) {
            let stream = stream?;
            stream.set_nonblocking(true)?;
            streams.push(TcpStream::from_std(stream)?);
        }
        accepted()?;
        while let Some(run) = next_run()? {
            let before = run.begin();
            let (tally, returned) = send(&run.log, streams).await?;
            streams = returned;
            run.end(before, tally)?;
        }
        Ok(())
    })
}

async fn send(log: &Log, streams: Vec<TcpStream>) -> io::Result<(Tally, Vec<TcpStream>)> {
    let mut tally = Tally {
        deliveries: log.messages * streams.len() as u64,
        ..Tally::default()
    };
    let (head, _) = watch::channel(0);
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(follow(*log, stream, head.subscribe()));
    }
    move_head(log, &head).await;
    let mut returned = Vec::with_capacity(tasks.len());
    for outcome in tasks.join_all().await {
        let (stream, visits) = outcome?;
        tally.visits += visits;
        returned.push(stream);
    }
    Ok((tally, returned))
}

/// Sends all from the cursor to the head, whenever the head has moved.
async fn follow(
    log: Log,
    mut stream: TcpStream,
    mut head: watch::Receiver<usize>,
) -> io::Result<(TcpStream, u64)> {
    let mut cursor = 0;
    let mut visits = 0;
    while cursor < log.bytes.len() {
        let reached = *head.borrow_and_update();
        if reached == cursor {
            head.changed().await.map_err(io::Error::other)?;
            continue;
        }
        let until = log.visit_end(cursor, reached);
        stream.write_all(&log.bytes[cursor..until]).await?;
        cursor = until;
        visits += 1;
    }
    Ok((stream, visits))
}

/// Moves the head as messages arrive, until all have.
pub async fn move_head(log: &Log, head: &watch::Sender<usize>) {
    loop {
        let now_ns = monotonic_ns();
        let reached = log.head(now_ns);
        head.send_replace(reached);
        if reached == log.bytes.len() {
            return;
        }
        let wait_ns = log.due_ns(reached).saturating_sub(now_ns);
        tokio::time::sleep(Duration::from_nanos(wait_ns)).await;
    }
}
