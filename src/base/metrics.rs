//! Counters and gauges of one thread, written by it alone and read by whoever asks.
//!
//! An update is a plain load and store of a cache line that no other thread writes: no locked
//! instruction on the hot path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::utils::CachePadded;

use super::lag::LagCells;

macro_rules! metrics {
    (
        shards { $($(#[doc = $help:literal])+ $name:ident $kind:ident $text:literal,)+ }
        edge { $($(#[doc = $edge_help:literal])+ $edge_name:ident $edge_kind:ident $edge_text:literal,)+ }
    ) => {
        /// What is counted: by each shard, or by the edge.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Metric {
            $($(#[doc = $help])+ $name,)+
            $($(#[doc = $edge_help])+ $edge_name,)+
        }

        /// Name in the text exposition, type and help, in the order of [`Metric`].
        const METRICS: &[(&str, &str, &str)] = &[
            $(($text, stringify!($kind), concat!($($help),+)),)+
            $(($edge_text, stringify!($edge_kind), concat!($($edge_help),+)),)+
        ];

        /// How many of them are the shards'; the edge's stand behind them.
        const OF_SHARDS: usize = [$(Metric::$name),+].len();
    };
}

metrics! {
shards {
    /// Connections that are open.
    Connections gauge "outpour_connections",
    /// Connections accepted.
    Accepted counter "outpour_accepted_total",
    /// Accepts that the system refused.
    AcceptsFailed counter "outpour_accepts_failed_total",
    /// WebSocket connections refused because the shard holds as many as it may.
    ConnectionsRefused counter "outpour_connections_refused_total",
    /// Times the listener paused because every slot of the file table was taken.
    ListenerPauses counter "outpour_listener_pauses_total",
    /// Sessions over HTTP that are open.
    FallbackSessions gauge "outpour_fallback_sessions",
    /// Sessions over HTTP refused because the shard holds as many as it may.
    FallbackSessionsRefused counter "outpour_fallback_sessions_refused_total",
    /// Streams of Server-Sent Events opened.
    EventStreams counter "outpour_event_streams_total",
    /// Connections that came from another shard.
    Transfers counter "outpour_transfers_total",
    /// Channels that this shard knows.
    Channels gauge "outpour_channels",
    /// Subscriptions held.
    Subscriptions gauge "outpour_subscriptions",
    /// Events accepted for publishing, one for each channel named.
    Publishes counter "outpour_publishes_total",
    /// Events encoded as frames.
    Encodes counter "outpour_encodes_total",
    /// Frames appended to the logs of this shard.
    Appends counter "outpour_appends_total",
    /// Deliveries: a frame handed to one subscriber's socket.
    Deliveries counter "outpour_deliveries_total",
    /// Sends: visits to a socket.
    Sends counter "outpour_sends_total",
    /// Bytes handed to sockets.
    SentBytes counter "outpour_sent_bytes_total",
    /// Sends that found the socket full.
    ShortSends counter "outpour_short_sends_total",
    /// Subscribers closed because their next frame had left the log.
    SlowClosed counter "outpour_slow_closed_total",
    /// Times that a subscriber's next frame had left the log and it went on from what is retained.
    SlowParked counter "outpour_slow_parked_total",
    /// Bytes of frames held in logs.
    LogBytes gauge "outpour_log_bytes",
    /// Bytes of events that channels with serials retain.
    RetainedBytes gauge "outpour_retained_bytes",
    /// Segments of retained events that went because all channels together held too much.
    RetainedEvicted counter "outpour_retained_segments_evicted_total",
    /// Idempotency keys that went for the same reason, before their time.
    KeysEvicted counter "outpour_idempotency_keys_evicted_total",
    /// Publishes repeated under their idempotency key: answered as the first time, not delivered.
    Repeats counter "outpour_publishes_repeated_total",
    /// Subscriptions that resumed and miss nothing.
    Recovered counter "outpour_resumes_recovered_total",
    /// Subscriptions that resumed too late and were told what they miss.
    RecoveredLate counter "outpour_resumes_late_total",
    /// Subscribers that were told of a gap while they caught up: it was not retained any more.
    Gaps counter "outpour_gaps_total",
    /// Times that a subscriber was too far behind and went on with the newest event.
    GapsLatest counter "outpour_gaps_latest_total",
    /// Gaps that subscribers which were too far behind were told of for events that newer ones with the
    /// same key superseded.
    GapsSuperseded counter "outpour_gaps_superseded_total",
    /// Requests for pages of events that wait for the next one, at their channels' homes.
    PageWaiters gauge "outpour_history_requests_waiting",
    /// Publishes that had to wait for a sweep.
    PublishesParked counter "outpour_publishes_parked_total",
    /// Publishes refused because a sweep stayed behind.
    PublishesRefused counter "outpour_publishes_refused_total",
    /// HTTP requests answered.
    Requests counter "outpour_http_requests_total",
    /// HTTP requests refused with a status of 400 or above.
    RequestsRefused counter "outpour_http_requests_refused_total",
    /// Messages received over WebSocket.
    Messages counter "outpour_messages_received_total",
    /// Messages answered with an error event.
    MessagesRefused counter "outpour_messages_refused_total",
    /// Connections closed for breaking the WebSocket protocol.
    Violations counter "outpour_websocket_violations_total",
    /// Connections closed because a compressed message came to more than a message may have.
    LongInflated counter "outpour_inflated_too_long_total",
    /// Frames compressed: once for each window in use, however many subscribers get them.
    Deflates counter "outpour_deflates_total",
    /// Connections closed because nothing was heard of the peer.
    Unheard counter "outpour_unheard_closed_total",
    /// Connections closed because the API ended those of their user.
    Terminated counter "outpour_terminated_total",
    /// Letters posted to other shards.
    Letters counter "outpour_letters_total",
    /// Wakes sent to sleeping shards.
    Wakes counter "outpour_wakes_total",
    /// Turns of the shard's loop.
    Turns counter "outpour_turns_total",
    /// System calls of the shard's ring.
    Enters counter "outpour_enters_total",
    /// Completions that the kernel delivered.
    Completions counter "outpour_completions_total",
    /// The longest turn so far, in microseconds.
    LongestTurn gauge "outpour_longest_turn_us",
    /// Events for webhooks, and questions to hooks, that found no room on their way to the edge
    /// thread.
    NoticesDropped counter "outpour_notices_dropped_total",
    /// Events that wait for an app's hook.
    EventsHeld gauge "outpour_hook_events_held",
    /// Events that an app's hook dropped.
    EventsDropped counter "outpour_hook_events_dropped_total",
    /// Events that were refused for an app's hook: too many waited, or it did not answer.
    EventsRefused counter "outpour_hook_events_refused_total",
    /// Events that wait to be written to the journal.
    JournalWaiting gauge "outpour_journal_events_waiting",
    /// Events that were refused because they could not be written to the journal.
    JournalRefused counter "outpour_journal_events_refused_total",
}
edge {
    /// Requests to webhooks that were answered with success.
    WebhooksSent counter "outpour_webhooks_sent_total",
    /// Requests to webhooks that failed: no connection, no answer in time, or another status.
    WebhooksFailed counter "outpour_webhooks_failed_total",
    /// Requests to webhooks that were made again after they had failed.
    WebhooksRetried counter "outpour_webhooks_retried_total",
    /// Events that were delivered to a webhook.
    WebhookEventsDelivered counter "outpour_webhook_events_delivered_total",
    /// Events that a webhook did not get: its queue was full, or it failed for too long.
    WebhookEventsDropped counter "outpour_webhook_events_dropped_total",
    /// Events that were not sent because the client came back in time.
    WebhookEventsCancelled counter "outpour_webhook_events_cancelled_total",
    /// Questions that hooks answered.
    ConsultsAnswered counter "outpour_hook_answers_total",
    /// Questions that hooks did not answer in time, or not so that it could be done.
    ConsultsFailed counter "outpour_hook_failures_total",
    /// Events that wait for a webhook, those under way included.
    WebhookEventsQueued gauge "outpour_webhook_events_queued",
    /// Groups of events that were written to the journal and synced.
    JournalSyncs counter "outpour_journal_syncs_total",
    /// Events in them.
    JournalEvents counter "outpour_journal_events_total",
    /// Writes and syncs of the journal that failed.
    JournalFailures counter "outpour_journal_failures_total",
    /// Files that the journal is made of.
    JournalSegments gauge "outpour_journal_segments",
}
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Latency {
    Turn,
    Lap,
    PublishWait,
}

impl Latency {
    pub const ALL: [Latency; LATENCIES] = [Latency::Turn, Latency::Lap, Latency::PublishWait];

    /// Name in the text exposition, and help.
    fn text(self) -> (&'static str, &'static str) {
        match self {
            Latency::Turn => (
                "outpour_turn_seconds",
                "Turns of the shard's loop that did something.",
            ),
            Latency::Lap => (
                "outpour_sweep_lap_seconds",
                "From a channel's new frames to the visit of its last subscriber.",
            ),
            Latency::PublishWait => (
                "outpour_publish_wait_seconds",
                "Publishes that waited for another shard or for a sweep, until their answer.",
            ),
        }
    }
}

/// How many [`Latency`]s there are.
pub const LATENCIES: usize = 3;

/// The quantiles that are told of a latency.
pub const QUANTILES: [f64; 5] = [0.5, 0.9, 0.99, 0.999, 1.0];

/// What is told of a latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// At [`QUANTILES`]; none while there was nothing to record.
    pub quantiles_us: [Option<u64>; QUANTILES.len()],
    pub count: u64,
    pub sum_us: u64,
}

/// A quantile of nothing.
const NO_VALUE: u64 = u64::MAX;

/// Cells of a [`Summary`]: its quantiles, its count and its sum.
const SUMMARY_CELLS: usize = QUANTILES.len() + 2;
const CELLS: usize = METRICS.len() + LATENCIES * SUMMARY_CELLS;

/// The metrics of one thread.
#[derive(Clone)]
pub struct Metrics(Arc<Cells>);

struct Cells {
    cells: CachePadded<[AtomicU64; CELLS]>,
    lag: LagCells,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let cells = [const { AtomicU64::new(0) }; CELLS];
        let metrics = Metrics(Arc::new(Cells {
            cells: CachePadded::new(cells),
            lag: LagCells::default(),
        }));
        for latency in Latency::ALL {
            let nothing = Summary {
                quantiles_us: [None; QUANTILES.len()],
                count: 0,
                sum_us: 0,
            };
            metrics.set_summary(latency, &nothing);
        }
        metrics
    }
}

impl Metrics {
    /// Adds to a counter. Called by the owning thread only.
    pub fn add(&self, metric: Metric, count: u64) {
        let cell = &self.0.cells[metric as usize];
        cell.store(cell.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Takes from a gauge.
    pub fn subtract(&self, metric: Metric, count: u64) {
        let cell = &self.0.cells[metric as usize];
        cell.store(cell.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    pub fn set(&self, metric: Metric, value: u64) {
        self.0.cells[metric as usize].store(value, Relaxed);
    }

    pub fn read(&self, metric: Metric) -> u64 {
        self.0.cells[metric as usize].load(Relaxed)
    }

    /// How far the shard's subscribers are behind.
    pub fn lag(&self) -> &LagCells {
        &self.0.lag
    }

    /// Told once a second. A reader may see some cells of one second and some of the next.
    pub fn set_summary(&self, latency: Latency, summary: &Summary) {
        let (quantiles, totals) = self.summary_cells(latency).split_at(QUANTILES.len());
        for (cell, value) in quantiles.iter().zip(summary.quantiles_us) {
            cell.store(value.unwrap_or(NO_VALUE), Relaxed);
        }
        totals[0].store(summary.count, Relaxed);
        totals[1].store(summary.sum_us, Relaxed);
    }

    pub fn summary(&self, latency: Latency) -> Summary {
        let cells = self.summary_cells(latency);
        let value = |cell: &AtomicU64| Some(cell.load(Relaxed)).filter(|us| *us != NO_VALUE);
        Summary {
            quantiles_us: std::array::from_fn(|place| value(&cells[place])),
            count: cells[QUANTILES.len()].load(Relaxed),
            sum_us: cells[QUANTILES.len() + 1].load(Relaxed),
        }
    }

    fn summary_cells(&self, latency: Latency) -> &[AtomicU64] {
        let first = METRICS.len() + latency as usize * SUMMARY_CELLS;
        &self.0.cells[first..first + SUMMARY_CELLS]
    }
}

/// All shards' metrics, and the edge's if there is one, in the Prometheus text format, version 0.0.4.
pub fn exposition(shards: &[Metrics], edge: Option<&Metrics>) -> String {
    let mut text = String::new();
    let head = |(name, kind, help): (&str, &str, &str)| {
        format!("# HELP {name}{help}\n# TYPE {name} {kind}\n")
    };
    for (place, metric) in METRICS.iter().enumerate().take(OF_SHARDS) {
        text += &head(*metric);
        for (shard, metrics) in shards.iter().enumerate() {
            let value = metrics.0.cells[place].load(Relaxed);
            text += &format!("{}{{shard=\"{shard}\"}} {value}\n", metric.0);
        }
    }
    for latency in Latency::ALL {
        let (name, help) = latency.text();
        text += &format!("# HELP {name} {help}\n# TYPE {name} summary\n");
        for (shard, metrics) in shards.iter().enumerate() {
            let summary = metrics.summary(latency);
            for (quantile, us) in QUANTILES.iter().zip(summary.quantiles_us) {
                let labels = format!("shard=\"{shard}\",quantile=\"{quantile}\"");
                // As the format's rules have it, a quantile of nothing is not a number.
                let seconds = us.map_or(f64::NAN, seconds);
                text += &format!("{name}{{{labels}}} {seconds}\n");
            }
            let (sum, count) = (seconds(summary.sum_us), summary.count);
            text += &format!("{name}_sum{{shard=\"{shard}\"}} {sum}\n");
            text += &format!("{name}_count{{shard=\"{shard}\"}} {count}\n");
        }
    }
    let Some(edge) = edge else { return text };
    for (place, metric) in METRICS.iter().enumerate().skip(OF_SHARDS) {
        let value = edge.0.cells[place].load(Relaxed);
        text += &format!("{}{} {value}\n", head(*metric), metric.0);
    }
    text
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_is_a_labelled_sample() {
        let (first, second) = (Metrics::default(), Metrics::default());
        first.add(Metric::Deliveries, 3);
        second.add(Metric::Deliveries, 4);
        second.set(Metric::Connections, 7);
        second.subtract(Metric::Connections, 2);
        let text = exposition(&[first, second], None);
        assert!(text.contains("# TYPE outpour_deliveries_total counter"));
        assert!(text.contains("outpour_deliveries_total{shard=\"0\"} 3"));
        assert!(text.contains("outpour_deliveries_total{shard=\"1\"} 4"));
        assert!(text.contains("outpour_connections{shard=\"1\"} 5"));
    }

    #[test]
    fn the_edge_has_its_own_samples_and_no_shard_has_them() {
        let edge = Metrics::default();
        edge.add(Metric::WebhooksSent, 5);
        let text = exposition(&[Metrics::default()], Some(&edge));
        assert!(text.contains("\noutpour_webhooks_sent_total 5\n"), "{text}");
        assert!(!text.contains("webhooks_sent_total{"));
        assert_eq!(text.matches("outpour_turns_total{").count(), 1);
        let without = exposition(&[Metrics::default()], None);
        assert!(!without.contains("outpour_webhook"));
    }

    #[test]
    fn a_latency_is_a_summary_in_seconds() {
        let metrics = Metrics::default();
        let text = exposition(std::slice::from_ref(&metrics), None);
        assert!(text.contains("outpour_turn_seconds{shard=\"0\",quantile=\"0.5\"} NaN"));
        let summary = Summary {
            quantiles_us: [Some(20), Some(30), Some(400), Some(5_000), Some(60_000_000)],
            count: 7,
            sum_us: 1_500_000,
        };
        metrics.set_summary(Latency::Lap, &summary);
        assert_eq!(metrics.summary(Latency::Lap), summary);
        let text = exposition(&[metrics], None);
        assert!(text.contains("# TYPE outpour_sweep_lap_seconds summary"));
        let expected = "outpour_sweep_lap_seconds{shard=\"0\",quantile=\"0.5\"} 0.00002\n\
            outpour_sweep_lap_seconds{shard=\"0\",quantile=\"0.9\"} 0.00003\n\
            outpour_sweep_lap_seconds{shard=\"0\",quantile=\"0.99\"} 0.0004\n\
            outpour_sweep_lap_seconds{shard=\"0\",quantile=\"0.999\"} 0.005\n\
            outpour_sweep_lap_seconds{shard=\"0\",quantile=\"1\"} 60\n\
            outpour_sweep_lap_seconds_sum{shard=\"0\"} 1.5\n\
            outpour_sweep_lap_seconds_count{shard=\"0\"} 7\n";
        assert!(text.contains(expected), "{text}");
    }
}
