//! Who is furthest behind: `GET /laggards?limit=&by=&channel=`, an extension. An answer is JSON, the
//! worst first:
//!
//! ```text
//! {"laggards":[{"socket_id":"1.2","channel":"room","messages":812,"bytes":141288,"ms":9300,
//!  "state":"blocked"},..]}
//! ```
//!
//! `bytes` is null of one who catches up from what is retained.

use std::borrow::Cow;

use super::refusal::ApiError;
use crate::base::lag::{Lag, LagState};
use crate::base::worst::Badness;
use crate::wire::http;
use crate::wire::json;
use crate::wire::pusher::SocketId;

/// Whom an answer is to tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    pub limit: u16,
    pub by: Measure,
}

/// What makes one lag worse than another; where it is the same, the time does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Messages,
    Bytes,
    Time,
}

impl Measure {
    pub fn badness(self, lag: &Lag) -> Badness {
        let first = match self {
            Measure::Messages => lag.messages,
            Measure::Bytes => lag.bytes.unwrap_or(0),
            Measure::Time => lag.ms,
        };
        (first, lag.ms)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laggard {
    pub socket_id: SocketId,
    pub channel: Box<str>,
    pub lag: Lag,
    pub state: LagState,
}

/// Laggards in one answer, and if nobody says how many.
const LAGGARDS_MAX: u16 = 1000;
const LAGGARDS: u16 = 20;

impl Search {
    /// The search, and what the names of channels are to begin with.
    pub(super) fn parse(query: Option<&str>) -> Result<(Search, Option<Cow<'_, str>>), ApiError> {
        let mut search = Search {
            limit: LAGGARDS,
            by: Measure::Messages,
        };
        let mut prefix = None;
        for (name, value) in http::query_pairs(query.unwrap_or("")) {
            match (&*name, &*value, value.parse().ok()) {
                ("limit", _, Some(limit)) if (1..=LAGGARDS_MAX).contains(&limit) => {
                    search.limit = limit;
                }
                ("by", "messages", _) => search.by = Measure::Messages,
                ("by", "bytes", _) => search.by = Measure::Bytes,
                ("by", "time", _) => search.by = Measure::Time,
                ("limit" | "by", ..) => {
                    return Err(ApiError::bad_request(format!(
                        "{name} cannot be {value:?}: limit is 1 to {LAGGARDS_MAX}, by is messages, \
                         bytes or time"
                    )));
                }
                ("channel", ..) => prefix = Some(value),
                _ => {}
            }
        }
        Ok((search, prefix))
    }
}

/// Appends the answer.
pub fn encode_laggards<'a>(out: &mut Vec<u8>, laggards: impl IntoIterator<Item = &'a Laggard>) {
    out.extend_from_slice(br#"{"laggards":["#);
    let mut separator = "";
    for laggard in laggards {
        let Laggard {
            socket_id,
            channel,
            lag,
            state,
        } = laggard;
        let Lag {
            messages,
            bytes,
            ms,
        } = lag;
        let bytes = bytes.map_or("null".to_owned(), |bytes| bytes.to_string());
        let state = state.name();
        let channel = json::RawString::encode(channel);
        let channel = channel.token();
        let entry = format!(
            r#"{separator}{{"socket_id":"{socket_id}","channel":{channel},"messages":{messages},"bytes":{bytes},"ms":{ms},"state":"{state}"}}"#
        );
        out.extend_from_slice(entry.as_bytes());
        separator = ",";
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_search_is_read_strictly() {
        let search = |limit, by| Search { limit, by };
        for (query, expected, prefix) in [
            ("", search(20, Measure::Messages), None),
            (
                "auth_key=k&limit=1000&by=bytes",
                search(1000, Measure::Bytes),
                None,
            ),
            (
                "by=time&channel=room-%31",
                search(20, Measure::Time),
                Some("room-1"),
            ),
            (
                "by=messages&channel=",
                search(20, Measure::Messages),
                Some(""),
            ),
        ] {
            let (found, named) = Search::parse(Some(query)).unwrap();
            assert_eq!((found, named.as_deref()), (expected, prefix), "{query}");
        }
        for query in ["limit=0", "limit=1001", "limit=x", "by=age", "by="] {
            let error = Search::parse(Some(query)).unwrap_err();
            assert_eq!(error.status, 400, "{query}");
        }
    }

    #[test]
    fn laggards_are_json() {
        let laggard = |bytes, state| Laggard {
            socket_id: SocketId {
                first: 1,
                second: 2,
            },
            channel: "room".into(),
            lag: Lag {
                messages: 3,
                bytes,
                ms: 4,
            },
            state,
        };
        let encoded = |laggards: &[Laggard]| {
            let mut out = Vec::new();
            encode_laggards(&mut out, laggards);
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        assert_eq!(encoded(&[]), json!({"laggards": []}));
        let laggards = [
            laggard(Some(5), LagState::Blocked),
            laggard(None, LagState::CatchingUp),
        ];
        let entry = |bytes, state| {
            json!({"socket_id": "1.2", "channel": "room", "messages": 3, "bytes": bytes, "ms": 4,
                "state": state})
        };
        assert_eq!(
            encoded(&laggards),
            json!({"laggards": [entry(json!(5), "blocked"), entry(Value::Null, "catching_up")]})
        );
    }

    #[test]
    fn each_measure_has_its_own_worst() {
        let lag = Lag {
            messages: 1,
            bytes: Some(2),
            ms: 3,
        };
        assert_eq!(Measure::Messages.badness(&lag), (1, 3));
        assert_eq!(Measure::Bytes.badness(&lag), (2, 3));
        assert_eq!(Measure::Time.badness(&lag), (3, 3));
        let unknown = Lag { bytes: None, ..lag };
        assert_eq!(Measure::Bytes.badness(&unknown), (0, 3));
    }
}
