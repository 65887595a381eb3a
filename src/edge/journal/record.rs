//! One record of the journal, as bytes. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the body |
//! | 4 | CRC-32C of the length and of everything behind this field |
//! | 8 | sequence: the record's number in the journal |
//! | 4 | place: how many records stand before it in the group it was written with |
//! | 1 | kind |
//! | length | body |
//!
//! The body of an event: epoch (8), serial (8), time in milliseconds since 1970 (8), origin (1), the
//! lengths of five texts (2 each) and of the data (4); then the texts: app id, channel, name,
//! user id, idempotency key, data. Name, user id and data are JSON tokens as they came. The frame is
//! not kept: there are several forms of it, and encoding costs less than reading it would.
//!
//! The place tells a torn write from damage: a group is written only after the one before it is
//! synced, so whatever stands before a group that is there was whole once.

use crate::hub::letter::Origin;

/// Bytes before the body.
pub const HEAD_BYTES: usize = 21;

/// A record, whose texts lie in the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub sequence: u64,
    pub place: u32,
    pub content: Content<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    Event(Entry<'a>),
    /// A repair found the records from this one on lost; `next` is the first that follows. If that
    /// is this one's own sequence, none are missing here, but events of some channel are.
    Lost {
        next: u64,
    },
    /// The server ended in order: everything before is whole.
    End,
}

/// An event in its channel's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub app_id: &'a str,
    pub channel: &'a str,
    pub epoch: u64,
    pub serial: u64,
    pub time_ms: u64,
    pub origin: Origin,
    pub name: &'a str,
    /// Empty if there is none, as the next two. The key is the one under which it may be repeated.
    pub data: &'a str,
    pub user_id: &'a str,
    pub idempotency_key: &'a str,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They end before it does.
    Short,
    Checksum,
    /// The checksum is right, but the content is of no kind that this version knows.
    Unknown,
}

const EVENT: u8 = 1;
const LOST: u8 = 2;
const END: u8 = 3;

/// Bytes of an event's body before its texts.
const EVENT_BYTES: usize = 3 * 8 + 1 + 5 * 2 + 4;

impl<'a> Record<'a> {
    /// The sequence of the first record of its group.
    pub fn group(&self) -> u64 {
        self.sequence.saturating_sub(u64::from(self.place))
    }

    /// The sequence of the record behind this one.
    pub fn next(&self) -> u64 {
        match self.content {
            Content::Event(_) | Content::End => self.sequence + 1,
            Content::Lost { next } => next,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.place.to_le_bytes());
        match &self.content {
            Content::Event(entry) => {
                out.push(EVENT);
                entry.encode(out);
            }
            Content::Lost { next } => {
                out.push(LOST);
                out.extend_from_slice(&next.to_le_bytes());
            }
            Content::End => out.push(END),
        }
        let length = out.len() - start - HEAD_BYTES;
        let length = u32::try_from(length).expect("requests are held to less");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The record that `bytes` begin with, and its length.
    pub fn decode(bytes: &'a [u8]) -> Result<(Record<'a>, usize), Fault> {
        let head = Head::read(bytes).ok_or(Fault::Short)?;
        let all = bytes.get(..head.record_bytes).ok_or(Fault::Short)?;
        if checksum(all) != head.checksum {
            return Err(Fault::Checksum);
        }
        let content = Content::decode(head.kind, &all[HEAD_BYTES..]).ok_or(Fault::Unknown)?;
        let record = Record {
            sequence: head.sequence,
            place: head.place,
            content,
        };
        // A repair's record does not lead back, and nothing is the first of a group before the first.
        let is_sound =
            record.next() >= record.sequence && u64::from(record.place) <= record.sequence;
        match is_sound {
            true => Ok((record, head.record_bytes)),
            false => Err(Fault::Unknown),
        }
    }
}

/// What stands before the body, not yet checked.
pub struct Head {
    pub sequence: u64,
    pub place: u32,
    record_bytes: usize,
    checksum: u32,
    kind: u8,
}

impl Head {
    pub fn read(bytes: &[u8]) -> Option<Head> {
        let mut fields = Fields(bytes);
        let length = fields.u32()?;
        Some(Head {
            record_bytes: HEAD_BYTES + length as usize,
            checksum: fields.u32()?,
            sequence: fields.u64()?,
            place: fields.u32()?,
            kind: fields.u8()?,
        })
    }
}

/// Of a whole record, its own field left out.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

impl<'a> Content<'a> {
    fn decode(kind: u8, body: &'a [u8]) -> Option<Content<'a>> {
        match kind {
            EVENT => Entry::decode(body).map(Content::Event),
            LOST => Some(Content::Lost {
                next: u64::from_le_bytes(body.try_into().ok()?),
            }),
            END if body.is_empty() => Some(Content::End),
            _ => None,
        }
    }
}

impl<'a> Entry<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.epoch, self.serial, self.time_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(match self.origin {
            Origin::Api => 0,
            Origin::Client => 1,
            Origin::Server => 2,
            Origin::Message => 3,
        });
        let texts = self.short_texts();
        for text in texts {
            let length = u16::try_from(text.len()).expect("names were held to a limit");
            out.extend_from_slice(&length.to_le_bytes());
        }
        let length = u32::try_from(self.data.len()).expect("requests are held to less");
        out.extend_from_slice(&length.to_le_bytes());
        for text in texts.into_iter().chain([self.data]) {
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn decode(body: &'a [u8]) -> Option<Entry<'a>> {
        let mut fields = Fields(body);
        let (epoch, serial, time_ms) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let origin = match fields.u8()? {
            0 => Origin::Api,
            1 => Origin::Client,
            2 => Origin::Server,
            3 => Origin::Message,
            _ => return None,
        };
        let mut lengths = [0; 5];
        for length in &mut lengths {
            *length = usize::from(fields.u16()?);
        }
        let data_bytes = fields.u32()? as usize;
        // One check of the whole is twice as fast as one of each text; cutting checks the bounds.
        let mut text = std::str::from_utf8(&body[EVENT_BYTES..]).ok()?;
        let mut cut = |length: usize| {
            let (text_before, rest) = text.split_at_checked(length)?;
            text = rest;
            Some(text_before)
        };
        let entry = Entry {
            app_id: cut(lengths[0])?,
            channel: cut(lengths[1])?,
            epoch,
            serial,
            time_ms,
            origin,
            name: cut(lengths[2])?,
            user_id: cut(lengths[3])?,
            idempotency_key: cut(lengths[4])?,
            data: cut(data_bytes)?,
        };
        text.is_empty().then_some(entry)
    }

    fn short_texts(&self) -> [&'a str; 5] {
        [
            self.app_id,
            self.channel,
            self.name,
            self.user_id,
            self.idempotency_key,
        ]
    }
}

/// Numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    }

    const RECORD: Record<'_> = Record {
        sequence: 0x0102_0304,
        place: 5,
        content: Content::Event(Entry {
            app_id: "app",
            channel: "r",
            epoch: 6,
            serial: 7,
            time_ms: 8,
            origin: Origin::Client,
            name: r#""n""#,
            data: "{}",
            user_id: "",
            idempotency_key: "k",
        }),
    };

    /// Journals are read by later versions: the bytes stay what they are.
    #[test]
    fn the_bytes_are_those_of_the_table() {
        let bytes = encoded(&RECORD);
        let mut expected = vec![49, 0, 0, 0];
        expected.extend_from_slice(&bytes[4..8]);
        expected.extend_from_slice(&[4, 3, 2, 1, 0, 0, 0, 0, 5, 0, 0, 0, 1]);
        expected.extend_from_slice(&[6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend_from_slice(&[3, 0, 1, 0, 3, 0, 0, 0, 1, 0, 2, 0, 0, 0]);
        expected.extend_from_slice(b"appr\"n\"k{}");
        assert_eq!(bytes, expected);
        // The value that RFC 3720, B.4, gives for 32 zeros.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn what_cannot_be_is_unknown_although_its_checksum_is_right() {
        let lost = |sequence, next| Record {
            sequence,
            place: 0,
            content: Content::Lost { next },
        };
        assert!(Record::decode(&encoded(&lost(4, 4))).is_ok());
        assert_eq!(Record::decode(&encoded(&lost(4, 3))), Err(Fault::Unknown));
        let ahead = Record {
            sequence: 4,
            ..RECORD
        };
        assert_eq!(Record::decode(&encoded(&ahead)), Err(Fault::Unknown));
        let mut other = encoded(&RECORD);
        other[HEAD_BYTES - 1] = 9;
        let checksum = checksum(&other).to_le_bytes();
        other[4..8].copy_from_slice(&checksum);
        assert_eq!(Record::decode(&other), Err(Fault::Unknown));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            (sequence, place, epoch, serial, time_ms) in any::<(u64, u32, u64, u64, u64)>(),
            texts in prop::array::uniform6("\\PC{0,20}"),
            origin in prop::sample::select(&[Origin::Api, Origin::Client, Origin::Server, Origin::Message]),
            behind in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let [app_id, channel, name, data, user_id, idempotency_key] = texts.each_ref().map(|text| &**text);
            let entry = Entry { app_id, channel, epoch, serial, time_ms, origin, name, data, user_id, idempotency_key };
            let sequence = (sequence >> 1).max(u64::from(place));
            let record = Record { sequence, place, content: Content::Event(entry) };
            let mut bytes = encoded(&record);
            let length = bytes.len();
            bytes.extend_from_slice(&behind);
            prop_assert_eq!(Record::decode(&bytes), Ok((record, length)));
        }

        /// CRC-32C finds every change of fewer than four bits in a record of this size.
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..8 * 70_usize) {
            let mut bytes = encoded(&RECORD);
            prop_assert_eq!(bytes.len(), 70);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), kind in 0..5_u8) {
            prop_assert!(Record::decode(&bytes).is_err());
            prop_assert!(Content::decode(kind, &bytes).is_none() || kind != 0);
        }
    }
}
