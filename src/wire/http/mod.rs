//! HTTP/1.1 as a server speaks it: bytes become requests, answers become bytes.
//!
//! Nothing here owns a byte of the connection. The caller shows what has arrived and not been
//! consumed; [`parse`] lends a [`Request`] out of those very bytes, or says what to keep until more
//! arrives. A request that came in one piece costs no allocation and no copy. Of one that came in
//! many pieces each byte is looked at a bounded number of times, because the connection keeps a
//! [`Progress`] of a few words between the calls.
//!
//! Invariants:
//! - Where one request ends and the next begins is never a matter of opinion: a head that two
//!   readers could take for two different lengths is refused (RFC 9112 section 11.2), and a refusal
//!   always closes the connection.
//! - A limit is applied to what the peer announces, before the memory for it is taken.
//! - What a request means does not depend on how the network cut it.
//!
//! A shard calls [`parse`] and [`encode_response`]; the hub's API reads paths and queries.

mod body;
mod head;
mod query;
mod refusal;
mod request;
mod response;

pub use query::{percent_decode, query_pairs};
pub use refusal::Refusal;
pub use request::{HEADERS_MAX, Limits, Parsed, Persistence, Progress, Request, parse};
pub use response::{
    Body, CONTINUE, encode_chunk, encode_last_chunk, encode_refusal, encode_response,
};
