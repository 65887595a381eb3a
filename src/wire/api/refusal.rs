//! The answer that refuses a call of the HTTP API.

use std::borrow::Cow;
use std::fmt;

use crate::wire::channel::NameError;

/// An answer that refuses a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub status: u16,
    /// Plain text, for a developer. Client libraries read the status alone.
    pub message: Cow<'static, str>,
}

impl ApiError {
    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: 400,
            message: message.into(),
        }
    }

    pub(super) fn missing(field: &str) -> Self {
        Self::bad_request(format!("Missing required parameter: {field}"))
    }

    pub(super) fn bad_name(what: &str, name: &str, error: NameError) -> Self {
        // An answer repeats no more of a name than a developer needs to find it.
        let beginning: String = name.chars().take(200).collect();
        Self::bad_request(format!("The {what} name {beginning:?} {error}"))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.status, self.message)
    }
}

impl std::error::Error for ApiError {}
