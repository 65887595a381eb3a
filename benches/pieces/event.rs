//! An event on its way out.

use outpour::hub::letter::{Event, Origin};

/// `data` is a token of JSON, with its quotes.
pub fn event(data: &str) -> Event<'_> {
    Event {
        app: 0,
        origin: Origin::Api,
        channel: "room-12345",
        name: "\"message\"",
        data,
        key: "",
        user_id: "",
        idempotency_key: "",
        excluded: None,
        serial: None,
    }
}

pub fn data(data_bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(data_bytes))
}
