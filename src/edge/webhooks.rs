//! What goes to which webhook, and when: decisions alone, in a time that is handed in.

use std::rc::Rc;

use bytes::Bytes;

use super::backoff::Backoff;
use super::queue::{Event, Limits, Queue, Settled};
use super::returns::{News, Returns, Told};
use crate::base::metrics::{Metric, Metrics};
use crate::hub::notice::Filter;
use crate::options::{Options, WebhookOptions};

/// A request that is to be made.
#[derive(Debug)]
pub struct Delivery {
    /// Its place among the webhooks of all apps, in their order.
    pub webhook: usize,
    pub id: u64,
    pub body: Bytes,
}

pub struct Webhooks {
    returns: Returns,
    webhooks: Vec<Webhook>,
    metrics: Metrics,
}

struct Webhook {
    app: u16,
    filter: Filter,
    queue: Queue,
}

/// The webhooks of all apps, with the numbers of their apps.
pub fn listed(options: &Options) -> impl Iterator<Item = (u16, &WebhookOptions)> + Clone {
    let apps = (0..).zip(&options.apps);
    apps.flat_map(|(number, app)| app.webhooks.iter().map(move |webhook| (number, webhook)))
}

impl Webhooks {
    pub fn new(options: &Options, seed: u64, metrics: Metrics) -> Webhooks {
        let webhook = |(place, (app, webhook)): (u64, (u16, &WebhookOptions))| Webhook {
            app,
            filter: Filter::new(webhook),
            queue: Queue::new(
                Limits {
                    events_max: options.webhook_queue_events_max,
                    bytes_max: options.webhook_queue_bytes_max,
                    requests_max: options.webhook_connections_max,
                    request_events_max: webhook.request_events_max,
                    batch_ms: match webhook.request_events_max {
                        1 => 0,
                        _ => webhook.batch_ms,
                    },
                    retry_ms_max: options.webhook_retry_ms_max,
                },
                Backoff::new(options.webhook_backoff_ms, seed ^ place),
            ),
        };
        Webhooks {
            returns: Returns::new(options.webhook_return_ms),
            webhooks: (0..).zip(listed(options)).map(webhook).collect(),
            metrics,
        }
    }

    /// Something happened.
    pub fn handle(&mut self, now_ms: u64, news: News) {
        match self.returns.handle(now_ms, news) {
            Told::Now(news) => self.tell(now_ms, &news),
            Told::Waits => {}
            Told::Cancelled => self.metrics.add(Metric::WebhookEventsCancelled, 2),
        }
    }

    /// The next request that is to be made now.
    pub fn next_delivery(&mut self, now_ms: u64) -> Option<Delivery> {
        while let Some(news) = self.returns.next_due(now_ms) {
            self.tell(now_ms, &news);
        }
        for (place, webhook) in self.webhooks.iter_mut().enumerate() {
            if let Some(request) = webhook.queue.next_request(now_ms) {
                self.metrics
                    .add(Metric::WebhooksRetried, request.is_retry.into());
                return Some(Delivery {
                    webhook: place,
                    id: request.id,
                    body: request.body,
                });
            }
        }
        None
    }

    /// What became of a request.
    pub fn settle(&mut self, now_ms: u64, webhook: usize, id: u64, is_delivered: bool) {
        let metric = match is_delivered {
            true => Metric::WebhooksSent,
            false => Metric::WebhooksFailed,
        };
        self.metrics.add(metric, 1);
        let (metric, events) = match self.webhooks[webhook]
            .queue
            .settle(now_ms, id, is_delivered)
        {
            Settled::Kept => return,
            Settled::Delivered { events } => (Metric::WebhookEventsDelivered, events),
            Settled::GivenUp { events } => (Metric::WebhookEventsDropped, events),
        };
        self.metrics.add(metric, events as u64);
        self.metrics
            .subtract(Metric::WebhookEventsQueued, events as u64);
    }

    /// The server ends: nothing waits for anything but a webhook that failed.
    pub fn end_waits(&mut self) {
        self.returns.end_waits();
        for webhook in &mut self.webhooks {
            webhook.queue.end_waits();
        }
    }

    /// The next moment at which there is something to do, if nothing else happens.
    pub fn next_ms(&self) -> Option<u64> {
        let requests = self
            .webhooks
            .iter()
            .filter_map(|webhook| webhook.queue.next_ms());
        requests.chain(self.returns.next_ms()).min()
    }

    /// Events that were not delivered yet.
    pub fn length(&self) -> usize {
        let queued = self.webhooks.iter().map(|webhook| webhook.queue.length());
        queued.sum::<usize>() + self.returns.length()
    }

    fn tell(&mut self, now_ms: u64, news: &News) {
        let (notice, mut event) = (&news.notice, None);
        let kind = notice.kind.event_type();
        for webhook in &mut self.webhooks {
            if webhook.app != notice.app || !webhook.filter.takes(kind, &notice.channel) {
                continue;
            }
            let event = event.get_or_insert_with(|| Event {
                channel: Rc::from(&*notice.channel),
                time_ms: news.time_ms,
                json: notice.encode().into(),
            });
            let metric = match webhook.queue.push(now_ms, event.clone()) {
                true => Metric::WebhookEventsQueued,
                false => Metric::WebhookEventsDropped,
            };
            self.metrics.add(metric, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::notice::{Kind, Notice};
    use crate::options::{AppOptions, EventType, EventTypes};

    fn webhook(kinds: &[EventType]) -> WebhookOptions {
        let mut events = EventTypes::default();
        for kind in kinds {
            events.insert(*kind);
        }
        WebhookOptions {
            events,
            ..WebhookOptions::default()
        }
    }

    fn webhooks(of_apps: Vec<Vec<WebhookOptions>>) -> (Webhooks, Metrics) {
        let app = |webhooks| AppOptions {
            webhooks,
            ..AppOptions::default()
        };
        let options = Options {
            apps: of_apps.into_iter().map(app).collect(),
            ..Options::default()
        };
        let metrics = Metrics::default();
        (Webhooks::new(&options, 1, metrics.clone()), metrics)
    }

    fn news(app: u16, kind: Kind<&str>) -> News {
        News {
            notice: Notice {
                app,
                channel: "a".into(),
                kind: kind.into_owned(),
            },
            time_ms: 5,
        }
    }

    #[test]
    fn each_webhook_gets_what_it_wants_of_its_own_app() {
        use EventType::{CacheMiss, ChannelOccupied, SubscriptionCount};
        let (mut webhooks, metrics) = webhooks(vec![
            vec![
                webhook(&[CacheMiss]),
                webhook(&[CacheMiss, ChannelOccupied]),
            ],
            vec![webhook(&[SubscriptionCount])],
        ]);
        webhooks.handle(0, news(0, Kind::CacheMiss));
        webhooks.handle(0, news(1, Kind::CacheMiss));
        let mut told = Vec::new();
        while let Some(delivery) = webhooks.next_delivery(0) {
            told.push((delivery.webhook, delivery.id));
            assert_eq!(
                delivery.body,
                r#"{"time_ms":5,"events":[{"name":"cache_miss","channel":"a"}]}"#
            );
        }
        assert_eq!(told, [(0, 0), (1, 0)]);
        assert_eq!(metrics.read(Metric::WebhookEventsQueued), 2);
        webhooks.settle(0, 0, 0, true);
        webhooks.settle(0, 1, 0, false);
        assert_eq!(metrics.read(Metric::WebhookEventsQueued), 1);
        assert_eq!(metrics.read(Metric::WebhookEventsDelivered), 1);
        assert_eq!(metrics.read(Metric::WebhooksFailed), 1);
        let again_ms = webhooks.next_ms().expect("the second tries again");
        assert_eq!(
            webhooks
                .next_delivery(again_ms)
                .map(|delivery| delivery.webhook),
            Some(1)
        );
        assert_eq!(metrics.read(Metric::WebhooksRetried), 1);
    }

    #[test]
    fn a_channel_that_is_empty_for_a_moment_is_not_told_of() {
        let (mut webhooks, metrics) = webhooks(vec![vec![webhook(&EventType::ALL)]]);
        webhooks.handle(0, news(0, Kind::ChannelVacated));
        webhooks.handle(100, news(0, Kind::ChannelOccupied));
        assert!(webhooks.next_delivery(10_000).is_none());
        assert_eq!(metrics.read(Metric::WebhookEventsCancelled), 2);
        webhooks.handle(10_000, news(0, Kind::ChannelVacated));
        assert_eq!((webhooks.next_ms(), webhooks.length()), (Some(13_000), 1));
        webhooks.end_waits();
        assert!(webhooks.next_delivery(10_000).is_some());
    }
}
