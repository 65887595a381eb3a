//! Publishes that are repeated under their idempotency key: known at the channel's home before
//! anything is given a serial, answered as the first was, and seen by nobody.
//!
//! An event that waits for the disk is not published yet: a repeat of it waits for it, and if it is
//! refused, so is the repeat, and the key is free. One that waits for an app's hook may still be
//! dropped: a repeat of it waits behind it, is shown to the hook too, and is known when it is released.

use crate::base::metrics::Metric;
use crate::hub::durable::Repeater;
use crate::hub::held::Full;
use crate::hub::letter::{Event, Fate, Refusal, Requester};
use crate::hub::variant::Variant;

use crate::shard::Engine;

impl Engine {
    /// What an event with a key comes to that was published lately or is on its way to the disk, at
    /// its channel's home; nothing if it is the first under its key.
    pub(in crate::shard) fn repeat(
        &mut self,
        event: &Event<'_>,
        requester: Option<Requester>,
        from: u16,
    ) -> Option<Fate> {
        let fate = match self.published_under_key(event) {
            Some(fate) => fate,
            None => {
                let line = self.channels.hash(event.app, event.channel);
                let shard = from;
                let repeater = requester.map(|requester| Repeater { requester, shard });
                match self.durable.join(line, event.idempotency_key, repeater)? {
                    Ok(()) => Fate::Held,
                    Err(Full) => Fate::Refused(Refusal::Journal),
                }
            }
        };
        self.metrics.add(Metric::Repeats, 1);
        Some(fate)
    }

    fn published_under_key(&self, event: &Event<'_>) -> Option<Fate> {
        let channel = self
            .channels
            .find(event.app, event.channel, Variant::Plain)?;
        let home = self.channels[channel].home.as_ref()?;
        let retained = home.retained.as_ref()?;
        let serial = retained.serial_of(event.idempotency_key, self.now_s)?;
        Some(Fate::Sequenced(Some(serial)))
    }
}
