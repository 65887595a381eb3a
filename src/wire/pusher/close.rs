//! Why a connection ends: the protocol's close codes and their texts.

/// Why the server ends a connection. Clients give up on 4000-4099 (4000: they come back with TLS),
/// come back after a pause on 4100-4199, and at once on 4200-4299.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum CloseCode {
    TlsRequired = 4000,
    ApplicationUnknown = 4001,
    ApplicationDisabled = 4003,
    OverConnectionQuota = 4004,
    PathNotFound = 4005,
    InvalidVersionFormat = 4006,
    UnsupportedProtocol = 4007,
    ProtocolMissing = 4008,
    Unauthorized = 4009,
    OverCapacity = 4100,
    ReconnectImmediately = 4200,
    PongNotReceived = 4201,
    Inactive = 4202,
}

impl CloseCode {
    pub const ALL: [CloseCode; 13] = [
        Self::TlsRequired,
        Self::ApplicationUnknown,
        Self::ApplicationDisabled,
        Self::OverConnectionQuota,
        Self::PathNotFound,
        Self::InvalidVersionFormat,
        Self::UnsupportedProtocol,
        Self::ProtocolMissing,
        Self::Unauthorized,
        Self::OverCapacity,
        Self::ReconnectImmediately,
        Self::PongNotReceived,
        Self::Inactive,
    ];

    pub fn number(self) -> u16 {
        self as u16
    }

    /// The documented text; it fits into a close frame's 123 bytes (RFC 6455, section 5.5).
    pub fn reason(self) -> &'static str {
        match self {
            Self::TlsRequired => "Application only accepts SSL connections, reconnect using wss://",
            Self::ApplicationUnknown => "Application does not exist",
            Self::ApplicationDisabled => "Application disabled",
            Self::OverConnectionQuota => "Application is over connection quota",
            Self::PathNotFound => "Path not found",
            Self::InvalidVersionFormat => "Invalid version string format",
            Self::UnsupportedProtocol => "Unsupported protocol version",
            Self::ProtocolMissing => "No protocol version supplied",
            Self::Unauthorized => "Connection is unauthorized",
            Self::OverCapacity => "Over capacity",
            Self::ReconnectImmediately => "Generic reconnect immediately",
            Self::PongNotReceived => "Pong reply not received",
            Self::Inactive => "Closed after inactivity",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_have_their_numbers_and_fit_into_a_close_frame() {
        let numbers = CloseCode::ALL.map(CloseCode::number);
        assert_eq!(
            numbers,
            [
                4000, 4001, 4003, 4004, 4005, 4006, 4007, 4008, 4009, 4100, 4200, 4201, 4202
            ]
        );
        for code in CloseCode::ALL {
            assert!((1..=123).contains(&code.reason().len()), "{code:?}");
        }
    }
}
