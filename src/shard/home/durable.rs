//! Events of durable channels: they wait at their channel's home until they are on disk, and only then
//! are in the channel's order, seen and acknowledged. So nobody has seen a serial that a crash takes
//! back.
//!
//! ```text
//! persist      a repeat: what the first is answered; not durable: sequence at once; else it gets the
//!              serial that it will have, and the edge thread has it written
//! on_written   synced: everything up to there is sequenced, in order; failed: everything is refused
//! ```

use crate::base::metrics::Metric;
use crate::base::socket::Address;
use crate::hub::durable::{Append, Due, Repeater, Written};
use crate::hub::held::Held;
use crate::hub::letter::{Event, Fate, Origin, Outcome, Publication, Refusal, Requester};
use crate::hub::notice::ToEdge;
use crate::wire::pusher::delivery::Serial;

use super::hold::Conclusion;
use crate::shard::Engine;

impl Engine {
    /// An event that no hook holds back, at its channel's home; it came from this shard.
    pub(in crate::shard) fn persist(
        &mut self,
        event: &Event<'_>,
        requester: Option<Requester>,
        from: u16,
    ) -> Fate {
        if !event.idempotency_key.is_empty()
            && let Some(fate) = self.repeat(event, requester, from)
        {
            return fate;
        }
        if !self.is_durable(event) {
            return Fate::Sequenced(self.sequence(event));
        }
        if self.post_append(event, requester, from) {
            return Fate::Held;
        }
        self.metrics.add(Metric::JournalRefused, 1);
        self.conclude_client(event);
        Fate::Refused(Refusal::Journal)
    }

    fn is_durable(&self, event: &Event<'_>) -> bool {
        match event.origin {
            Origin::Api | Origin::Client => self.apps.app(event.app).is_durable(event.channel),
            Origin::Server | Origin::Message => false,
        }
    }

    /// False if there is no room for it to wait, or none on the way to the edge thread.
    fn post_append(&mut self, event: &Event<'_>, requester: Option<Requester>, from: u16) -> bool {
        let publication = Publication::new(event, requester, &mut self.arena);
        let Ok((ticket, round)) = self.durable.admit(publication.length()) else {
            return false;
        };
        let channel = self.open_retained(event.app, event.channel);
        let channel = channel.expect("durable channels have serials");
        let line = self.channels.hash(event.app, event.channel);
        let home = self.channels[channel].home.as_ref();
        let home = home.expect("it was just opened");
        let retained = home.retained.as_ref().expect("it was just opened");
        let user_id = home.user_id_of(event).unwrap_or_default();
        let Serial { epoch, number } = retained.next();
        let serial = number + self.durable.of_line(line);
        let append = Append {
            ticket,
            round,
            app: event.app,
            origin: event.origin,
            epoch,
            serial,
            channel: event.channel.into(),
            name: event.name.into(),
            data: event.data.into(),
            user_id: user_id.as_str().into(),
            idempotency_key: event.idempotency_key.into(),
        };
        let edge = self
            .edge
            .as_mut()
            .expect("a server with a journal has the edge");
        if edge.post(ToEdge::Append(Box::new(append))).is_err() {
            return false;
        }
        let held = Held { publication, from };
        let user_id = user_id.into_boxed_str();
        self.durable.push(line, held, user_id, epoch, serial);
        self.count_durable();
        true
    }

    /// The journal's word for what was posted.
    pub(in crate::shard) fn on_written(&mut self, written: Written) {
        match written {
            Written::Synced { ticket } => {
                while let Some(due) = self.durable.pop_synced(ticket) {
                    self.sequence_due(&due);
                }
            }
            Written::Failed { round } => {
                for due in self.durable.take_failed(round) {
                    self.metrics.add(Metric::JournalRefused, 1);
                    self.conclude_client(&due.held.publication.event());
                    self.conclude_due(&due, Outcome::Refused(Refusal::Journal));
                }
            }
        }
        self.count_durable();
    }

    fn sequence_due(&mut self, due: &Due) {
        let event = Event {
            user_id: &due.user_id,
            ..due.held.publication.event()
        };
        let channel = self.open_retained(event.app, event.channel);
        let channel = channel.expect("durable channels have serials");
        let retained = self.retained_mut(channel).expect("it was just opened");
        let promised = Serial {
            epoch: due.epoch,
            number: due.serial,
        };
        assert_eq!(retained.next(), promised, "what is on disk is what is told");
        let serial = self.sequence(&event);
        self.conclude_due(due, Outcome::Published(serial));
    }

    fn conclude_due(&mut self, due: &Due, outcome: Outcome) {
        if let Some(requester) = due.held.publication.requester {
            self.conclusions.push_back(Conclusion {
                shard: due.held.from,
                requester,
                outcome,
            });
        }
        for &Repeater { requester, shard } in &due.repeaters {
            self.conclusions.push_back(Conclusion {
                shard,
                requester,
                outcome,
            });
        }
    }

    /// A client that sent an event waits for no answer, but is told if it is refused.
    fn conclude_client(&mut self, event: &Event<'_>) {
        if let (Origin::Client, Some(Address { shard, socket })) = (event.origin, event.excluded) {
            self.conclusions.push_back(Conclusion {
                shard,
                requester: Requester { socket, place: 0 },
                outcome: Outcome::ClientRefused,
            });
        }
    }

    fn count_durable(&mut self) {
        let waiting = self.durable.length() as u64;
        self.metrics.set(Metric::JournalWaiting, waiting);
    }
}
