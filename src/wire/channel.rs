//! What a name says: a channel's prefix decides who may join it and what it keeps, and some event
//! names are the server's own.
//!
//! Sources: Pusher Channels documentation, "Channels: naming conventions", "Cache channels",
//! "Encrypted channels" and "WebSocket protocol" (prefixes, character set, 164 characters), and the
//! official server libraries, which allow 200.

use std::fmt;

/// Events to one signed-in user travel on the channel of this prefix and the user's id.
pub const SERVER_TO_USER_PREFIX: &str = "#server-to-user-";

/// The kind of a channel, which its prefix decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelKind {
    Public,
    Private,
    PrivateEncrypted,
    Presence,
    Cache,
    PrivateCache,
    PrivateEncryptedCache,
    PresenceCache,
    /// Reserved for one signed-in user; see [`server_to_user_id`].
    ServerToUser,
}

impl ChannelKind {
    /// Joining takes a signature of the application. True of presence channels too.
    pub fn needs_authorization(self) -> bool {
        match self {
            Self::Private
            | Self::PrivateEncrypted
            | Self::Presence
            | Self::PrivateCache
            | Self::PrivateEncryptedCache
            | Self::PresenceCache => true,
            Self::Public | Self::Cache | Self::ServerToUser => false,
        }
    }

    /// Members are counted and announced.
    pub fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// The server relays what only the clients can read.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::PrivateEncrypted | Self::PrivateEncryptedCache)
    }

    /// The last event is kept for those who come later.
    pub fn is_cache(self) -> bool {
        matches!(
            self,
            Self::Cache | Self::PrivateCache | Self::PrivateEncryptedCache | Self::PresenceCache
        )
    }

    /// Clients may trigger events: who joined was authorized. The documentation speaks of private
    /// and presence channels and does not except the encrypted ones.
    pub fn takes_client_events(self) -> bool {
        self.needs_authorization()
    }

    /// The kind that `name` would be of, whether or not the name is a good one.
    pub fn of(name: &str) -> Self {
        // Longer prefixes stand before the ones they begin with.
        const PREFIXES: [(&str, ChannelKind); 8] = [
            (
                "private-encrypted-cache-",
                ChannelKind::PrivateEncryptedCache,
            ),
            ("private-encrypted-", ChannelKind::PrivateEncrypted),
            ("private-cache-", ChannelKind::PrivateCache),
            ("private-", ChannelKind::Private),
            ("presence-cache-", ChannelKind::PresenceCache),
            ("presence-", ChannelKind::Presence),
            ("cache-", ChannelKind::Cache),
            (SERVER_TO_USER_PREFIX, ChannelKind::ServerToUser),
        ];
        PREFIXES
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map_or(Self::Public, |(_, kind)| kind)
    }
}

/// The kind of a channel whose name is allowed: 1 to `bytes_max` of `A-Z a-z 0-9 _ - = @ , . ;`,
/// and `#` only in the prefix of a user's own channel. Such a name needs no escaping in JSON.
pub fn check_channel_name(name: &str, bytes_max: usize) -> Result<ChannelKind, NameError> {
    if name.len() > bytes_max {
        return Err(NameError::TooLong { max: bytes_max });
    }
    let kind = ChannelKind::of(name);
    let free = match kind {
        ChannelKind::ServerToUser => &name[SERVER_TO_USER_PREFIX.len()..],
        ChannelKind::Public
        | ChannelKind::Private
        | ChannelKind::PrivateEncrypted
        | ChannelKind::Presence
        | ChannelKind::Cache
        | ChannelKind::PrivateCache
        | ChannelKind::PrivateEncryptedCache
        | ChannelKind::PresenceCache => name,
    };
    if free.is_empty() {
        return Err(NameError::Empty);
    }
    match free.chars().find(|&character| !is_allowed(character)) {
        Some(character) => Err(NameError::ForbiddenCharacter { character }),
        None => Ok(kind),
    }
}

/// The user whose own channel this is. User ids are made of the characters of channel names.
pub fn server_to_user_id(channel: &str) -> Option<&str> {
    channel.strip_prefix(SERVER_TO_USER_PREFIX)
}

/// Whether an event may be published under this name: 1 to `characters_max`, and not one of the
/// server's own, which clients would obey.
pub fn check_published_event_name(name: &str, characters_max: usize) -> Result<(), NameError> {
    if name.starts_with("pusher:") || name.starts_with("pusher_internal:") {
        return Err(NameError::Reserved);
    }
    check_event_name(name, characters_max)
}

/// Whether an event name's length is allowed, whoever sends it.
pub fn check_event_name(name: &str, characters_max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    // There are never more characters than bytes: most names need no counting.
    if name.len() > characters_max && name.chars().count() > characters_max {
        return Err(NameError::TooLong {
            max: characters_max,
        });
    }
    Ok(())
}

/// Why a name is not allowed. Reads as the end of a sentence that begins with the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    Empty,
    TooLong { max: usize },
    ForbiddenCharacter { character: char },
    Reserved,
}

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(formatter, "is empty"),
            Self::TooLong { max } => write!(formatter, "is longer than {max} characters"),
            Self::ForbiddenCharacter { character } => write!(formatter, "contains {character:?}"),
            Self::Reserved => write!(formatter, "is reserved for the server"),
        }
    }
}

impl std::error::Error for NameError {}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || matches!(character, '_' | '-' | '=' | '@' | ',' | '.' | ';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES_MAX: usize = 200;

    #[test]
    fn the_prefix_decides_the_kind_and_the_kind_what_is_allowed() {
        // name, kind, needs authorization, presence, encrypted, cache
        let table = [
            ("room", ChannelKind::Public, false, false, false, false),
            ("private-a", ChannelKind::Private, true, false, false, false),
            (
                "private-encrypted-a",
                ChannelKind::PrivateEncrypted,
                true,
                false,
                true,
                false,
            ),
            (
                "presence-a",
                ChannelKind::Presence,
                true,
                true,
                false,
                false,
            ),
            ("cache-a", ChannelKind::Cache, false, false, false, true),
            (
                "private-cache-a",
                ChannelKind::PrivateCache,
                true,
                false,
                false,
                true,
            ),
            (
                "private-encrypted-cache-a",
                ChannelKind::PrivateEncryptedCache,
                true,
                false,
                true,
                true,
            ),
            (
                "presence-cache-a",
                ChannelKind::PresenceCache,
                true,
                true,
                false,
                true,
            ),
            (
                "#server-to-user-u1",
                ChannelKind::ServerToUser,
                false,
                false,
                false,
                false,
            ),
            ("Private-a", ChannelKind::Public, false, false, false, false),
            ("privatea", ChannelKind::Public, false, false, false, false),
        ];
        for (name, kind, authorization, presence, encrypted, cache) in table {
            assert_eq!(check_channel_name(name, BYTES_MAX), Ok(kind), "{name}");
            assert_eq!(kind.needs_authorization(), authorization, "{name}");
            assert_eq!(kind.takes_client_events(), authorization, "{name}");
            assert_eq!(kind.is_presence(), presence, "{name}");
            assert_eq!(kind.is_encrypted(), encrypted, "{name}");
            assert_eq!(kind.is_cache(), cache, "{name}");
        }
    }

    #[test]
    fn every_documented_character_is_allowed_and_no_other() {
        assert!(check_channel_name("aZ09_-=@,.;", BYTES_MAX).is_ok());
        for character in [
            '#', ' ', ':', '/', '"', '\\', '\n', '\0', '+', '%', 'é', '😀',
        ] {
            assert_eq!(
                check_channel_name(&format!("room{character}"), BYTES_MAX),
                Err(NameError::ForbiddenCharacter { character })
            );
        }
    }

    #[test]
    fn the_number_sign_belongs_to_the_channel_of_a_user() {
        assert_eq!(server_to_user_id("#server-to-user-u;1"), Some("u;1"));
        assert_eq!(server_to_user_id("room"), None);
        assert_eq!(
            check_channel_name("#server-to-user-", BYTES_MAX),
            Err(NameError::Empty)
        );
        for name in [
            "#room",
            "#server-to-user",
            "#server-to-user-#",
            "private-#a",
        ] {
            assert_eq!(
                check_channel_name(name, BYTES_MAX),
                Err(NameError::ForbiddenCharacter { character: '#' })
            );
        }
    }

    #[test]
    fn a_channel_name_has_one_to_the_allowed_number_of_bytes() {
        assert_eq!(check_channel_name("", BYTES_MAX), Err(NameError::Empty));
        assert!(check_channel_name(&"a".repeat(BYTES_MAX), BYTES_MAX).is_ok());
        assert_eq!(
            check_channel_name(&"a".repeat(BYTES_MAX + 1), BYTES_MAX),
            Err(NameError::TooLong { max: BYTES_MAX })
        );
    }

    #[test]
    fn an_event_name_has_one_to_two_hundred_characters_of_any_length() {
        assert_eq!(check_event_name("", 200), Err(NameError::Empty));
        assert_eq!(check_event_name(&"é".repeat(200), 200), Ok(()));
        assert_eq!(
            check_event_name(&"é".repeat(201), 200),
            Err(NameError::TooLong { max: 200 })
        );
    }

    #[test]
    fn the_names_of_the_server_are_not_published() {
        for name in ["pusher:error", "pusher:", "pusher_internal:member_added"] {
            assert_eq!(
                check_published_event_name(name, 200),
                Err(NameError::Reserved)
            );
            assert_eq!(check_event_name(name, 200), Ok(()));
        }
        for name in [
            "pusher",
            "pusher-event",
            "client-typing",
            "App\\Events\\Sent",
        ] {
            assert_eq!(check_published_event_name(name, 200), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn an_allowed_name_needs_no_escaping(name in any::<String>()) {
            if check_channel_name(&name, BYTES_MAX).is_ok() {
                prop_assert_eq!(serde_json::to_string(&name).unwrap(), format!("\"{name}\""));
            }
        }
    }
}
