//! JSON as it comes in: the body of a publish, and the messages of clients.

use outpour::wire::api::EventLimits;

pub const LIMITS: EventLimits = EventLimits {
    data_bytes_max: 10_240,
    channels_per_event_max: 100,
    batch_events_max: 10,
    channel_name_bytes_max: 200,
    event_name_characters_max: 200,
};

pub const PUBLISH: &str = r#"{"name":"message","channels":["room-12345"],"data":"{\"text\":\"hello\",\"number\":12345}"}"#;
pub const SUBSCRIBE: &str =
    r#"{"event":"pusher:subscribe","data":{"channel":"room-12345","auth":""}}"#;
pub const CLIENT_EVENT: &str =
    r#"{"event":"client-typing","channel":"private-room","data":{"is":true}}"#;
