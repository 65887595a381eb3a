//! The HTTP API: calls as they come, and the bodies of their answers.
//!
//! | file | reason |
//! |---|---|
//! | `publish` | the bodies of publishing calls |
//! | `refusal` | the answer to a call that is wrong |

mod publish;
mod refusal;

pub use publish::{ChannelNames, Event, EventLimits, parse_batch, parse_event};
pub use refusal::ApiError;
