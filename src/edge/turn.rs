//! The edge's turn: notices and questions in, requests out, answers in.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use super::consults::{Asked, Consults, Next, Told};
use super::journal::desk::{Desk, Outcome};
use super::journal::ledger::Keep;
use super::returns::News;
use super::target::{Answer, Connection, Failure, Posted, Target, Targets};
use super::webhooks::{Delivery, Webhooks};
use crate::base::lane::{Receiver, Sender};
use crate::base::limits;
use crate::base::metrics::{Metric, Metrics};
use crate::base::waker::Waker;
use crate::hub::apps::Apps;
use crate::hub::notice::{FromEdge, ToEdge};

/// What decides what is to be done.
pub struct Deciders {
    pub webhooks: Webhooks,
    pub consults: Consults,
    pub journal: Option<Desk>,
}

pub struct Turn {
    webhooks: Webhooks,
    consults: Consults,
    journal: Option<Desk>,
    /// One for each webhook, and for each hook.
    webhook_targets: Vec<Reached>,
    hook_targets: Vec<Reached>,
    webhook_timeout_ms: u64,
    /// What is under way: as many requests as the webhooks and hooks together may have, and one task
    /// of the journal.
    tasks: JoinSet<Done>,
    finished: VecDeque<Result<Done, JoinError>>,
    lanes: Vec<Receiver<ToEdge>>,
    homes: Homes,
    apps: Arc<Apps>,
    start: Instant,
}

/// A target and the connections to it that carry nothing now: with those under way as many as
/// it may have requests at a time.
struct Reached {
    target: Rc<Target>,
    idle: Vec<Connection>,
    /// Its last request failed.
    is_failing: bool,
}

impl Reached {
    fn new(target: Target) -> Reached {
        Reached {
            target: Rc::new(target),
            idle: Vec::new(),
            is_failing: false,
        }
    }

    /// The body of an answer with success. What changes is told, and not every failure.
    fn success(&mut self, answer: Result<Answer, Failure>) -> Option<bytes::Bytes> {
        let was_failing = self.is_failing;
        let why = match answer {
            Ok(Answer { status, body }) if is_success(status) => {
                self.is_failing = false;
                if was_failing {
                    info!("{} takes requests again", self.target);
                }
                return Some(body);
            }
            Ok(Answer { status, body }) => {
                let words = String::from_utf8_lossy(&body[..body.len().min(200)]);
                format!("answered {status}: {words}")
            }
            Err(failure) => failure.to_string(),
        };
        self.is_failing = true;
        match was_failing {
            true => debug!("{} fails: {why}", self.target),
            false => warn!("{} fails: {why}", self.target),
        }
        None
    }
}

/// A task that has ended.
enum Done {
    Request { purpose: Purpose, posted: Posted },
    Journal(Outcome),
}

enum Purpose {
    Webhook { webhook: usize, id: u64 },
    Hook { hook: usize, asked: Asked },
}

/// The way back to the shards whose channels wait for hooks or the disk.
pub struct Homes {
    shards: Vec<(Sender<FromEdge>, Waker)>,
}

impl Homes {
    pub fn new(words: Vec<Sender<FromEdge>>, wakers: Vec<Waker>) -> Homes {
        Homes {
            shards: words.into_iter().zip(wakers).collect(),
        }
    }

    fn give(&mut self, told: Told) {
        let Told { shard, verdict } = told;
        self.tell(shard, FromEdge::Verdict(verdict));
    }

    fn tell(&mut self, shard: u16, word: FromEdge) {
        let (sender, waker) = &mut self.shards[usize::from(shard)];
        let pushed = sender.push(word);
        assert!(pushed.is_ok(), "a shard asks no more than its lane holds");
        waker.wake();
    }
}

impl Turn {
    pub fn new(
        deciders: Deciders,
        targets: Targets,
        lanes: Vec<Receiver<ToEdge>>,
        homes: Homes,
        apps: Arc<Apps>,
    ) -> Turn {
        let reached = |targets: Vec<Target>| targets.into_iter().map(Reached::new).collect();
        let Deciders {
            webhooks,
            consults,
            journal,
        } = deciders;
        Turn {
            webhooks,
            consults,
            journal,
            webhook_targets: reached(targets.webhooks),
            hook_targets: reached(targets.hooks),
            webhook_timeout_ms: targets.webhook_timeout_ms,
            tasks: JoinSet::new(),
            finished: VecDeque::new(),
            lanes,
            homes,
            apps,
            start: Instant::now(),
        }
    }

    /// The server ends: whatever waits only for a better moment goes now.
    pub fn end_waits(&mut self) {
        self.webhooks.end_waits();
    }

    pub fn read_lanes(&mut self) {
        let now_ms = self.now_ms();
        let time_ms = time_ms();
        for (shard, lane) in (0..).zip(&mut self.lanes) {
            for _ in 0..limits::EDGE_LETTERS_PER_TURN {
                match lane.pop() {
                    Some(ToEdge::Notice(notice)) => {
                        let news = News {
                            notice: *notice,
                            time_ms,
                        };
                        self.webhooks.handle(now_ms, news);
                    }
                    Some(ToEdge::Consult(consult)) => self.consults.handle(now_ms, shard, consult),
                    Some(ToEdge::Append(append)) => {
                        let journal = self.journal.as_mut();
                        let journal = journal.expect("durable channels have a journal");
                        let app_id = &self.apps.app(append.app).id;
                        journal.append(shard, &append, app_id, time_ms, now_ms);
                    }
                    None => break,
                }
            }
        }
    }

    /// Tells the homes what is written, and starts what is to be done for the journal next.
    pub fn write_journal(&mut self) {
        let now_ms = self.now_ms();
        let Some(journal) = self.journal.as_mut() else {
            return;
        };
        while let Some(told) = journal.next_told() {
            self.homes.tell(told.shard, FromEdge::Written(told.written));
        }
        let apps = &self.apps;
        let keep = |app_id: &str, channel: &str| {
            let app = apps.with_id(app_id).map(|app| apps.app(app));
            let retention = app.and_then(|app| app.retention_of(channel));
            retention.map_or(Keep::NOTHING, |retention| Keep {
                messages: retention.messages_max,
                bytes: retention.bytes_max as u64,
                age_ms: u64::from(retention.age_s) * 1000,
                keys: retention.window.keys_max as u64,
                key_age_ms: u64::from(retention.window.age_s) * 1000,
            })
        };
        if let Some(task) = journal.next_task(now_ms, time_ms(), keep) {
            self.tasks
                .spawn_local(async move { Done::Journal(task.run().await) });
        }
    }

    /// The shards have ended: when everything is written, the journal says that it is whole.
    pub fn end_journal(&mut self) {
        if self.is_quiet()
            && let Some(journal) = self.journal.as_mut()
        {
            journal.end();
        }
    }

    pub fn start_deliveries(&mut self) {
        let now_ms = self.now_ms();
        while let Some(Delivery { webhook, id, body }) = self.webhooks.next_delivery(now_ms) {
            let reached = &mut self.webhook_targets[webhook];
            let (target, connection) = (reached.target.clone(), reached.idle.pop());
            let timeout_ms = self.webhook_timeout_ms;
            self.tasks.spawn_local(async move {
                let posted = target.post(connection, body, timeout_ms).await;
                let purpose = Purpose::Webhook { webhook, id };
                Done::Request { purpose, posted }
            });
        }
    }

    pub fn ask_hooks(&mut self) {
        let now_ms = self.now_ms();
        while let Some(next) = self.consults.next(now_ms, &self.apps) {
            match next {
                Next::Tell(told) => self.homes.give(told),
                Next::Ask {
                    hook,
                    asked,
                    body,
                    timeout_ms,
                } => {
                    let reached = &mut self.hook_targets[hook];
                    let (target, connection) = (reached.target.clone(), reached.idle.pop());
                    self.tasks.spawn_local(async move {
                        let posted = target.post(connection, body, timeout_ms).await;
                        let purpose = Purpose::Hook { hook, asked };
                        Done::Request { purpose, posted }
                    });
                }
            }
        }
    }

    /// Whether nothing waits to be read.
    pub fn is_quiet(&mut self) -> bool {
        self.lanes.iter_mut().all(Receiver::is_empty)
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_done(&mut self) -> bool {
        self.webhooks.length() == 0
            && self.tasks.is_empty()
            && self.journal.as_ref().is_none_or(Desk::is_idle)
            && self.is_quiet()
    }

    /// Until a request has ended, or something is due.
    pub async fn sleep(&mut self) {
        let next_ms = self.webhooks.next_ms().into_iter();
        let next_ms = next_ms.chain(self.consults.next_ms());
        let journal_ms = self.journal.as_ref().and_then(Desk::next_ms);
        let next_ms = next_ms.chain(journal_ms).min();
        let wait_ms = next_ms.map(|next_ms| next_ms.saturating_sub(self.now_ms()));
        // With nothing due there is no moment to wait for; a day is as good as any.
        let wait = Duration::from_millis(wait_ms.unwrap_or(86_400_000));
        tokio::select! {
            Some(done) = self.tasks.join_next() => self.finished.push_back(done),
            () = tokio::time::sleep(wait) => {}
        }
    }

    /// Reads the answers that came.
    pub fn settle_finished(&mut self) {
        let mut finished = std::mem::take(&mut self.finished);
        while let Some(done) = finished.pop_front().or_else(|| self.tasks.try_join_next()) {
            let (purpose, posted) = match done {
                Ok(Done::Request { purpose, posted }) => (purpose, posted),
                Ok(Done::Journal(outcome)) => {
                    let now_ms = self.now_ms();
                    let journal = self.journal.as_mut().expect("it gave the task");
                    journal.settle(outcome, now_ms);
                    continue;
                }
                Err(error) => panic!("a task neither panics nor is cancelled: {error}"),
            };
            match purpose {
                Purpose::Webhook { webhook, id } => self.settle_webhook(webhook, id, posted),
                Purpose::Hook { hook, asked } => self.settle_hook(hook, &asked, posted),
            }
        }
        self.finished = finished;
    }

    /// The server waits no longer: what was not delivered is lost, and counted.
    pub fn give_up(&mut self, metrics: &Metrics) {
        let left = self.webhooks.length();
        if left > 0 {
            warn!("{left} events were not delivered to their webhooks");
            metrics.add(Metric::WebhookEventsDropped, left as u64);
            metrics.set(Metric::WebhookEventsQueued, 0);
        }
    }

    fn settle_webhook(&mut self, webhook: usize, id: u64, posted: Posted) {
        let reached = &mut self.webhook_targets[webhook];
        reached.idle.extend(posted.connection);
        let is_delivered = match posted.answer {
            // It was received and accepted; only the rest of the answer is of no use.
            Err(Failure::Body { status, .. }) if is_success(status) => true,
            answer => reached.success(answer).is_some(),
        };
        let now_ms = self.now_ms();
        self.webhooks.settle(now_ms, webhook, id, is_delivered);
    }

    fn settle_hook(&mut self, hook: usize, asked: &Asked, posted: Posted) {
        let reached = &mut self.hook_targets[hook];
        reached.idle.extend(posted.connection);
        let body = reached.success(posted.answer);
        let told = self
            .consults
            .settle(hook, asked, body.as_deref(), &self.apps);
        self.homes.give(told);
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// Milliseconds since 1970.
fn time_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}
