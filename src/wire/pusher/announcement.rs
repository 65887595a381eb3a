//! What the server itself tells the subscribers of a channel, besides its members: each is an event
//! of a name token and a data token, for [`encode_event_tokens`](super::encode_event_tokens).
//!
//! Source: Pusher Channels documentation, "Cache channels" and "Subscription count events".

/// Follows the acknowledgement of a subscription to a cache channel that holds nothing. It has no
/// data: the token is empty.
pub const CACHE_MISS: &str = r#""pusher:cache_miss""#;

/// Tells how many connections are subscribed; see [`subscription_count_data`].
pub const SUBSCRIPTION_COUNT: &str = r#""pusher_internal:subscription_count""#;

/// The `data` token of [`SUBSCRIPTION_COUNT`].
pub fn subscription_count_data(count: u64) -> String {
    format!(r#""{{\"subscription_count\":{count}}}""#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pusher::encode_event_tokens;

    #[test]
    fn announcements_are_those_of_the_documentation() {
        let data = subscription_count_data(2);
        for (name, data, expected) in [
            (
                CACHE_MISS,
                "",
                r#"{"event":"pusher:cache_miss","channel":"cache-a"}"#,
            ),
            (
                SUBSCRIPTION_COUNT,
                &data,
                concat!(
                    r#"{"event":"pusher_internal:subscription_count","channel":"cache-a","#,
                    r#""data":"{\"subscription_count\":2}"}"#,
                ),
            ),
        ] {
            let mut frame = Vec::new();
            encode_event_tokens(&mut frame, name, "cache-a", data);
            assert_eq!(str::from_utf8(&frame).unwrap(), expected);
        }
    }
}
