//! What the home of a channel retains of it: its last events, with their serials.
//!
//! Events are kept as plain WebSocket frames, one after the other in segments that never change, so
//! that all who catch up read the same memory: a reader holds a share of a segment, and what a
//! channel retains does not grow with their number. Events go when there are too many of them, when
//! they are too old, or when they are too many bytes, the oldest first.
//!
//! ```text
//! tail .. next    serials that can be read
//! segments, open  frames from the tail's segment on: sealed ones, and the one that grows
//! ```
//!
//! Invariants:
//! - Serials are contiguous: the frames from `tail` to `next` are all there, in order.
//! - A reader gets whole frames, contiguous from the serial that it asked for, or is told which it
//!   does not get. It never gets one that it is excluded from.

use std::collections::{BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};

use super::holdings::Holding;
use super::keys::Keys;
use super::repeats::{Repeats, Window};
use crate::base::limits;
use crate::base::socket::Address;
use crate::wire::pusher::delivery::{self, Begin, Gap, Position, Reason, Recovery, Serial};
use crate::wire::websocket::{self, Opcode};

/// How much a channel retains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub messages_max: u64,
    pub bytes_max: usize,
    pub age_s: u32,
    /// How long keys of events are known.
    pub window: Window,
}

/// Whose exceptions hold for one who reads: its own, and those of the connection over which it had the
/// channel before, if it said so.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    pub address: Address,
    pub formerly: Option<Address>,
}

impl Reader {
    fn is(&self, address: Address) -> bool {
        self.address == address || self.formerly == Some(address)
    }
}

#[derive(Debug)]
pub struct Retained {
    pub epoch: u64,
    /// Its place among all that the shard retains.
    pub holding: Holding,
    /// The second in which it was last needed.
    pub used_s: u32,
    /// Those who wait for the next event; each connection at most once.
    pub waiters: BTreeSet<Address>,
    retention: Retention,
    tail: u64,
    next: u64,
    segments: VecDeque<Segment>,
    open: BytesMut,
    /// The serial of the first frame in `open`, or of the next if there is none.
    open_first: u64,
    /// The serial that was next at the end of each second in which events came.
    ages: VecDeque<(u64, u32)>,
    /// Events that one connection does not get.
    excluded: VecDeque<(u64, Address)>,
    keys: Keys,
    frames_bytes: usize,
    /// If events were published under keys lately.
    repeats: Option<Box<Repeats>>,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    frames: Bytes,
}

/// A run of events for one who catches up.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Plain WebSocket frames, one after the other.
    pub frames: Bytes,
    /// The serial of the first of them.
    pub first: u64,
    /// The serial up to which the reader has all that is for it.
    pub reached: u64,
    /// What it does not get before them.
    pub missed: Option<Gap>,
    /// How many gaps are told among the frames.
    pub gaps: u64,
    /// What is sequenced next comes behind this.
    pub is_last: bool,
    /// The last serial that was given, and the second in which the oldest event came that the reader
    /// did not have.
    pub head: u64,
    pub since_s: u32,
}

/// What went because all channels together hold too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    Segment,
    /// So many keys.
    Keys(u64),
}

/// Somebody has seen a serial that was not given yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl Retained {
    pub fn new(epoch: u64, retention: Retention) -> Retained {
        Retained {
            epoch,
            holding: Holding::default(),
            used_s: 0,
            waiters: BTreeSet::new(),
            retention,
            tail: 1,
            next: 1,
            segments: VecDeque::new(),
            open: BytesMut::new(),
            open_first: 1,
            ages: VecDeque::new(),
            excluded: VecDeque::new(),
            keys: Keys::default(),
            frames_bytes: 0,
            repeats: None,
        }
    }

    /// As if the events up to `next` had been retained once and were gone.
    pub fn resumed(epoch: u64, retention: Retention, next: u64) -> Retained {
        Retained {
            tail: next,
            next,
            open_first: next,
            ..Retained::new(epoch, retention)
        }
    }

    /// The serial of the next event.
    pub fn next(&self) -> Serial {
        self.serial(self.next)
    }

    /// The first serial that can be read.
    pub fn tail(&self) -> u64 {
        self.tail
    }

    pub fn is_empty(&self) -> bool {
        self.tail == self.next
    }

    /// Whether a publish that is repeated may still be known.
    pub fn knows_keys(&self) -> bool {
        self.repeats.is_some()
    }

    /// What the event has that was published under this key lately.
    pub fn serial_of(&self, key: &str, now_s: u32) -> Option<Serial> {
        let number = self.repeats.as_ref()?.serial_of(key, now_s)?;
        Some(self.serial(number))
    }

    /// The next event that is appended was published under this key.
    pub fn note_key(&mut self, key: &str, now_s: u32) {
        let window = self.retention.window;
        let new = || Box::new(Repeats::new(window));
        let repeats = self.repeats.get_or_insert_with(new);
        repeats.note(key, self.next, now_s);
    }

    pub fn age_s(&self) -> u32 {
        self.retention.age_s
    }

    /// Bytes of memory, but for what the allocator adds.
    pub fn bytes(&self) -> usize {
        self.events_bytes() + self.keys_bytes()
    }

    fn events_bytes(&self) -> usize {
        self.frames_bytes
            + self.segments.len() * size_of::<Segment>()
            + self.ages.len() * size_of::<(u64, u32)>()
            + self.excluded.len() * size_of::<(u64, Address)>()
            + self.keys.bytes()
    }

    /// The next event that is appended is the newest with this key.
    pub fn key_next(&mut self, key: &str) {
        self.keys.push(self.next, key);
    }

    fn keys_bytes(&self) -> usize {
        let repeats = self.repeats.as_ref();
        repeats.map_or(0, |repeats| repeats.bytes() + size_of::<Repeats>())
    }

    /// Appends the next event, which one connection perhaps does not get.
    pub fn append(&mut self, frame: &[u8], excluded: Option<Address>, now_s: u32) {
        let segment_bytes = (self.retention.bytes_max / SEGMENTS_LEAST)
            .clamp(SEGMENT_BYTES_LEAST, limits::SEGMENT_BYTES);
        if !self.open.is_empty() && self.open.len() + frame.len() > segment_bytes {
            self.seal();
            // A channel that filled one segment fills the next.
            self.open.reserve(segment_bytes.max(frame.len()));
        }
        self.open.extend_from_slice(frame);
        self.frames_bytes += frame.len();
        if let Some(address) = excluded {
            self.excluded.push_back((self.next, address));
        }
        self.next += 1;
        match self.ages.back_mut() {
            Some((next, second)) if *second == now_s => *next = self.next,
            _ => self.ages.push_back((self.next, now_s)),
        }
        self.used_s = now_s;
        self.trim(now_s);
    }

    /// Forgets what is not to be retained any longer, at a time in seconds.
    pub fn trim(&mut self, now_s: u32) {
        let Retention {
            messages_max,
            bytes_max,
            age_s,
            window: _,
        } = self.retention;
        let mut tail = self.tail.max(self.next.saturating_sub(messages_max));
        let old = self.ages.iter();
        let old = old.take_while(|(_, second)| second.saturating_add(age_s) < now_s);
        tail = old.last().map_or(tail, |(next, _)| tail.max(*next));
        self.forget_before(tail);
        while self.events_bytes() > bytes_max && !self.is_empty() {
            self.forget_oldest_segment();
        }
        if let Some(repeats) = self.repeats.as_mut() {
            repeats.trim(now_s);
            self.repeats.take_if(|repeats| repeats.is_empty());
        }
    }

    /// When the next event or key will be too old; nothing if there is none.
    pub fn over_s(&self) -> Option<u32> {
        let event = self.ages.front();
        let event = event.map(|(_, second)| second.saturating_add(self.retention.age_s + 1));
        let key = self.repeats.as_ref();
        let key = key.and_then(|repeats| repeats.next_over_s());
        event.into_iter().chain(key).min()
    }

    /// Forgets the oldest segment, or the older half of the keys if those are more bytes.
    pub fn forget_oldest(&mut self) -> Forgotten {
        let (events_bytes, keys_bytes) = (self.events_bytes(), self.keys_bytes());
        if let Some(repeats) = self.repeats.as_mut()
            && keys_bytes > events_bytes
        {
            let count = repeats.forget_half();
            self.repeats.take_if(|repeats| repeats.is_empty());
            return Forgotten::Keys(count);
        }
        self.forget_oldest_segment();
        Forgotten::Segment
    }

    fn forget_oldest_segment(&mut self) {
        let second = self.segments.get(1).map(|segment| segment.first);
        let end = match self.segments.is_empty() {
            true => self.next,
            false => second.unwrap_or(self.open_first),
        };
        self.forget_before(end);
    }

    /// Where one stands who comes, and the serial behind which it has to catch up, if it does.
    pub fn begin(&self, begin: Begin, now_s: u32) -> Result<(Position, Option<u64>), Unknown> {
        let head = self.next - 1;
        let oldest = self.tail - 1;
        let (after, recovery) = match begin {
            Begin::Head => (head, None),
            Begin::Messages(messages) => (oldest.max(head.saturating_sub(messages)), None),
            Begin::Seconds(seconds) => {
                let since_s = now_s.saturating_sub(seconds);
                let before = self.ages.iter().take_while(|(_, second)| *second < since_s);
                let next = before.last().map_or(self.tail, |(next, _)| *next);
                (oldest.max(next - 1), None)
            }
            Begin::After(from, _) if from.epoch != self.epoch => {
                let recovery = Recovery::Missed {
                    from: after(from),
                    to: None,
                };
                (oldest, Some(recovery))
            }
            Begin::After(from, _) if from.number > head => return Err(Unknown),
            Begin::After(from, _) if from.number < oldest => {
                let recovery = Recovery::Missed {
                    from: after(from),
                    to: Some(oldest),
                };
                (oldest, Some(recovery))
            }
            Begin::After(from, _) => (from.number, Some(Recovery::Whole)),
        };
        let position = Position {
            serial: self.serial(after),
            recovery,
        };
        Ok((position, (after < head).then_some(after)))
    }

    /// The events behind a serial for a connection, as many as fit into `bytes_max`, but at least
    /// one.
    pub fn read(&mut self, after: u64, reader: Reader, bytes_max: usize) -> Chunk {
        let missed = self.evicted_behind(after);
        let mut first = (after + 1).max(self.tail);
        let since_s = self.came_s(first);
        let place = self.excluded.partition_point(|(serial, _)| *serial < first);
        let not_for_it = self.excluded.range(place..);
        let mut not_for_it = not_for_it
            .filter(|(_, address)| reader.is(*address))
            .map(|(serial, _)| *serial)
            .peekable();
        while not_for_it.next_if_eq(&first).is_some() {
            first += 1;
        }
        let stop = not_for_it.peek().copied().unwrap_or(self.next);
        let (frames, mut reached) = match first < stop {
            true => self.slice(first, stop, bytes_max),
            false => (Bytes::new(), first),
        };
        let later = self
            .excluded
            .partition_point(|(serial, _)| *serial < reached);
        for (serial, address) in self.excluded.range(later..) {
            if *serial == reached && reader.is(*address) {
                reached += 1;
            } else if *serial > reached {
                break;
            }
        }
        Chunk {
            frames,
            first,
            reached: reached - 1,
            missed,
            gaps: 0,
            is_last: reached == self.next,
            head: self.next - 1,
            since_s,
        }
    }

    /// The second in which the event of a serial came that is retained; for the next one, 0.
    pub fn came_s(&self, serial: u64) -> u32 {
        let place = self.ages.partition_point(|(next, _)| *next <= serial);
        self.ages.get(place).map_or(0, |(_, second)| *second)
    }

    /// The newest event for one that is behind a serial and is not to get those between.
    pub fn read_newest(&mut self, after: u64, reader: Reader, bytes_max: usize) -> Chunk {
        let newest = self.next - 1;
        if self.is_empty() || newest <= after + 1 {
            return self.read(after, reader, bytes_max);
        }
        let since_s = self.came_s(self.tail.max(after + 1));
        Chunk {
            missed: Some(Gap {
                first: after + 1,
                last: newest - 1,
                reason: Reason::Latest,
            }),
            since_s,
            ..self.read(newest - 1, reader, bytes_max)
        }
    }

    /// As [`Retained::read`], for one that does not get the events of which there is a newer one with
    /// the same key: frames between those of the others tell it which these are.
    pub fn read_newest_of_keys(
        &mut self,
        channel: &str,
        after: u64,
        reader: Reader,
        bytes_max: usize,
    ) -> Chunk {
        let first = (after + 1).max(self.tail);
        let stop = self.next.min(first + limits::LOOKED_THROUGH_MAX);
        let (mut frames, mut gaps) = (Vec::new(), 0);
        let (mut at, mut left_out) = (first, None::<(u64, u64)>);
        loop {
            let is_full = !frames.is_empty() && frames.len() >= bytes_max;
            let is_end = at == stop || is_full;
            if !is_end && self.keys.is_superseded(at) {
                let (begin, _) = left_out.unwrap_or((at, at));
                left_out = Some((begin, at));
                at += 1;
                continue;
            }
            if !is_end && self.is_excluded(at, reader) {
                at += 1;
                continue;
            }
            if let Some((first, last)) = left_out.take() {
                let gap = Gap {
                    first,
                    last,
                    reason: Reason::Superseded,
                };
                let mut text = Vec::new();
                delivery::encode_gap(&mut text, channel, self.epoch, gap);
                websocket::encode_frame(Opcode::Text, &text, &mut frames);
                gaps += 1;
            }
            if is_end {
                break;
            }
            let is_for_it = |serial: &u64| {
                !self.keys.is_superseded(*serial) && !self.is_excluded(*serial, reader)
            };
            let count = (at..stop).take_while(is_for_it).count() as u64;
            let room = bytes_max.saturating_sub(frames.len());
            let (run, next) = self.slice(at, at + count, room);
            frames.extend_from_slice(&run);
            at = next;
        }
        Chunk {
            frames: frames.into(),
            first,
            reached: at - 1,
            missed: self.evicted_behind(after),
            gaps,
            is_last: at == self.next,
            head: self.next - 1,
            since_s: self.came_s(first),
        }
    }

    fn is_excluded(&self, serial: u64, reader: Reader) -> bool {
        let place = self.excluded.partition_point(|(other, _)| *other < serial);
        let exception = self.excluded.get(place);
        exception.is_some_and(|(other, address)| *other == serial && reader.is(*address))
    }

    /// What somebody behind this serial does not get because it is not retained any more.
    fn evicted_behind(&self, after: u64) -> Option<Gap> {
        let first = after + 1;
        (first < self.tail).then(|| Gap {
            first,
            last: self.tail - 1,
            reason: Reason::Evicted,
        })
    }

    /// Frames of the events from one serial on, below another, as far as they are retained, and not
    /// many more than `bytes_max`.
    pub fn frames(&mut self, first: u64, stop: u64, bytes_max: usize) -> Vec<Bytes> {
        let stop = stop.min(self.next);
        let (mut at, mut bytes, mut runs) = (first.max(self.tail), 0, Vec::new());
        while at < stop && bytes < bytes_max {
            let (frames, next) = self.slice(at, stop, bytes_max - bytes);
            bytes += frames.len();
            runs.push(frames);
            at = next;
        }
        runs
    }

    /// Frames from one serial on, below another, and the serial behind them.
    fn slice(&mut self, first: u64, stop: u64, bytes_max: usize) -> (Bytes, u64) {
        if first >= self.open_first {
            let (run, next) = run(&self.open, self.open_first, first, stop, bytes_max);
            if run.len() <= limits::COPIED_BYTES_MAX {
                return (Bytes::copy_from_slice(&self.open[run]), next);
            }
            self.seal();
        }
        let place = self
            .segments
            .partition_point(|segment| segment.first <= first)
            - 1;
        let segment = &self.segments[place];
        let (run, next) = run(&segment.frames, segment.first, first, stop, bytes_max);
        (segment.frames.slice(run), next)
    }

    /// What grows becomes a segment.
    fn seal(&mut self) {
        self.segments.push_back(Segment {
            first: self.open_first,
            frames: self.open.split().freeze(),
        });
        self.open_first = self.next;
    }

    fn forget_before(&mut self, tail: u64) {
        self.tail = tail;
        while !self.segments.is_empty() {
            let next = self.segments.get(1).map(|segment| segment.first);
            if next.unwrap_or(self.open_first) > tail {
                break;
            }
            let segment = self.segments.pop_front();
            self.frames_bytes -= segment.expect("there is one").frames.len();
        }
        if tail == self.next && !self.open.is_empty() {
            self.frames_bytes -= self.open.len();
            self.open = BytesMut::new();
            self.open_first = tail;
        }
        while self.ages.front().is_some_and(|(next, _)| *next <= tail) {
            self.ages.pop_front();
        }
        self.keys.forget_before(tail);
        while self
            .excluded
            .front()
            .is_some_and(|(serial, _)| *serial < tail)
        {
            self.excluded.pop_front();
        }
    }

    fn serial(&self, number: u64) -> Serial {
        Serial {
            epoch: self.epoch,
            number,
        }
    }
}

/// Segments that what a channel may retain is divided into at least, and bytes of the smallest: what
/// goes at once for being too many bytes.
const SEGMENTS_LEAST: usize = 8;
const SEGMENT_BYTES_LEAST: usize = 1024;

fn after(serial: Serial) -> Serial {
    Serial {
        number: serial.number.saturating_add(1),
        ..serial
    }
}

/// Where the frames lie from serial `first` on, below `stop`, in `frames`, whose first has the
/// serial `at`; and the serial behind them.
fn run(
    frames: &[u8],
    mut at: u64,
    first: u64,
    stop: u64,
    bytes_max: usize,
) -> (std::ops::Range<usize>, u64) {
    let mut lengths = websocket::frame_lengths(frames);
    let mut start = 0;
    while at < first {
        start += lengths.next().expect("the frame is there");
        at += 1;
    }
    let mut end = start;
    for length in lengths {
        if at == stop || (end > start && end + length - start > bytes_max) {
            break;
        }
        end += length;
        at += 1;
    }
    (start..end, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::socket::Socket;
    use proptest::prelude::*;

    fn address(slot: u32) -> Address {
        Address {
            shard: 0,
            socket: Socket {
                slot,
                generation: 0,
            },
        }
    }

    fn reading(slot: u32) -> Reader {
        Reader {
            address: address(slot),
            formerly: None,
        }
    }

    fn frame(serial: u64, bytes: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let text = format!("{serial}:{}", "x".repeat(bytes));
        websocket::encode_frame(Opcode::Text, text.as_bytes(), &mut frame);
        frame
    }

    const RETENTION: Retention = Retention {
        messages_max: 1000,
        bytes_max: 1 << 20,
        age_s: 60,
        window: Window {
            age_s: 10,
            keys_max: 100,
        },
    };

    fn filled(retention: Retention, events: u64) -> Retained {
        let mut retained = Retained::new(7, retention);
        for serial in 1..=events {
            retained.append(&frame(serial, 10), None, serial as u32);
        }
        retained
    }

    #[test]
    fn one_who_comes_is_told_what_it_misses() {
        let retention = Retention {
            messages_max: 10,
            ..RETENTION
        };
        let retained = filled(retention, 30);
        let serial = |epoch, number| Serial { epoch, number };
        let begin = |begin| {
            let (position, after) = retained.begin(begin, 30)?;
            Ok((position.serial.number, position.recovery, after))
        };
        let resume = |epoch, number| begin(Begin::After(serial(epoch, number), None));
        let missed = |epoch, from, to| {
            let from = serial(epoch, from);
            Some(Recovery::Missed { from, to })
        };
        assert_eq!(begin(Begin::Head), Ok((30, None, None)));
        assert_eq!(resume(7, 30), Ok((30, Some(Recovery::Whole), None)));
        assert_eq!(resume(7, 25), Ok((25, Some(Recovery::Whole), Some(25))));
        assert_eq!(resume(7, 20), Ok((20, Some(Recovery::Whole), Some(20))));
        assert_eq!(resume(7, 19), Ok((20, missed(7, 20, Some(20)), Some(20))));
        assert_eq!(resume(8, 4), Ok((20, missed(8, 5, None), Some(20))));
        assert_eq!(resume(7, 31), Err(Unknown));
        assert_eq!(begin(Begin::Messages(3)), Ok((27, None, Some(27))));
        assert_eq!(begin(Begin::Messages(99)), Ok((20, None, Some(20))));
        assert_eq!(begin(Begin::Messages(0)), Ok((30, None, None)));
        // The events of the seconds 28, 29 and 30.
        assert_eq!(begin(Begin::Seconds(2)), Ok((27, None, Some(27))));
        assert_eq!(begin(Begin::Seconds(99)), Ok((20, None, Some(20))));
    }

    #[test]
    fn events_go_by_number_age_and_bytes() {
        let tail = |retention| filled(retention, 100).tail();
        assert_eq!(tail(RETENTION), 40, "a minute old, and one event a second");
        let messages_max = 7;
        assert_eq!(
            tail(Retention {
                messages_max,
                ..RETENTION
            }),
            94
        );
        let bytes_max = 1024;
        let retained = filled(
            Retention {
                bytes_max,
                ..RETENTION
            },
            100,
        );
        assert!(
            retained.tail() > 40 && retained.bytes() <= 1024,
            "{retained:?}"
        );
        let mut retained = filled(RETENTION, 100);
        assert_eq!(retained.over_s(), Some(101));
        retained.trim(161);
        assert!(retained.is_empty() && retained.bytes() == 0, "{retained:?}");
        assert_eq!(retained.next().number, 101);
    }

    #[test]
    fn readers_share_one_segment() {
        let mut retained = filled(RETENTION, 1);
        for serial in 2..600 {
            retained.append(&frame(serial, 200), None, 1);
        }
        let [one, other] = [(); 2].map(|()| retained.read(3, reading(1), usize::MAX).frames);
        assert_eq!(one.as_ptr(), other.as_ptr());
        // What is at the end and long enough is shared too, and stays where it is.
        let [one, other] = [(); 2].map(|()| retained.read(560, reading(1), usize::MAX).frames);
        assert_eq!(one.as_ptr(), other.as_ptr());
    }

    // Broken on purpose once by weighing keys with events: then events went for them.
    #[test]
    fn keys_are_forgotten_for_room_when_they_are_more_than_the_events() {
        let retention = Retention {
            bytes_max: 1024,
            ..RETENTION
        };
        let mut retained = Retained::new(7, retention);
        for serial in 1..=8 {
            retained.note_key(&format!("{serial}:{}", "k".repeat(190)), 100);
            retained.append(&frame(serial, 10), None, 100);
        }
        let key = |serial: u64| format!("{serial}:{}", "k".repeat(190));
        assert_eq!(
            retained.serial_of(&key(1), 100),
            Some(Serial {
                epoch: 7,
                number: 1
            })
        );
        let before = retained.bytes();
        assert_eq!(retained.forget_oldest(), Forgotten::Keys(4));
        assert!(retained.bytes() < before);
        let known = [4, 5].map(|serial| retained.serial_of(&key(serial), 100).is_some());
        assert_eq!((known, retained.tail()), ([false, true], 1));
        for _ in 0..10 {
            retained.forget_oldest();
        }
        assert_eq!((retained.bytes(), retained.knows_keys()), (0, false));
    }

    #[test]
    fn a_key_outlasts_its_event() {
        let retention = Retention {
            age_s: 1,
            ..RETENTION
        };
        let mut retained = Retained::new(7, retention);
        retained.note_key("a", 100);
        retained.append(&frame(1, 10), None, 100);
        retained.trim(103);
        assert!(retained.is_empty() && retained.knows_keys());
        assert_eq!(retained.over_s(), Some(111));
        assert_eq!(
            retained.serial_of("a", 110).map(|serial| serial.number),
            Some(1)
        );
        retained.trim(111);
        assert!(!retained.knows_keys());
    }

    #[test]
    fn the_newest_comes_behind_a_gap_that_names_all_others() {
        let mut retained = filled(RETENTION, 30);
        let gap = |first, last, reason| {
            Some(Gap {
                first,
                last,
                reason,
            })
        };
        let chunk = retained.read_newest(7, reading(1), usize::MAX);
        assert_eq!(chunk.missed, gap(8, 29, Reason::Latest));
        assert_eq!(chunk.frames, frame(30, 10));
        assert!(chunk.is_last && chunk.reached == 30);
        // Not for it.
        retained.append(&frame(31, 10), Some(address(1)), 30);
        let chunk = retained.read_newest(7, reading(1), usize::MAX);
        assert_eq!(chunk.missed, gap(8, 30, Reason::Latest));
        assert!(chunk.frames.is_empty() && chunk.is_last && chunk.reached == 31);
        // Nor for whom it has become.
        let again = Reader {
            formerly: Some(address(1)),
            ..reading(5)
        };
        assert!(retained.read(30, again, usize::MAX).frames.is_empty());
        assert!(!retained.read(30, reading(5), usize::MAX).frames.is_empty());
        // There is nothing to leave out.
        let chunk = retained.read_newest(30, reading(2), usize::MAX);
        assert_eq!((chunk.missed, chunk.reached), (None, 31));
        retained.trim(1000);
        let chunk = retained.read_newest(7, reading(1), usize::MAX);
        assert_eq!(chunk.missed, gap(8, 31, Reason::Evicted));
        assert!(chunk.frames.is_empty() && chunk.is_last);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Append { bytes: usize, excluded: Option<u32> },
        Wait(u32),
        Forget,
        Read { reader: usize, bytes_max: usize },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let excluded = prop_oneof![3 => Just(None), 1 => (0..2u32).prop_map(Some)];
        let step = prop_oneof![
            8 => (0..3000usize, excluded)
                .prop_map(|(bytes, excluded)| Step::Append { bytes, excluded }),
            1 => (0..20u32).prop_map(Step::Wait),
            1 => Just(Step::Forget),
            6 => (0..2usize, 0..20_000usize)
                .prop_map(|(reader, bytes_max)| Step::Read { reader, bytes_max }),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        /// Against a list that never forgets: two readers go through it in chunks, and each gets
        /// all that is for it, in order, but for what it is told that it misses.
        #[test]
        fn readers_get_everything_or_are_told(
            steps in steps(),
            messages_max in 1..200u64,
            bytes_max in prop_oneof![1024..9000usize, Just(1 << 20)],
        ) {
            let retention = Retention { messages_max, bytes_max, age_s: 30, ..RETENTION };
            let mut retained = Retained::new(1, retention);
            let mut all: Vec<(Vec<u8>, Option<u32>)> = Vec::new();
            let (mut now_s, mut reached) = (0, [0u64; 2]);
            for step in steps {
                match step {
                    Step::Append { bytes, excluded } => {
                        let frame = frame(retained.next().number, bytes);
                        retained.append(&frame, excluded.map(address), now_s);
                        all.push((frame, excluded));
                    }
                    Step::Wait(seconds) => {
                        now_s += seconds;
                        retained.trim(now_s);
                    }
                    Step::Forget => {
                        prop_assert_eq!(retained.forget_oldest(), Forgotten::Segment);
                    }
                    Step::Read { reader, bytes_max } => {
                        let before = reached[reader];
                        let chunk = retained.read(before, reading(reader as u32), bytes_max);
                        let from = match chunk.missed {
                            Some(Gap { first, last, reason }) => {
                                prop_assert_eq!(reason, Reason::Evicted);
                                prop_assert_eq!((first, last + 1), (before + 1, retained.tail()));
                                last
                            }
                            None => before,
                        };
                        let mut expected = Vec::new();
                        for (frame, excluded) in &all[from as usize..chunk.reached as usize] {
                            if *excluded != Some(reader as u32) {
                                expected.extend_from_slice(frame);
                            }
                        }
                        prop_assert_eq!(&chunk.frames[..], &expected[..]);
                        let count = websocket::frame_lengths(&chunk.frames).count();
                        prop_assert!(count <= 1 || chunk.frames.len() <= bytes_max);
                        prop_assert_eq!(chunk.is_last, chunk.reached == all.len() as u64);
                        prop_assert!(chunk.is_last || count > 0, "it goes on");
                        reached[reader] = chunk.reached;
                    }
                }
                let held = all.len() as u64 + 1 - retained.tail();
                prop_assert!(held <= messages_max && retained.bytes() <= bytes_max.max(1));
                prop_assert_eq!(retained.next().number, all.len() as u64 + 1);
            }
        }
    }

    proptest! {
        /// Two readers go through it in chunks: what each gets and what it is told that is left out make
        /// up all serials, but for those that it is excluded from. What is left out has a newer event with
        /// its key, and what has not comes. (Tried: fails with a gap that begins at the last that is left
        /// out, and with one that is not told at the end of a chunk.)
        #[test]
        fn the_newest_of_each_key_comes_and_the_others_are_named(
            events in prop::collection::vec((0..400usize, 0..5u32, prop::option::of(0..2u32)), 1..120),
            bytes_max in 1..3000usize,
        ) {
            let mut retained = Retained::new(1, RETENTION);
            for (bytes, key, excluded) in &events {
                if *key > 0 {
                    retained.key_next(&key.to_string());
                }
                let frame = frame(retained.next().number, *bytes);
                retained.append(&frame, excluded.map(address), 0);
            }
            for reader in 0..2 {
                let (mut after, mut next) = (0, 1);
                let is_for_it = |serial: u64| events[serial as usize - 1].2 != Some(reader);
                let is_superseded = |serial: u64| {
                    let (_, key, _) = events[serial as usize - 1];
                    key > 0 && events[serial as usize..].iter().any(|later| later.1 == key)
                };
                loop {
                    let chunk = retained.read_newest_of_keys("room", after, reading(reader), bytes_max);
                    prop_assert_eq!(chunk.missed, None);
                    let (mut rest, mut gaps) = (&chunk.frames[..], 0);
                    for length in websocket::frame_lengths(&chunk.frames) {
                        let (frame, behind) = rest.split_at(length);
                        rest = behind;
                        let text = websocket::text_of(frame);
                        let (first, last) = match text.split_once(':') {
                            Some((serial, _)) if !text.starts_with('{') => {
                                let serial = serial.parse().unwrap();
                                prop_assert!(is_for_it(serial) && !is_superseded(serial));
                                (serial, serial)
                            }
                            _ => {
                                gaps += 1;
                                let value: serde_json::Value = serde_json::from_str(text).unwrap();
                                let data = value["data"].as_str().unwrap();
                                let data: serde_json::Value = serde_json::from_str(data).unwrap();
                                prop_assert_eq!(&data["reason"], "superseded");
                                let serial = |name: &str| data[name].as_u64().unwrap();
                                let (from, to) = (serial("from"), serial("to"));
                                let left_out = |serial| is_superseded(serial) || !is_for_it(serial);
                                prop_assert!(is_superseded(from) && is_superseded(to));
                                prop_assert!((from..=to).all(left_out));
                                (from, to)
                            }
                        };
                        while next < first && !is_for_it(next) {
                            next += 1;
                        }
                        prop_assert_eq!(next, first);
                        next = last + 1;
                    }
                    prop_assert_eq!(gaps, chunk.gaps);
                    prop_assert!(chunk.reached > after);
                    after = chunk.reached;
                    if chunk.is_last {
                        break;
                    }
                }
                prop_assert_eq!(after, events.len() as u64);
                prop_assert!((next..=after).all(|serial| !is_for_it(serial)));
            }
        }
    }
}
