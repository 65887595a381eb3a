//! Events that an app wants to see before they are published: the question, and the answer.
//!
//! The question is a POST with a JSON object: `app_id`, `channel`, `event`, `data` as it was
//! published, and `socket_id` if the publisher named one or is one. The answer has status 2xx and a
//! JSON object with an `action`: `pass`, `drop`, or `replace` with new `data` and, if it is to
//! change, a new `event`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::letter::Origin;
use crate::options::HookOptions;
use crate::options::webhooks::OnFailure;
use crate::wire::api::EventLimits;
use crate::wire::channel;
use crate::wire::json::{self, RawString, write_string};
use crate::wire::pusher::SocketId;

/// Which events an app's hook sees.
#[derive(Clone, Debug)]
pub struct Hook {
    channels: Vec<String>,
    events: Vec<String>,
    on_failure: OnFailure,
}

/// A question, from a channel's home to the edge thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consult {
    /// Names the question to whoever asked.
    pub ticket: u64,
    pub app: u16,
    pub origin: Origin,
    pub channel: Box<str>,
    /// The name, as a JSON token.
    pub event: Box<str>,
    /// A JSON token, empty if there is none.
    pub data: Box<str>,
    pub socket_id: Option<SocketId>,
}

/// The answer to the question with this ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub ticket: u64,
    pub action: Action,
}

/// What is to be done with an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Publish,
    /// Publish it with this name, if there is one, and these data: JSON tokens.
    Replace {
        event: Option<Box<str>>,
        data: Box<str>,
    },
    /// Publish nothing; whoever published it is told of success.
    Drop,
    /// Publish nothing; whoever published it may try again.
    Refuse,
}

impl Hook {
    pub fn new(options: &HookOptions) -> Hook {
        Hook {
            channels: options.channel_name_starts_with.clone(),
            events: options.event_name_starts_with.clone(),
            on_failure: options.on_failure,
        }
    }

    pub fn takes_channel(&self, name: &str) -> bool {
        begins_with_any(&self.channels, name)
    }

    /// Whether it sees events with this name, a JSON token.
    pub fn takes_event(&self, token: &str) -> bool {
        let name = serde_json::from_str::<Cow<'_, str>>(token);
        name.is_ok_and(|name| begins_with_any(&self.events, &name))
    }

    /// What is done with an event for which there is no answer.
    pub fn without_answer(&self) -> Action {
        match self.on_failure {
            OnFailure::Publish => Action::Publish,
            OnFailure::Refuse => Action::Refuse,
        }
    }
}

fn begins_with_any(texts: &[String], name: &str) -> bool {
    texts.is_empty() || texts.iter().any(|text| name.starts_with(text))
}

impl Consult {
    pub fn encode(&self, app_id: &str) -> Vec<u8> {
        let mut out = b"{\"app_id\":".to_vec();
        write_string(app_id, &mut out);
        out.extend_from_slice(b",\"channel\":");
        write_string(&self.channel, &mut out);
        out.extend_from_slice(b",\"event\":");
        out.extend_from_slice(self.event.as_bytes());
        if !self.data.is_empty() {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(self.data.as_bytes());
        }
        if let Some(socket_id) = self.socket_id {
            out.extend_from_slice(format!(",\"socket_id\":\"{socket_id}\"").as_bytes());
        }
        out.push(b'}');
        out
    }

    /// What the answer says; nothing if it says nothing that can be done.
    pub fn read_answer(&self, body: &[u8], limits: &EventLimits) -> Option<Action> {
        let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
        match &*answer.action {
            "pass" => Some(Action::Publish),
            "drop" => Some(Action::Drop),
            "replace" => Some(Action::Replace {
                event: match answer.event {
                    Some(event) => Some(new_name(&event, limits)?),
                    None => None,
                },
                data: self.new_data(answer.data?, limits)?,
            }),
            _ => None,
        }
    }

    fn new_data(&self, data: &RawValue, limits: &EventLimits) -> Option<Box<str>> {
        if json::has_lone_surrogate(data.get()) {
            return None;
        }
        let length = match RawString::from_value(data) {
            Ok(text) => text.decoded_length(),
            Err(_) => data.get().len(),
        };
        if length > limits.data_bytes_max {
            return None;
        }
        let is_text = data.get().starts_with('"');
        match self.origin {
            // A back end's data are text, and its clients read them as such.
            Origin::Api if !is_text => Some(RawString::encode(data.get()).token().into()),
            Origin::Api | Origin::Client | Origin::Server | Origin::Message => {
                Some(data.get().into())
            }
        }
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    event: Option<RawString<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

fn new_name(event: &RawString<'_>, limits: &EventLimits) -> Option<Box<str>> {
    let name = event.decoded();
    let checked = channel::check_event_name(&name, limits.event_name_characters_max);
    checked.is_ok().then(|| event.token().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: EventLimits = EventLimits {
        data_bytes_max: 20,
        channels_per_event_max: 1,
        batch_events_max: 1,
        channel_name_bytes_max: 10,
        event_name_characters_max: 10,
    };

    fn consult(origin: Origin) -> Consult {
        Consult {
            ticket: 1,
            app: 0,
            origin,
            channel: "a\"b".into(),
            event: r#""said""#.into(),
            data: r#""{}""#.into(),
            socket_id: Some(SocketId {
                first: 1,
                second: 2,
            }),
        }
    }

    #[test]
    fn the_question_holds_the_event_as_it_was_published() {
        assert_eq!(
            String::from_utf8(consult(Origin::Api).encode("7")).unwrap(),
            r#"{"app_id":"7","channel":"a\"b","event":"said","data":"{}","socket_id":"1.2"}"#
        );
        let bare = Consult {
            data: "".into(),
            socket_id: None,
            ..consult(Origin::Api)
        };
        assert_eq!(
            String::from_utf8(bare.encode("7")).unwrap(),
            r#"{"app_id":"7","channel":"a\"b","event":"said"}"#
        );
    }

    fn answered(origin: Origin, body: &str) -> Option<Action> {
        consult(origin).read_answer(body.as_bytes(), &LIMITS)
    }

    #[test]
    fn an_answer_that_cannot_be_done_is_none() {
        let action = |body| answered(Origin::Api, body);
        assert_eq!(
            action(r#"{"action":"pass","more":1}"#),
            Some(Action::Publish)
        );
        assert_eq!(action(r#"{"action":"drop"}"#), Some(Action::Drop));
        for body in [
            "",
            "[]",
            r#"{"action":"other"}"#,
            r#"{"action":"replace"}"#,
            r#"{"action":"replace","data":"123456789012345678901"}"#,
            r#"{"action":"replace","data":"\ud800"}"#,
            r#"{"action":"replace","data":"a","event":""}"#,
            r#"{"action":"replace","data":"a","event":"12345678901"}"#,
            r#"{"action":"replace","data":"a","event":7}"#,
        ] {
            assert_eq!(action(body), None, "{body}");
        }
    }

    #[test]
    fn data_of_a_back_end_stay_text_and_those_of_a_client_what_they_are() {
        let replaced = |data: &str| {
            Some(Action::Replace {
                event: Some(r#""new""#.into()),
                data: data.into(),
            })
        };
        let body = r#"{"action":"replace","data":{"a":"b"},"event":"new"}"#;
        assert_eq!(answered(Origin::Api, body), replaced(r#""{\"a\":\"b\"}""#));
        assert_eq!(answered(Origin::Client, body), replaced(r#"{"a":"b"}"#));
        let body = r#"{"action":"replace","data":"text","event":"new"}"#;
        assert_eq!(answered(Origin::Api, body), replaced(r#""text""#));
    }

    #[test]
    fn a_hook_sees_what_begins_as_it_says() {
        let hook = Hook::new(&HookOptions {
            channel_name_starts_with: vec!["private-".into(), "chat".into()],
            event_name_starts_with: vec!["ä".into()],
            ..HookOptions::default()
        });
        assert!(hook.takes_channel("chat-1") && !hook.takes_channel("public"));
        assert!(hook.takes_event(r#""\u00e4b""#) && !hook.takes_event(r#""b""#));
        let every = Hook::new(&HookOptions::default());
        assert!(every.takes_channel("a") && every.takes_event(r#""b""#));
    }
}
