//! tokio-uring: a task per socket, told through a watch channel where the log's head is.

use std::io;
use std::net::TcpListener;

use tokio::sync::watch;
use tokio_uring::net::TcpStream;

use super::log::Log;
use super::tokio_tasks::move_head;
use super::{Tally, accepted, next_run};

pub fn serve(listener: &TcpListener, sockets: usize) -> io::Result<()> {
    tokio_uring::start(async {
        let mut streams = Vec::with_capacity(sockets);
        for stream in listener.incoming().take(sockets) {
            streams.push(TcpStream::from_std(stream?));
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
    let mut tasks = Vec::with_capacity(streams.len());
    for stream in streams {
        tasks.push(tokio_uring::spawn(follow(*log, stream, head.subscribe())));
    }
    move_head(log, &head).await;
    let mut returned = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (stream, visits) = task.await.map_err(io::Error::other)??;
        tally.visits += visits;
        returned.push(stream);
    }
    Ok((tally, returned))
}

/// Sends all from the cursor to the head, whenever the head has moved.
async fn follow(
    log: Log,
    stream: TcpStream,
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
        let (outcome, _) = stream.write_all(&log.bytes[cursor..until]).await;
        outcome?;
        cursor = until;
        visits += 1;
    }
    Ok((stream, visits))
}
