//! Pages of a channel's retained events: `GET /channels/C/events?from=&limit=&direction=&wait_ms=`, an
//! extension. A page is JSON:
//!
//! ```text
//! {"epoch":"00c0ffee00c0ffee","events":[{"event":..,"channel":..,"data":..,"serial":41},..],
//!  "next":42,"tail":1,"head":41}
//! ```
//!
//! Events stand there as subscribers get them. `next` is the `from` of the page that follows in the
//! same direction: forward there is always one, for events to come; backward it is null behind the
//! oldest event. Whoever asks for events that are not retained any more gets what follows them,
//! and `"missed":{"from":..,"to":..}`. Whoever says how long it waits is answered when there is an
//! event from `from` on, or with a page without events when that time is over.

use super::refusal::ApiError;
use crate::wire::http;

/// Which events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The serial to begin with; else the oldest, or backward the newest.
    pub from: Option<u64>,
    pub limit: u64,
    pub is_backward: bool,
    /// How long to wait for the first event, if there is none; 0 not to wait.
    pub wait_ms: u64,
}

/// What a page says besides its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFacts {
    pub epoch: u64,
    pub next: Option<u64>,
    pub tail: u64,
    pub head: u64,
    pub missed: Option<(u64, u64)>,
}

/// Events on a page, and if nobody says how many.
pub const PAGE_EVENTS_MAX: u64 = 1000;
const PAGE_EVENTS: u64 = 100;

/// How long one may wait for the first event of a page: less than proxies let a connection be silent,
/// as they commonly are set.
pub const PAGE_WAIT_MS_MAX: u64 = 55_000;

/// Bytes of events after which a page has no further one.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// Whether a GET of a channel's events asks for a page of them, and not for a stream.
pub fn asks_for_page(query: Option<&str>, accept: Option<&[u8]>) -> bool {
    let mut pairs = http::query_pairs(query.unwrap_or(""));
    pairs.any(|(name, _)| matches!(&*name, "from" | "limit" | "direction" | "wait_ms"))
        || accept
            .and_then(|accept| std::str::from_utf8(accept).ok())
            .is_some_and(|accept| accept.contains("application/json"))
}

impl Page {
    pub(super) fn parse(query: Option<&str>) -> Result<Page, ApiError> {
        let mut page = Page {
            from: None,
            limit: PAGE_EVENTS,
            is_backward: false,
            wait_ms: 0,
        };
        for (name, value) in http::query_pairs(query.unwrap_or("")) {
            let number = value.parse().ok();
            match (&*name, &*value, number) {
                ("from", _, Some(from)) if from > 0 => page.from = Some(from),
                ("limit", _, Some(limit)) if (1..=PAGE_EVENTS_MAX).contains(&limit) => {
                    page.limit = limit;
                }
                ("direction", "forward", _) => page.is_backward = false,
                ("direction", "backward", _) => page.is_backward = true,
                ("wait_ms", _, Some(wait_ms)) if wait_ms <= PAGE_WAIT_MS_MAX => {
                    page.wait_ms = wait_ms;
                }
                ("from" | "limit" | "direction" | "wait_ms", ..) => {
                    return Err(ApiError::bad_request(format!(
                        "{name} cannot be {value:?}: from is a serial, limit is 1 to \
                         {PAGE_EVENTS_MAX}, direction is forward or backward, wait_ms is at most \
                         {PAGE_WAIT_MS_MAX}"
                    )));
                }
                _ => {}
            }
        }
        if page.is_backward && page.wait_ms > 0 {
            return Err(ApiError::bad_request(
                "Whoever waits for events goes forward: wait_ms and direction=backward exclude each \
                 other",
            ));
        }
        Ok(page)
    }
}

/// Appends a page of events, which are JSON objects.
pub fn encode_page<'a>(
    out: &mut Vec<u8>,
    facts: &PageFacts,
    events: impl IntoIterator<Item = &'a str>,
) {
    out.extend_from_slice(format!(r#"{{"epoch":"{:016x}","events":["#, facts.epoch).as_bytes());
    let mut separator = "";
    for event in events {
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(event.as_bytes());
        separator = ",";
    }
    let next = facts
        .next
        .map_or("null".to_string(), |next| next.to_string());
    let PageFacts { tail, head, .. } = facts;
    out.extend_from_slice(format!(r#"],"next":{next},"tail":{tail},"head":{head}"#).as_bytes());
    if let Some((from, to)) = facts.missed {
        out.extend_from_slice(format!(r#","missed":{{"from":{from},"to":{to}}}"#).as_bytes());
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_page_is_asked_for_by_its_parameters_or_as_json() {
        assert!(asks_for_page(Some("auth_key=k&from=3"), None));
        assert!(asks_for_page(Some("limit=3"), Some(b"text/event-stream")));
        assert!(asks_for_page(None, Some(b"application/json")));
        assert!(!asks_for_page(
            Some("auth_key=k"),
            Some(b"text/event-stream")
        ));
        assert!(!asks_for_page(None, None));
    }

    #[test]
    fn pages_are_read_strictly() {
        let page = |from, limit, is_backward| Page {
            from,
            limit,
            is_backward,
            wait_ms: 0,
        };
        let waiting = Page {
            wait_ms: 20_000,
            ..page(Some(7), 100, false)
        };
        for (query, expected) in [
            ("from=7&wait_ms=20000", waiting),
            ("", page(None, 100, false)),
            ("auth_key=k&from=7&limit=1000", page(Some(7), 1000, false)),
            ("direction=backward", page(None, 100, true)),
            ("direction=forward", page(None, 100, false)),
        ] {
            assert_eq!(Page::parse(Some(query)), Ok(expected), "{query}");
        }
        for query in [
            "from=0",
            "from=x",
            "limit=0",
            "limit=1001",
            "direction=up",
            "wait_ms=55001",
            "wait_ms=-1",
            "direction=backward&wait_ms=1",
        ] {
            assert_eq!(Page::parse(Some(query)).unwrap_err().status, 400, "{query}");
        }
    }

    #[test]
    fn a_page_is_json() {
        let mut facts = PageFacts {
            epoch: 255,
            next: Some(3),
            tail: 1,
            head: 2,
            missed: None,
        };
        let encoded = |facts: &PageFacts, events: &[&str]| {
            let mut out = Vec::new();
            encode_page(&mut out, facts, events.iter().copied());
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        let mut expected = json!({
            "epoch": "00000000000000ff", "events": [{"serial": 1}, {"serial": 2}],
            "next": 3, "tail": 1, "head": 2,
        });
        assert_eq!(
            encoded(&facts, &[r#"{"serial":1}"#, r#"{"serial":2}"#]),
            expected
        );
        (facts.next, facts.missed) = (None, Some((1, 4)));
        expected["events"] = json!([]);
        expected["next"] = Value::Null;
        expected["missed"] = json!({"from": 1, "to": 4});
        assert_eq!(encoded(&facts, &[]), expected);
    }
}
