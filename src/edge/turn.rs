//! The edge's turn: notices in, requests out, answers in.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use super::returns::News;
use super::target::{Answer, Connection, Failure, Posted, Target};
use super::webhooks::{Delivery, Webhooks};
use crate::base::lane::Receiver;
use crate::base::limits;
use crate::base::metrics::{Metric, Metrics};
use crate::hub::notice::ToEdge;
use crate::options::Options;

pub struct Turn {
    webhooks: Webhooks,
    /// One for each webhook.
    targets: Vec<Reached>,
    /// Requests under way: as many as the webhooks together may have.
    tasks: JoinSet<Done>,
    finished: VecDeque<Result<Done, JoinError>>,
    lanes: Vec<Receiver<ToEdge>>,
    metrics: Metrics,
    start: Instant,
}

/// A target and the connections to it that carry nothing now: with those under way as many as
/// the webhook may have requests.
struct Reached {
    target: Rc<Target>,
    idle: Vec<Connection>,
}

/// A request that has ended.
struct Done {
    webhook: usize,
    id: u64,
    posted: Posted,
}

impl Turn {
    pub fn new(
        options: &Options,
        seed: u64,
        metrics: &Metrics,
        targets: Vec<Target>,
        lanes: Vec<Receiver<ToEdge>>,
    ) -> Turn {
        let reached = |target| Reached {
            target: Rc::new(target),
            idle: Vec::new(),
        };
        Turn {
            webhooks: Webhooks::new(options, seed, metrics.clone()),
            targets: targets.into_iter().map(reached).collect(),
            tasks: JoinSet::new(),
            finished: VecDeque::new(),
            lanes,
            metrics: metrics.clone(),
            start: Instant::now(),
        }
    }

    /// The server ends: whatever waits only for a better moment goes now.
    pub fn end_waits(&mut self) {
        self.webhooks.end_waits();
    }

    pub fn read_lanes(&mut self) {
        let now_ms = self.now_ms();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let time_ms = since.map_or(0, |since| since.as_millis() as u64);
        for lane in &mut self.lanes {
            for _ in 0..limits::EDGE_LETTERS_PER_TURN {
                match lane.pop() {
                    Some(ToEdge::Notice(notice)) => {
                        let news = News {
                            notice: *notice,
                            time_ms,
                        };
                        self.webhooks.handle(now_ms, news);
                    }
                    None => break,
                }
            }
        }
    }

    pub fn start_deliveries(&mut self) {
        let now_ms = self.now_ms();
        while let Some(Delivery { webhook, id, body }) = self.webhooks.next_delivery(now_ms) {
            let Reached { target, idle } = &mut self.targets[webhook];
            let (target, connection) = (target.clone(), idle.pop());
            self.tasks.spawn_local(async move {
                let posted = target.post(connection, body).await;
                Done {
                    webhook,
                    id,
                    posted,
                }
            });
        }
    }

    /// Whether no notice waits to be read.
    pub fn is_quiet(&mut self) -> bool {
        self.lanes.iter_mut().all(Receiver::is_empty)
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_done(&mut self) -> bool {
        self.webhooks.length() == 0 && self.tasks.is_empty() && self.is_quiet()
    }

    /// Until a request has ended, or something is due.
    pub async fn sleep(&mut self) {
        let wait_ms = self
            .webhooks
            .next_ms()
            .map(|next_ms| next_ms.saturating_sub(self.now_ms()));
        // With nothing due there is no moment to wait for; a day is as good as any.
        let wait = Duration::from_millis(wait_ms.unwrap_or(86_400_000));
        tokio::select! {
            Some(done) = self.tasks.join_next() => self.finished.push_back(done),
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// Reads the answers that came.
    pub fn settle_finished(&mut self) {
        while let Some(done) = self
            .finished
            .pop_front()
            .or_else(|| self.tasks.try_join_next())
        {
            match done {
                Ok(done) => self.settle(done),
                Err(error) => panic!("a request neither panics nor is cancelled: {error}"),
            }
        }
    }

    /// The server waits no longer: what was not delivered is lost, and counted.
    pub fn give_up(&mut self) {
        let left = self.webhooks.length();
        if left > 0 {
            warn!("{left} events were not delivered to their webhooks");
            self.metrics.add(Metric::WebhookEventsDropped, left as u64);
            self.metrics.set(Metric::WebhookEventsQueued, 0);
        }
    }

    fn settle(&mut self, done: Done) {
        let Done {
            webhook,
            id,
            posted,
        } = done;
        let Reached { target, idle } = &mut self.targets[webhook];
        idle.extend(posted.connection);
        let is_delivered = match posted.answer {
            Ok(Answer { status, .. }) if (200..300).contains(&status) => true,
            Ok(Answer { status, body }) => {
                let words = String::from_utf8_lossy(&body[..body.len().min(200)]);
                debug!("{target} answered {status}: {words}");
                false
            }
            // It was received and accepted; only the rest of the answer is of no use.
            Err(Failure::Body { status, error }) if (200..300).contains(&status) => {
                debug!("{target} answered {status}, and then {error}");
                true
            }
            Err(failure) => {
                debug!("{target}: {failure}");
                false
            }
        };
        let now_ms = self.now_ms();
        self.webhooks.settle(now_ms, webhook, id, is_delivered);
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
