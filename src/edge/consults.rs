//! Questions to hooks, and what their answers come to: decisions alone, in a time that is handed in.
//!
//! The questions of one hook are asked in the order in which they came, several at a time. One that
//! is not answered in time, counted from when it came, is answered as its hook has it for a failure.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::metrics::{Metric, Metrics};
use crate::hub::apps::Apps;
use crate::hub::hook::{Action, Consult, Verdict};
use crate::options::{HookOptions, Options};

/// A question that came.
#[derive(Debug)]
pub struct Asked {
    pub consult: Box<Consult>,
    /// The shard that waits for the answer.
    pub shard: u16,
    deadline_ms: u64,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Next {
    /// Ask the hook, at this place among the hooks of all apps.
    Ask {
        hook: usize,
        asked: Asked,
        body: Bytes,
        timeout_ms: u64,
    },
    Tell(Told),
}

/// What a shard is told.
#[derive(Debug)]
pub struct Told {
    pub shard: u16,
    pub verdict: Verdict,
}

pub struct Consults {
    hooks: Vec<Asking>,
    metrics: Metrics,
}

struct Asking {
    app: u16,
    app_id: String,
    timeout_ms: u64,
    connections_max: usize,
    under_way: usize,
    /// As many as shards may hold events.
    waiting: VecDeque<Asked>,
}

/// The hooks of all apps, with the numbers of their apps.
pub fn listed(options: &Options) -> impl Iterator<Item = (u16, &HookOptions)> + Clone {
    let apps = (0..).zip(&options.apps);
    apps.filter_map(|(number, app)| Some((number, app.before_publish.as_ref()?)))
}

impl Consults {
    pub fn new(options: &Options, metrics: Metrics) -> Consults {
        let hooks = listed(options).map(|(app, hook)| Asking {
            app,
            app_id: options.apps[usize::from(app)].id.clone(),
            timeout_ms: hook.timeout_ms,
            connections_max: hook.connections_max,
            under_way: 0,
            waiting: VecDeque::new(),
        });
        Consults {
            hooks: hooks.collect(),
            metrics,
        }
    }

    /// A question came.
    pub fn handle(&mut self, now_ms: u64, shard: u16, consult: Box<Consult>) {
        let hook = self.hooks.iter_mut().find(|hook| hook.app == consult.app);
        let hook = hook.expect("only apps with a hook are asked about");
        hook.waiting.push_back(Asked {
            consult,
            shard,
            deadline_ms: now_ms + hook.timeout_ms,
        });
    }

    pub fn next(&mut self, now_ms: u64, apps: &Apps) -> Option<Next> {
        for (place, hook) in self.hooks.iter_mut().enumerate() {
            let Some(first) = hook.waiting.front() else {
                continue;
            };
            let is_late = first.deadline_ms <= now_ms;
            if !is_late && hook.under_way >= hook.connections_max {
                continue;
            }
            let asked = hook.waiting.pop_front().expect("it was just seen");
            if is_late {
                self.metrics.add(Metric::ConsultsFailed, 1);
                return Some(Next::Tell(tell(apps, &asked, None)));
            }
            hook.under_way += 1;
            return Some(Next::Ask {
                hook: place,
                body: asked.consult.encode(&hook.app_id).into(),
                timeout_ms: asked.deadline_ms - now_ms,
                asked,
            });
        }
        None
    }

    /// A question was answered with success and this body, or was not.
    pub fn settle(&mut self, hook: usize, asked: &Asked, body: Option<&[u8]>, apps: &Apps) -> Told {
        self.hooks[hook].under_way -= 1;
        let limits = &apps.app(asked.consult.app).limits;
        let action = body.and_then(|body| asked.consult.read_answer(body, limits));
        let metric = match action {
            Some(_) => Metric::ConsultsAnswered,
            None => Metric::ConsultsFailed,
        };
        self.metrics.add(metric, 1);
        tell(apps, asked, action)
    }

    /// The next moment at which there is something to do, if nothing else happens.
    pub fn next_ms(&self) -> Option<u64> {
        let firsts = self.hooks.iter().filter_map(|hook| hook.waiting.front());
        firsts.map(|asked| asked.deadline_ms).min()
    }
}

fn tell(apps: &Apps, asked: &Asked, action: Option<Action>) -> Told {
    let hook = apps.app(asked.consult.app).hook.as_ref();
    let hook = hook.expect("only apps with a hook are asked about");
    Told {
        shard: asked.shard,
        verdict: Verdict {
            ticket: asked.consult.ticket,
            action: action.unwrap_or_else(|| hook.without_answer()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::letter::Origin;
    use crate::options::{AppOptions, OnFailure};

    fn consults(on_failure: OnFailure) -> (Consults, Apps) {
        let hook = HookOptions {
            timeout_ms: 100,
            connections_max: 2,
            on_failure,
            ..HookOptions::default()
        };
        let app = AppOptions {
            before_publish: Some(hook),
            ..AppOptions::default()
        };
        let options = Options {
            apps: vec![app],
            ..Options::default()
        };
        (
            Consults::new(&options, Metrics::default()),
            Apps::new(&options),
        )
    }

    fn ask(consults: &mut Consults, now_ms: u64, ticket: u64) {
        let consult = Consult {
            ticket,
            app: 0,
            origin: Origin::Api,
            channel: "a".into(),
            event: "\"b\"".into(),
            data: "".into(),
            socket_id: None,
        };
        consults.handle(now_ms, 3, Box::new(consult));
    }

    fn asked(next: Option<Next>) -> (Asked, u64) {
        match next {
            Some(Next::Ask {
                asked, timeout_ms, ..
            }) => (asked, timeout_ms),
            other => panic!("nobody is asked: {other:?}"),
        }
    }

    fn read(told: Told) -> (u64, Action) {
        assert_eq!(told.shard, 3);
        (told.verdict.ticket, told.verdict.action)
    }

    #[test]
    fn questions_are_asked_in_order_and_no_more_than_may_be_at_a_time() {
        let (mut consults, apps) = consults(OnFailure::Publish);
        for ticket in [1, 2, 3] {
            ask(&mut consults, ticket, ticket);
        }
        let (first, timeout_ms) = asked(consults.next(11, &apps));
        assert_eq!((first.consult.ticket, timeout_ms), (1, 90));
        assert_eq!(asked(consults.next(11, &apps)).0.consult.ticket, 2);
        assert!(consults.next(11, &apps).is_none());
        let body: &[u8] = br#"{"action":"drop"}"#;
        let told = consults.settle(0, &first, Some(body), &apps);
        assert_eq!(read(told), (1, Action::Drop));
        assert_eq!(asked(consults.next(11, &apps)).0.consult.ticket, 3);
    }

    #[test]
    fn what_is_not_answered_in_time_or_not_at_all_is_a_failure() {
        for (on_failure, action) in [
            (OnFailure::Publish, Action::Publish),
            (OnFailure::Refuse, Action::Refuse),
        ] {
            let (mut consults, apps) = consults(on_failure);
            for ticket in [1, 2, 3] {
                ask(&mut consults, 0, ticket);
            }
            let (first, _) = asked(consults.next(0, &apps));
            let (second, _) = asked(consults.next(0, &apps));
            assert_eq!(consults.next_ms(), Some(100));
            let Some(Next::Tell(late)) = consults.next(100, &apps) else {
                panic!("the third waited too long");
            };
            assert_eq!(read(late), (3, action.clone()));
            assert_eq!(
                read(consults.settle(0, &first, None, &apps)),
                (1, action.clone())
            );
            let nonsense = consults.settle(0, &second, Some(b"<html>"), &apps);
            assert_eq!(read(nonsense), (2, action));
            assert_eq!(consults.metrics.read(Metric::ConsultsFailed), 3);
        }
    }
}
