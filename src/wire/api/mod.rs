//! The HTTP API: calls as they come, and the bodies of their answers.
//!
//! | file | reason |
//! |---|---|
//! | `endpoint` | which call a method and a path make |
//! | `call` | the call, with its query and its body read and checked |
//! | `history` | pages of retained events |
//! | `idempotency` | the key under which a publish may be repeated |
//! | `laggards` | who is furthest behind |
//! | `publish` | the bodies of publishing calls |
//! | `attributes` | what an answer tells of a channel |
//! | `answer` | the bodies of answers |
//! | `refusal` | the answer to a call that is wrong |
//!
//! A request is first given to [`Endpoint::find`], which needs nothing but its line (404, 405); then
//! its signature is checked (401); then [`Call::parse`] reads it whole (400, 413).

mod answer;
mod attributes;
mod call;
mod endpoint;
mod history;
mod idempotency;
mod laggards;
mod publish;
mod refusal;

pub use answer::{
    Cached, Facts, MemoryUse, channel_list, encode_accept_traffic, encode_accepted,
    encode_batch_answer, encode_channel, encode_event_answer, encode_usage, encode_users,
    refusal_body, write_channel_entry,
};
pub use attributes::Attributes;
pub use call::{Call, PublishForm};
pub use endpoint::{Endpoint, NoEndpoint, StatusPage};
pub use history::{PAGE_BYTES_MAX, Page, PageFacts, asks_for_page, encode_page};
pub use laggards::{Laggard, Measure, Search, encode_laggards};
pub use publish::{
    ChannelNames, Event, EventLimits, parse_batch, parse_channel_event, parse_event,
};
pub use refusal::ApiError;
