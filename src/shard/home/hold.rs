//! Events that an app's hook sees before they are sequenced. They wait at their channel's home, the
//! one place that has the channel's order, and so nothing else of the server waits for them.
//!
//! ```text
//! take_in      no hook sees it and nothing of its channel waits: it is persisted at once
//!              a repeat of what is published: answered, and the hook is not asked
//!              else it waits, and the edge thread is asked
//! on_verdict   everything that is answered up to the first that is not: persist, replace or drop
//! conclude     whoever published it is told, once it is sequenced
//! ```

use crate::base::metrics::Metric;
use crate::base::socket::Socket;
use crate::hub::held::{Full, Held};
use crate::hub::hook::{Action, Consult, Verdict};
use crate::hub::letter::{Event, Fate, Letter, Origin, Outcome, Publication, Refusal, Requester};
use crate::hub::notice::{FromEdge, ToEdge};
use crate::wire::pusher;

use crate::shard::Engine;

/// Whoever waits for an event that was held is to be told.
#[derive(Clone, Copy, Debug)]
pub struct Conclusion {
    pub shard: u16,
    pub requester: Requester,
    pub outcome: Outcome,
}

impl Engine {
    /// An event whose channel's home is here, and which came from this shard.
    pub(in crate::shard) fn take_in(
        &mut self,
        event: &Event<'_>,
        requester: Option<Requester>,
        from: u16,
    ) -> Fate {
        let Some(hook) = &self.apps.app(event.app).hook else {
            return self.persist(event, requester, from);
        };
        let is_seen = match event.origin {
            Origin::Api | Origin::Client => hook.takes_channel(event.channel),
            Origin::Server | Origin::Message => false,
        };
        let is_asked = is_seen && hook.takes_event(event.name);
        let line = self.channels.hash(event.app, event.channel);
        let waits = is_asked || is_seen && self.held.is_waiting(line);
        if !waits {
            return self.persist(event, requester, from);
        }
        if !event.idempotency_key.is_empty()
            && let Some(fate) = self.repeat(event, requester, from)
        {
            return fate;
        }
        let publication = Publication::new(event, requester, &mut self.arena);
        let held = Held { publication, from };
        let placed = match is_asked {
            true => self.held.ask(line, held).map(Some),
            false => self.held.follow(line, held).map(|()| None),
        };
        match placed {
            Ok(ticket) => {
                self.metrics.add(Metric::EventsHeld, 1);
                if let Some(ticket) = ticket {
                    self.consult(ticket, event);
                }
                Fate::Held
            }
            Err(Full) => {
                self.metrics.add(Metric::EventsRefused, 1);
                Fate::Refused(Refusal::Hook)
            }
        }
    }

    fn consult(&mut self, ticket: u64, event: &Event<'_>) {
        let consult = Consult {
            ticket,
            app: event.app,
            origin: event.origin,
            channel: event.channel.into(),
            event: event.name.into(),
            data: event.data.into(),
            socket_id: event.excluded.map(|address| self.socket_id_at(address)),
        };
        let edge = self.edge.as_mut().expect("an app with a hook has the edge");
        if edge.post(ToEdge::Consult(Box::new(consult))).is_err() {
            self.metrics.add(Metric::NoticesDropped, 1);
            let hook = self.apps.app(event.app).hook.as_ref();
            let action = hook.expect("it was just asked").without_answer();
            self.on_verdict(Verdict { ticket, action });
        }
    }

    /// Reads what the edge thread has answered. Returns how many answers there were.
    pub(in crate::shard) fn read_verdicts(&mut self) -> u64 {
        let mut verdicts = 0;
        while let Some(word) = self.edge.as_mut().and_then(|edge| edge.words.pop()) {
            match word {
                FromEdge::Verdict(verdict) => self.on_verdict(verdict),
                FromEdge::Written(written) => self.on_written(written),
            }
            verdicts += 1;
        }
        verdicts
    }

    fn on_verdict(&mut self, verdict: Verdict) {
        let mut released = std::mem::take(&mut self.released);
        self.held
            .answer(verdict.ticket, verdict.action, &mut released);
        for (held, action) in released.drain(..) {
            self.metrics.subtract(Metric::EventsHeld, 1);
            self.release(&held, &action);
        }
        self.released = released;
    }

    fn release(&mut self, held: &Held, action: &Action) {
        let event = held.publication.event();
        let requester = held.publication.requester;
        let fate = match action {
            Action::Publish => self.persist(&event, requester, held.from),
            Action::Replace { event: name, data } => {
                let name = name.as_deref().unwrap_or(event.name);
                let event = Event {
                    name,
                    data,
                    ..event
                };
                self.persist(&event, requester, held.from)
            }
            Action::Drop => {
                self.metrics.add(Metric::EventsDropped, 1);
                Fate::Dropped
            }
            Action::Refuse => {
                self.metrics.add(Metric::EventsRefused, 1);
                Fate::Refused(Refusal::Hook)
            }
        };
        if let Some(requester) = requester.filter(|_| fate != Fate::Held) {
            self.conclusions.push_back(Conclusion {
                shard: held.from,
                requester,
                outcome: Outcome::of(fate),
            });
        }
    }

    /// Tells those who wait on this shard.
    pub(in crate::shard) fn conclude_here(&mut self) {
        for _ in 0..self.conclusions.len() {
            let Some(conclusion) = self.conclusions.pop_front() else {
                break;
            };
            if conclusion.shard == self.index {
                self.on_conclusion(conclusion.requester, conclusion.outcome);
            } else {
                self.conclusions.push_back(conclusion);
            }
        }
    }

    /// Posts to those who wait on other shards, as far as there is room.
    pub(in crate::shard) fn post_conclusions(&mut self) {
        let (mesh, own) = (&mut self.mesh, self.index);
        self.conclusions.retain(|conclusion| {
            if conclusion.shard == own || !mesh.has_room(conclusion.shard) {
                return true;
            }
            let concluded = Letter::Concluded {
                requester: conclusion.requester,
                outcome: conclusion.outcome,
            };
            mesh.post(conclusion.shard, concluded);
            false
        });
    }

    /// A home has answered for an event that was held or refused.
    pub(in crate::shard) fn on_conclusion(&mut self, requester: Requester, outcome: Outcome) {
        match outcome {
            Outcome::Published(serial) => self.note_serial(requester, serial),
            Outcome::Dropped => self.note_dropped(requester),
            Outcome::Reached(subscribers) => self.note_reached(requester, subscribers),
            Outcome::Refused(refusal) => {
                if self.connections.is_current(requester.socket)
                    && let Some(waiting) = self.connections[requester.socket.slot].waiting.as_mut()
                {
                    waiting.refusal = Some(refusal);
                }
            }
            Outcome::ClientRefused => return self.tell_client_refused(requester.socket),
            Outcome::Appended => return self.ask_again(requester.socket),
        }
        self.on_receipt(requester.socket);
    }

    fn tell_client_refused(&mut self, sender: Socket) {
        if !self.connections.is_current(sender) {
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let error = "Client event rejected - it could not be written to the journal";
        let code = Some(pusher::CLIENT_EVENT_REJECTED);
        pusher::encode_error(&mut text, error, code, None);
        self.reply_text(sender.slot, &text);
        self.text = text;
    }
}
