//! A shard's way to the edge thread: what happened in channels, for those who asked to be told.

use std::sync::Arc;

use crate::base::lane::{Receiver, Sender};
use crate::base::metrics::{Metric, Metrics};
use crate::base::sleep::Doorbell;
use crate::hub::notice::{FromEdge, Kind, Notice, ToEdge};
use crate::ring::Operation;

use super::Engine;

/// The lane from one shard to the edge thread.
pub struct EdgeLink {
    sender: Sender<ToEdge>,
    /// The edge wakes the shard for them, so a shard looks at them once a turn and not before it
    /// sleeps.
    pub(super) words: Receiver<FromEdge>,
    doorbell: Arc<Doorbell>,
    was_posted_to: bool,
    /// The edge's own, which are served beside those of the shards.
    pub metrics: Metrics,
}

impl EdgeLink {
    pub fn new(
        sender: Sender<ToEdge>,
        words: Receiver<FromEdge>,
        doorbell: Arc<Doorbell>,
        metrics: Metrics,
    ) -> EdgeLink {
        EdgeLink {
            sender,
            words,
            doorbell,
            was_posted_to: false,
            metrics,
        }
    }

    /// Posts, or gives back what has no room.
    pub(super) fn post(&mut self, letter: ToEdge) -> Result<(), ToEdge> {
        self.sender.push(letter)?;
        self.was_posted_to = true;
        Ok(())
    }
}

impl Engine {
    /// Tells the app's webhooks, if one wants to know. Called at the channel's home, so that there
    /// is one order.
    pub fn notify(&mut self, app: u16, channel: &str, kind: Kind<&str>) {
        let wanted = &self.apps.app(app).wanted;
        // Channels of users are the server's own affair.
        if channel.starts_with('#') || !wanted.takes(kind.event_type(), channel) {
            return;
        }
        let Some(edge) = self.edge.as_mut() else {
            return;
        };
        let notice = Notice {
            app,
            channel: channel.into(),
            kind: kind.into_owned(),
        };
        if edge.post(ToEdge::Notice(Box::new(notice))).is_err() {
            self.metrics.add(Metric::NoticesDropped, 1);
        }
    }

    /// As [`Engine::notify`], of a channel that this shard knows.
    pub fn notify_of(&mut self, channel: u32, kind: Kind<&str>) {
        let record = &self.channels[channel];
        let app = record.app;
        if self
            .apps
            .app(app)
            .wanted
            .takes(kind.event_type(), &record.name)
        {
            let name = record.name.clone();
            self.notify(app, &name, kind);
        }
    }

    /// Has the edge woken if it sleeps with something of this turn before it.
    pub(super) fn wake_edge(&mut self) {
        if let Some(edge) = self.edge.as_mut()
            && std::mem::take(&mut edge.was_posted_to)
            && edge.doorbell.ring()
        {
            self.operations.push(Operation::WakeEdge);
        }
    }
}
