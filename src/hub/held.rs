//! Events that wait at their channel's home until a hook has answered, in the order of their channel.
//!
//! Every channel with such events has a line. Questions about all events of a line may be under way
//! at once, and their answers come in any order: an event leaves when it and all before it are
//! answered. An event that no hook sees waits in the line too, if there is one, for its turn.
//!
//! Invariants:
//! - A line exists exactly as long as an event waits in it, and its first event is not answered.
//! - There are at most `HELD_EVENTS_MAX` questions without an answer.

use std::collections::{HashMap, VecDeque};

use super::hook::Action;
use super::letter::Publication;
use crate::base::limits;

/// An event that waits, and the shard where whoever published it waits.
#[derive(Debug)]
pub struct Held {
    pub publication: Publication,
    pub from: u16,
}

/// The lines of one shard, by the hash of their channel.
#[derive(Debug, Default)]
pub struct Lines {
    lines: HashMap<u64, VecDeque<Place>>,
    /// The line of each question without an answer.
    asked: HashMap<u64, u64>,
    tickets: u64,
    events: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    held: Held,
    ticket: u64,
    action: Option<Action>,
}

/// There are as many events as may wait: this one is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Lines {
    /// Whether an event of this line waits.
    pub fn is_waiting(&self, line: u64) -> bool {
        self.lines.contains_key(&line)
    }

    /// Events that wait.
    pub fn length(&self) -> usize {
        self.events
    }

    /// Puts the event at the end of its line, with a question whose ticket is returned.
    pub fn ask(&mut self, line: u64, held: Held) -> Result<u64, Full> {
        let ticket = self.push(line, held, None)?;
        self.asked.insert(ticket, line);
        Ok(ticket)
    }

    /// Puts an event that no hook sees behind those that wait.
    pub fn follow(&mut self, line: u64, held: Held) -> Result<(), Full> {
        assert!(self.is_waiting(line), "there is something to wait for");
        self.push(line, held, Some(Action::Publish)).map(|_| ())
    }

    /// A question is answered. What need not wait any longer goes to `released`, in order.
    pub fn answer(&mut self, ticket: u64, action: Action, released: &mut Vec<(Held, Action)>) {
        let line = self.asked.remove(&ticket);
        let line = line.expect("a question is answered once");
        let places = self.lines.get_mut(&line).expect("its event waits");
        let place = places.iter_mut().find(|place| place.ticket == ticket);
        place.expect("its event waits in this line").action = Some(action);
        while let Some(first) = places.front_mut()
            && let Some(action) = first.action.take()
        {
            let first = places.pop_front().expect("it was just seen");
            self.events -= 1;
            self.bytes -= first.held.publication.length();
            released.push((first.held, action));
        }
        if places.is_empty() {
            self.lines.remove(&line);
        }
    }

    fn push(&mut self, line: u64, held: Held, action: Option<Action>) -> Result<u64, Full> {
        let bytes = held.publication.length();
        let in_line = self.lines.get(&line).map_or(0, VecDeque::len);
        if in_line >= limits::HELD_EVENTS_PER_CHANNEL_MAX
            || self.events >= limits::HELD_EVENTS_MAX
            || self.bytes + bytes > limits::HELD_BYTES_MAX
        {
            return Err(Full);
        }
        self.events += 1;
        self.bytes += bytes;
        self.tickets += 1;
        self.lines.entry(line).or_default().push_back(Place {
            held,
            ticket: self.tickets,
            action,
        });
        Ok(self.tickets)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::hub::letter::{Event, Origin};

    fn held(number: u16) -> Held {
        let data = number.to_string();
        let event = Event {
            app: 0,
            origin: Origin::Api,
            channel: "a",
            name: "\"b\"",
            data: &data,
            key: "",
            user_id: "",
            idempotency_key: "",
            excluded: None,
            serial: None,
        };
        Held {
            publication: Publication::new(&event, None, &mut BytesMut::new()),
            from: number,
        }
    }

    #[test]
    fn a_line_is_bounded_and_another_one_goes_on() {
        let mut lines = Lines::default();
        for number in 0..limits::HELD_EVENTS_PER_CHANNEL_MAX {
            assert!(lines.ask(1, held(number as u16)).is_ok());
        }
        assert_eq!(lines.ask(1, held(0)), Err(Full));
        assert_eq!(lines.follow(1, held(0)), Err(Full));
        let ticket = lines.ask(2, held(9)).expect("the other line has room");
        let mut released = Vec::new();
        lines.answer(ticket, Action::Drop, &mut released);
        assert_eq!(released.len(), 1);
        assert!(lines.is_waiting(1) && !lines.is_waiting(2));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Come {
            line: u64,
            is_seen: bool,
        },
        /// The question at this place of those without an answer is answered.
        Answer {
            place: usize,
            is_dropped: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u64, any::<bool>()).prop_map(|(line, is_seen)| Step::Come { line, is_seen }),
            (0..6_usize, any::<bool>())
                .prop_map(|(place, is_dropped)| Step::Answer { place, is_dropped }),
        ]
    }

    proptest! {
        /// Against lists of what came: each line is left in order, once its beginning is answered.
        #[test]
        fn events_leave_in_order_and_as_answered(steps in prop::collection::vec(step(), 0..200)) {
            let mut lines = Lines::default();
            let mut came: [Vec<(u16, Option<bool>)>; 3] = Default::default();
            let mut left = [0; 3];
            let mut open: Vec<(u64, usize, usize)> = Vec::new();
            let mut released = Vec::new();
            let finish = (0..200).map(|_| Step::Answer { place: 0, is_dropped: false });
            for (number, step) in (0_u16..).zip(steps.into_iter().chain(finish)) {
                match step {
                    Step::Come { line, is_seen } => {
                        let known = &mut came[line as usize];
                        if is_seen {
                            let ticket = lines.ask(line, held(number)).unwrap();
                            open.push((ticket, line as usize, known.len()));
                            known.push((number, None));
                        } else if lines.is_waiting(line) {
                            lines.follow(line, held(number)).unwrap();
                            known.push((number, Some(false)));
                        } else {
                            prop_assert_eq!(left[line as usize], known.len());
                        }
                    }
                    Step::Answer { place, is_dropped } => {
                        if open.is_empty() {
                            continue;
                        }
                        let (ticket, line, at) = open.remove(place % open.len());
                        let action = if is_dropped { Action::Drop } else { Action::Publish };
                        came[line][at].1 = Some(is_dropped);
                        lines.answer(ticket, action, &mut released);
                        for (held, action) in released.drain(..) {
                            let expected = came[line][left[line]];
                            prop_assert_eq!(held.from, expected.0);
                            prop_assert_eq!(Some(action == Action::Drop), expected.1);
                            left[line] += 1;
                        }
                        let next = came[line].get(left[line]);
                        prop_assert!(next.is_none_or(|(_, answer)| answer.is_none()));
                    }
                }
            }
            prop_assert_eq!((lines.events, lines.bytes), (0, 0));
            prop_assert!(lines.lines.is_empty() && lines.asked.is_empty());
        }
    }
}
