//! One client's conversation: what each of its messages means, and what it is told.
//!
//! A session reads text and decides; whoever owns the connection carries the decision out. What
//! needs no more than the session itself is answered here.

use std::borrow::Cow;

use super::apps::App;
use super::users::{self, SignIn, SignedIn, Watched};
use crate::base::slow::Slow;
use crate::wire::channel::{self, ChannelKind};
use crate::wire::pusher::delivery::Begin;
use crate::wire::pusher::member::{Member, MemberText};
use crate::wire::pusher::user::{self, User};
use crate::wire::pusher::{self, ClientMessage, CloseCode, SocketId};
use crate::wire::signature;

/// What a session remembers between two messages.
#[derive(Clone, Debug)]
pub struct Session {
    pub app: u16,
    pub protocol: u8,
    /// When the client has to have signed in or joined a channel that takes an authorization; 0
    /// once it has, or if it does not have to.
    pub authorize_by_s: u32,
    pub user: Option<Box<SignedIn>>,
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
        begin: Begin,
        /// What is to become of it when it is slow, if it may say so.
        slow: Option<Slow>,
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
    /// Signed in, once the homes of the user and of those it watches have answered.
    SignIn(Box<SignIn>),
    Close {
        code: CloseCode,
        reason: String,
    },
}

impl Session {
    pub fn new(app: u16, protocol: u8) -> Session {
        Session {
            app,
            protocol,
            authorize_by_s: 0,
            user: None,
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
                begin,
                slow,
            } => {
                let channel = self.subscribe(app, socket_id, channel, auth, channel_data, reply);
                match channel {
                    Decision::Subscribe {
                        channel, member, ..
                    } => Decision::Subscribe {
                        channel,
                        member,
                        begin,
                        slow,
                    },
                    decision => decision,
                }
            }
            // A user's own channel goes with the sign-in.
            ClientMessage::Unsubscribe { channel } if channel.starts_with('#') => {
                Decision::Answered
            }
            ClientMessage::Unsubscribe { channel } => Decision::Unsubscribe { channel },
            ClientMessage::Signin { auth, user_data } => {
                self.sign_in(app, socket_id, &auth, &user_data, reply)
            }
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

    fn sign_in<'a>(
        &mut self,
        app: &App,
        socket_id: SocketId,
        auth: &str,
        user_data: &str,
        reply: &mut Vec<u8>,
    ) -> Decision<'a> {
        let refuse = |reason: String| Decision::Close {
            code: CloseCode::Unauthorized,
            reason,
        };
        if signature::check_user(&app.key, &app.signer, auth, socket_id, user_data).is_err() {
            return refuse(user::NOT_AUTHORIZED.to_string());
        }
        let parsed = match User::parse(user_data, &app.user_limits) {
            Ok(parsed) => parsed,
            Err(error) => return refuse(error.to_string()),
        };
        let own_channel = users::own_channel(&parsed.id);
        if let Err(error) = channel::check_channel_name(&own_channel, CHANNEL_BYTES_MAX) {
            return refuse(format!("The user id cannot be used: {error}"));
        }
        match &self.user {
            Some(user) if *user.id == *parsed.id => {
                user::encode_signin_success(reply, user_data);
                return Decision::Answered;
            }
            Some(_) => return refuse(user::OTHER_USER.to_string()),
            None => {}
        }
        self.authorize_by_s = 0;
        self.user = Some(Box::new(SignedIn {
            id: parsed.id.as_ref().into(),
            user_info: parsed.user_info.map(Into::into),
        }));
        let watched = parsed.watchlist.iter().map(|id| Watched {
            id: id.as_ref().into(),
            is_online: false,
        });
        Decision::SignIn(Box::new(SignIn {
            id: parsed.id.as_ref().into(),
            user_data: user_data.into(),
            watched: watched.collect(),
            is_watchlist_cut: parsed.is_watchlist_cut,
        }))
    }

    fn subscribe<'a>(
        &mut self,
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
        if let Some(id) = channel::server_to_user_id(&channel) {
            // Whoever has signed in has it already; pusher-js subscribes to it all the same.
            if self.user.as_ref().is_some_and(|user| *user.id == *id) {
                pusher::encode_subscription_succeeded(reply, &channel);
                return Decision::Answered;
            }
            return refuse(
                "AuthError",
                "The connection is not signed in as this user",
                401,
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
        if kind.needs_authorization() {
            self.authorize_by_s = 0;
        }
        let mut member = None;
        if kind.is_presence() {
            let parsed = match (channel_data.as_deref(), &self.user) {
                (None, Some(user)) => {
                    Member::of_user(&user.id, user.user_info.as_deref(), &app.member_limits)
                }
                (data, _) => Member::parse(data.unwrap_or(""), &app.member_limits),
            };
            match parsed {
                Ok(parsed) => member = Some(MemberText::new(&parsed)),
                Err(error) => {
                    let (kind, status) = error.kind_and_status();
                    return refuse(kind, &error.to_string(), status);
                }
            }
        }
        Decision::Subscribe {
            channel,
            member,
            begin: Begin::Head,
            slow: None,
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

/// What the channel of a user may be named: users' ids have a bound of their own.
const CHANNEL_BYTES_MAX: usize = 1024;
