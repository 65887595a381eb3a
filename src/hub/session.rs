//! One client's conversation: what each of its messages means, and what it is told.
//!
//! A session reads text and decides; whoever owns the connection carries the decision out. What
//! needs no more than the session itself is answered here.

use std::borrow::Cow;

use super::apps::App;
use crate::wire::channel::{self, ChannelKind};
use crate::wire::pusher::member::{Member, MemberText};
use crate::wire::pusher::{self, ClientMessage, CloseCode, SocketId};
use crate::wire::signature;

/// What a session remembers between two messages.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub app: u16,
    pub protocol: u8,
    /// Client events of the current second.
    events: u32,
    second: u32,
}

/// What is to be done about a message.
#[derive(Debug)]
pub enum Decision<'a> {
    /// Nothing more: what there is to say stands in the reply.
    Answered,
    /// Nothing more: the reply is an error.
    Refused,
    Subscribe {
        channel: Cow<'a, str>,
        /// Who joins a presence channel.
        member: Option<MemberText>,
    },
    Unsubscribe {
        channel: Cow<'a, str>,
    },
    /// If the connection is subscribed to the channel; else [`refuse_unsubscribed`].
    Trigger {
        channel: Cow<'a, str>,
        name: Cow<'a, str>,
        data: &'a str,
    },
    Close(CloseCode),
}

impl Session {
    pub fn new(app: u16, protocol: u8) -> Session {
        Session {
            app,
            protocol,
            events: 0,
            second: 0,
        }
    }

    /// Reads one text message; appends the text of an answer to `reply`, if there is one.
    pub fn read<'a>(
        &mut self,
        app: &App,
        socket_id: SocketId,
        text: &'a str,
        now_s: u32,
        reply: &mut Vec<u8>,
    ) -> Decision<'a> {
        let message = match pusher::parse_client_message(text) {
            Ok(message) => message,
            Err(malformed) => {
                pusher::encode_error(reply, &malformed.to_string(), None, None);
                return Decision::Refused;
            }
        };
        match message {
            ClientMessage::Ping => {
                pusher::encode_pong(reply);
                Decision::Answered
            }
            ClientMessage::Pong => Decision::Answered,
            ClientMessage::Subscribe {
                channel,
                auth,
                channel_data,
            } => subscribe(app, socket_id, channel, auth, channel_data, reply),
            ClientMessage::Unsubscribe { channel } => Decision::Unsubscribe { channel },
            ClientMessage::Signin { .. } => Decision::Close(CloseCode::Unauthorized),
            ClientMessage::ClientEvent {
                event,
                name,
                channel,
                data,
            } => {
                let data = data.map_or("", |data| data.get());
                self.trigger(app, event.token(), &name, channel, data, text, now_s, reply)
            }
            ClientMessage::Other { event } => {
                let error = if event.starts_with("pusher:") {
                    "Invalid message: the server knows no such event"
                } else {
                    "Client event rejected - client events must be prefixed by 'client-'"
                };
                pusher::encode_error(reply, error, None, None);
                Decision::Refused
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one message")]
    fn trigger<'a>(
        &mut self,
        app: &App,
        token: &str,
        name: &str,
        channel: Cow<'a, str>,
        data: &'a str,
        text: &'a str,
        now_s: u32,
        reply: &mut Vec<u8>,
    ) -> Decision<'a> {
        let mut refuse = |error: &str| {
            let code = Some(pusher::CLIENT_EVENT_REJECTED);
            pusher::encode_error(reply, error, code, Some(&channel));
            Decision::Refused
        };
        let kind = channel::check_channel_name(&channel, app.limits.channel_name_bytes_max);
        if !app.takes_client_events {
            return refuse(
                "To send client events, you must enable this feature in the Settings page of \
                 your dashboard.",
            );
        }
        if !kind.is_ok_and(ChannelKind::takes_client_events) {
            return refuse(
                "Client event rejected - only supported on private and presence channels",
            );
        }
        if channel::check_event_name(name, app.limits.event_name_characters_max).is_err() {
            return refuse("Client event rejected - the event name is too long");
        }
        if data.len() > app.limits.data_bytes_max {
            return refuse("Client event rejected - the data is too large");
        }
        if self.second != now_s {
            (self.second, self.events) = (now_s, 0);
        }
        if self.events >= app.client_events_per_second_max {
            return refuse("Client event rejected due to rate limit");
        }
        self.events += 1;
        // The token stands in the message as it came, unless it had to be decoded.
        let name = match text.find(token) {
            Some(start) => Cow::Borrowed(&text[start..start + token.len()]),
            None => Cow::Owned(token.to_string()),
        };
        Decision::Trigger {
            channel,
            name,
            data,
        }
    }
}

/// Appends the answer to a client event on a channel that the client is not subscribed to.
pub fn refuse_unsubscribed(channel: &str, reply: &mut Vec<u8>) {
    let error =
        format!("Cannot broadcast client event (connection not subscribed to channel {channel})");
    let code = Some(pusher::CLIENT_EVENT_REJECTED);
    pusher::encode_error(reply, &error, code, Some(channel));
}

fn subscribe<'a>(
    app: &App,
    socket_id: SocketId,
    channel: Cow<'a, str>,
    auth: Option<Cow<'a, str>>,
    channel_data: Option<Cow<'a, str>>,
    reply: &mut Vec<u8>,
) -> Decision<'a> {
    let mut refuse = |kind: &str, error: &str, status: u16| {
        pusher::encode_subscription_error(reply, &channel, kind, error, status);
        Decision::Refused
    };
    let kind = match channel::check_channel_name(&channel, app.limits.channel_name_bytes_max) {
        Ok(kind) => kind,
        Err(error) if channel.len() > app.limits.channel_name_bytes_max => {
            return refuse("LimitReached", &error.to_string(), 4009);
        }
        Err(error) => return refuse("InvalidChannel", &error.to_string(), 400),
    };
    if channel.starts_with('#') {
        return refuse(
            "NotSupported",
            "This server does not serve this kind of channel",
            501,
        );
    }
    if kind.needs_authorization() {
        let auth = auth.as_deref().unwrap_or("");
        let checked = signature::check_subscription(
            &app.key,
            &app.signer,
            auth,
            socket_id,
            &channel,
            channel_data.as_deref(),
        );
        if let Err(error) = checked {
            return refuse("AuthError", &error.to_string(), 401);
        }
    }
    let mut member = None;
    if kind.is_presence() {
        let data = channel_data.as_deref().unwrap_or("");
        match Member::parse(data, &app.member_limits) {
            Ok(parsed) => member = Some(MemberText::new(&parsed)),
            Err(error) => {
                let (kind, status) = error.kind_and_status();
                return refuse(kind, &error.to_string(), status);
            }
        }
    }
    Decision::Subscribe { channel, member }
}
