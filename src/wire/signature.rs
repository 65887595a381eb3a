//! Who may do what: signatures of subscriptions, of users and of API requests.
//!
//! All are HMAC-SHA256 (RFC 2104) under the application's secret, in lower-case hexadecimal, and are
//! compared in constant time. Nothing here knows an application: callers bring its key and its
//! [`Signer`], and the time.
//!
//! Sources: Pusher Channels documentation, "HTTP API: authentication", "Auth signatures" and "User
//! authentication"; the signed examples in the tests are the documentation's, and requests that the
//! official Python and Node libraries sent.

use std::borrow::Cow;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::http::query_pairs;
use super::pusher::SocketId;

/// Signs under one secret. The key is scheduled once, and each signature starts from a clone of that
/// state: 126 ns for a short text, measured.
#[derive(Clone)]
pub struct Signer {
    keyed: Hmac<Sha256>,
}

impl Signer {
    pub fn new(secret: &[u8]) -> Self {
        Self {
            keyed: Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"),
        }
    }

    /// The signature of `parts`, one after the other, in lower-case hexadecimal.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 64] {
        self.sign_pieces(parts.iter().copied())
    }

    /// Whether `given` is the signature of `parts`. Takes the same time wherever it differs.
    pub fn verify_hex(&self, parts: &[&[u8]], given: &[u8]) -> bool {
        self.sign(parts).ct_eq(given).into()
    }

    fn sign_pieces<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; 64] {
        let mut mac = self.keyed.clone();
        for piece in pieces {
            mac.update(piece);
        }
        let mut hex = [0; 64];
        write_hex(&mac.finalize().into_bytes(), &mut hex);
        hex
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Signer")
    }
}

/// Checks the `auth` of a subscription, `KEY:signature` over `socket_id:channel`, and over
/// `:channel_data` too where the client sent some, on whatever kind of channel.
pub fn check_subscription(
    key: &str,
    signer: &Signer,
    auth: &str,
    socket_id: SocketId,
    channel: &str,
    channel_data: Option<&str>,
) -> Result<(), TokenError> {
    let signed = match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    };
    check_token(key, signer, auth, signed)
}

/// Checks the `auth` of a sign-in, `KEY:signature` over `socket_id::user::user_data`.
pub fn check_user(
    key: &str,
    signer: &Signer,
    auth: &str,
    socket_id: SocketId,
    user_data: &str,
) -> Result<(), TokenError> {
    check_token(key, signer, auth, format!("{socket_id}::user::{user_data}"))
}

/// Why an `auth` proves nothing. The text goes to the client, and says what should have been signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Not `KEY:signature`.
    Malformed,
    OtherKey {
        given: String,
    },
    WrongSignature {
        signed: String,
        given: String,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                formatter.write_str("Invalid auth: expected the key, a colon and the signature")
            }
            Self::OtherKey { given } => {
                write!(
                    formatter,
                    "Invalid key in auth: this connection does not use {given:?}"
                )
            }
            Self::WrongSignature { signed, given } => write!(
                formatter,
                "Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {given}"
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// What an API request's signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// In upper case, as HTTP has it.
    pub method: &'a str,
    /// As it came, without a configured prefix and without the query.
    pub path: &'a str,
    /// As it came, without the question mark.
    pub query: &'a str,
    pub body: &'a [u8],
}

/// Checks that an API request was signed, for this body, at most `grace_s` before or after `now_s`
/// (seconds since 1970).
///
/// Signed is `METHOD\nPATH\nkey=value&key=value`: every parameter that came but `auth_signature`,
/// decoded, its key in lower case, in the order of keys; of equal keys (`channels[]`) in the order
/// they came in, as the official Ruby library has it. A request without a body may carry the
/// `body_md5` of nothing, as the official Python library sends it.
pub fn check_request(
    key: &str,
    signer: &Signer,
    request: SignedRequest<'_>,
    now_s: u64,
    grace_s: u64,
) -> Result<(), RequestAuthError> {
    let parameters = Parameters::parse(request.query);
    let auth_key = parameters.required("auth_key")?;
    if auth_key != key {
        return Err(RequestAuthError::OtherKey {
            given: auth_key.to_owned(),
        });
    }
    if parameters.required("auth_version")? != "1.0" {
        return Err(RequestAuthError::VersionNotSupported);
    }
    check_timestamp(parameters.required("auth_timestamp")?, now_s, grace_s)?;
    check_body_md5(parameters.find("body_md5"), request.body)?;

    let given = parameters.required("auth_signature")?;
    let signed = || parameters.signed_pieces(request.method, request.path);
    let expected = signer.sign_pieces(signed().map(str::as_bytes));
    if !bool::from(expected.ct_eq(given.as_bytes())) {
        return Err(RequestAuthError::WrongSignature {
            given: given.to_owned(),
            signed: signed().collect(),
        });
    }
    Ok(())
}

/// Why an API request is answered with 401; the text is the answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestAuthError {
    Missing(&'static str),
    OtherKey {
        given: String,
    },
    VersionNotSupported,
    TimestampInvalid,
    TimestampExpired {
        given_s: u64,
        now_s: u64,
        grace_s: u64,
    },
    BodyChanged,
    WrongSignature {
        signed: String,
        given: String,
    },
}

impl fmt::Display for RequestAuthError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(parameter) => write!(formatter, "{parameter} is required"),
            Self::OtherKey { given } => write!(formatter, "Unknown auth_key {given:?}"),
            Self::VersionNotSupported => formatter.write_str("Version not supported"),
            Self::TimestampInvalid => {
                formatter.write_str("auth_timestamp must be in seconds since 1970")
            }
            Self::TimestampExpired {
                given_s,
                now_s,
                grace_s,
            } => write!(
                formatter,
                "Timestamp expired: Given timestamp ({given_s}) not within {grace_s}s of server \
                 time ({now_s})"
            ),
            Self::BodyChanged => formatter.write_str("Invalid body MD5"),
            Self::WrongSignature { signed, given } => write!(
                formatter,
                "Invalid signature: you should have sent HmacSHA256Hex({signed:?}, \
                 your_secret_key), but you sent {given:?}"
            ),
        }
    }
}

impl std::error::Error for RequestAuthError {}

fn check_token(key: &str, signer: &Signer, auth: &str, signed: String) -> Result<(), TokenError> {
    let (given_key, given) = auth.split_once(':').ok_or(TokenError::Malformed)?;
    if given_key != key {
        return Err(TokenError::OtherKey {
            given: given_key.to_owned(),
        });
    }
    if !signer.verify_hex(&[signed.as_bytes()], given.as_bytes()) {
        return Err(TokenError::WrongSignature {
            signed,
            given: given.to_owned(),
        });
    }
    Ok(())
}

fn check_timestamp(given: &str, now_s: u64, grace_s: u64) -> Result<(), RequestAuthError> {
    let given_s = given
        .parse()
        .map_err(|_| RequestAuthError::TimestampInvalid)?;
    if now_s.abs_diff(given_s) > grace_s {
        return Err(RequestAuthError::TimestampExpired {
            given_s,
            now_s,
            grace_s,
        });
    }
    Ok(())
}

fn check_body_md5(given: Option<&str>, body: &[u8]) -> Result<(), RequestAuthError> {
    let Some(given) = given else {
        return match body.is_empty() {
            true => Ok(()),
            false => Err(RequestAuthError::Missing("body_md5")),
        };
    };
    let mut expected = [0; 32];
    write_hex(&Md5::digest(body), &mut expected);
    match expected == given.as_bytes() {
        true => Ok(()),
        false => Err(RequestAuthError::BodyChanged),
    }
}

/// A query's parameters in the order they are signed in.
struct Parameters<'a> {
    /// Key in lower case, value decoded. Six is what a signed publish carries at most.
    sorted: SmallVec<[(Cow<'a, str>, Cow<'a, str>); 6]>,
}

impl<'a> Parameters<'a> {
    fn parse(query: &'a str) -> Self {
        let mut sorted: SmallVec<[_; 6]> = query_pairs(query)
            .map(|(key, value)| (lower_case(key), value))
            .collect();
        // Stable: the members of an array stay in their order.
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self { sorted }
    }

    fn find(&self, key: &str) -> Option<&str> {
        self.sorted
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| &**value)
    }

    fn required(&self, key: &'static str) -> Result<&str, RequestAuthError> {
        self.find(key).ok_or(RequestAuthError::Missing(key))
    }

    /// What is signed, in pieces: it is put together only to be told.
    fn signed_pieces<'b>(
        &'b self,
        method: &'b str,
        path: &'b str,
    ) -> impl Iterator<Item = &'b str> {
        let signed = self
            .sorted
            .iter()
            .filter(|(key, _)| key != "auth_signature");
        let pairs = signed.enumerate().flat_map(|(place, (key, value))| {
            let separator = if place == 0 { "" } else { "&" };
            [separator, key, "=", value]
        });
        [method, "\n", path, "\n"].into_iter().chain(pairs)
    }
}

fn lower_case(key: Cow<'_, str>) -> Cow<'_, str> {
    match key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(key.to_ascii_lowercase()),
        false => key,
    }
}

fn write_hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The application of the documentation's examples.
    const KEY: &str = "278d425bdf160c739803";
    const SECRET: &[u8] = b"7ad3773142a6692b25b8";
    const SOCKET_ID: SocketId = SocketId {
        first: 1234,
        second: 1234,
    };
    const GRACE_S: u64 = 600;

    /// The documentation's worked example of a signed request.
    const EXAMPLE_S: u64 = 1353088179;
    const EXAMPLE_QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179\
        &auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f\
        &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    const EXAMPLE_BODY: &str =
        r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;

    fn signer() -> Signer {
        Signer::new(SECRET)
    }

    fn check(request: SignedRequest<'_>, now_s: u64) -> Result<(), RequestAuthError> {
        check_request(KEY, &signer(), request, now_s, GRACE_S)
    }

    fn example<'a>() -> SignedRequest<'a> {
        SignedRequest {
            method: "POST",
            path: "/apps/3/events",
            query: EXAMPLE_QUERY,
            body: EXAMPLE_BODY.as_bytes(),
        }
    }

    /// A query with these parameters, given in the order of their keys and unescaped, and signed.
    fn signed_query(parameters: &str, sent: &str) -> String {
        let text = format!("GET\n/apps/3/channels\n{parameters}");
        let signature = signer().sign(&[text.as_bytes()]);
        format!(
            "{sent}&auth_signature={}",
            str::from_utf8(&signature).unwrap()
        )
    }

    fn check_query(query: &str) -> Result<(), RequestAuthError> {
        let request = SignedRequest {
            method: "GET",
            path: "/apps/3/channels",
            query,
            body: b"",
        };
        check(request, EXAMPLE_S)
    }

    #[test]
    fn the_documented_private_channel_signature_is_accepted() {
        let auth =
            format!("{KEY}:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4");
        let check = |socket_id, channel, data| {
            check_subscription(KEY, &signer(), &auth, socket_id, channel, data)
        };
        assert_eq!(check(SOCKET_ID, "private-foobar", None), Ok(()));
        assert!(check(SOCKET_ID, "private-foobaz", None).is_err());
        assert!(check(SOCKET_ID, "private-foobar", Some("{}")).is_err());
        let other = SocketId {
            first: 1234,
            second: 1235,
        };
        assert!(check(other, "private-foobar", None).is_err());
    }

    #[test]
    fn channel_data_is_part_of_what_is_signed() {
        // The documentation prints "Mr. Channels" beside the first signature, which is of
        // "Mr. Pusher".
        for (name, signature) in [
            (
                "Mr. Pusher",
                "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
            ),
            (
                "Mr. Channels",
                "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
            ),
        ] {
            let data = format!(r#"{{"user_id":10,"user_info":{{"name":"{name}"}}}}"#);
            let auth = format!("{KEY}:{signature}");
            let channel = "presence-foobar";
            assert_eq!(
                check_subscription(KEY, &signer(), &auth, SOCKET_ID, channel, Some(&data)),
                Ok(())
            );
        }
        // As the Python library signed it: with a space behind each colon.
        assert_eq!(
            check_subscription(
                KEY,
                &signer(),
                &format!("{KEY}:effa42ec7dd23bb390f85f36c479655cd6b348c343045e6428b4fe49d6842d6f"),
                SOCKET_ID,
                "presence-foobar",
                Some(r#"{"user_id": 10, "user_info": {"name": "Mr. Pusher"}}"#),
            ),
            Ok(())
        );
    }

    #[test]
    fn channel_data_is_signed_on_whatever_kind_of_channel_it_is_sent() {
        let auth = |text: &str| {
            let signature = signer().sign(&[text.as_bytes()]);
            format!("{KEY}:{}", str::from_utf8(&signature).unwrap())
        };
        // Libraries sign channel_data for private channels too, and a signed-in user joins a
        // presence channel without any.
        for channel in [
            "private-a",
            "private-encrypted-a",
            "presence-a",
            "presence-cache-a",
        ] {
            let check = |auth: &str, data| {
                check_subscription(KEY, &signer(), auth, SOCKET_ID, channel, data)
            };
            let with_data = auth(&format!("1234.1234:{channel}:{{}}"));
            assert_eq!(check(&with_data, Some("{}")), Ok(()));
            assert!(check(&with_data, None).is_err());
            let without = auth(&format!("1234.1234:{channel}"));
            assert_eq!(check(&without, None), Ok(()));
            assert!(check(&without, Some("{}")).is_err());
        }
    }

    #[test]
    fn the_documented_user_signature_is_accepted() {
        let auth =
            format!("{KEY}:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba");
        let check = |user_data| check_user(KEY, &signer(), &auth, SOCKET_ID, user_data);
        assert_eq!(check(r#"{"id":"12345"}"#), Ok(()));
        assert!(check(r#"{"id":"12346"}"#).is_err());
    }

    #[test]
    fn a_refused_token_says_what_should_have_been_signed() {
        let refuse = |auth: &str| {
            check_subscription(KEY, &signer(), auth, SOCKET_ID, "private-a", Some("{}"))
                .unwrap_err()
        };
        assert_eq!(refuse(KEY), TokenError::Malformed);
        assert_eq!(refuse(""), TokenError::Malformed);
        assert_eq!(
            refuse("other:00"),
            TokenError::OtherKey {
                given: "other".to_owned()
            }
        );
        assert_eq!(
            refuse(&format!("{KEY}:8372e1")).to_string(),
            "Invalid signature: Expected HMAC SHA256 hex digest of 1234.1234:private-a:{}, but got \
             8372e1"
        );
    }

    #[test]
    fn a_signature_must_be_whole_and_in_lower_case() {
        let hex = signer().sign(&[b"a", b"bc"]);
        assert_eq!(hex, signer().sign(&[b"abc"]));
        assert!(signer().verify_hex(&[b"abc"], &hex));
        assert!(!signer().verify_hex(&[b"abc"], &hex[..63]));
        assert!(!signer().verify_hex(&[b"abc"], b""));
        assert!(!signer().verify_hex(&[b"abc"], &hex.to_ascii_uppercase()));
        assert!(!Signer::new(b"").verify_hex(&[b"abc"], &hex));
    }

    #[test]
    fn the_documented_request_is_accepted() {
        assert_eq!(check(example(), EXAMPLE_S), Ok(()));
    }

    #[test]
    fn whatever_is_signed_cannot_be_changed() {
        let query = EXAMPLE_QUERY.replace("auth_signature", "info=x&auth_signature");
        for changed in [
            SignedRequest {
                method: "GET",
                ..example()
            },
            SignedRequest {
                path: "/apps/4/events",
                ..example()
            },
            SignedRequest {
                query: &query,
                ..example()
            },
        ] {
            let error = check(changed, EXAMPLE_S).unwrap_err();
            assert!(
                matches!(error, RequestAuthError::WrongSignature { .. }),
                "{error}"
            );
        }
        let changed = SignedRequest {
            body: b"{}",
            ..example()
        };
        assert_eq!(
            check(changed, EXAMPLE_S),
            Err(RequestAuthError::BodyChanged)
        );
        let emptied = SignedRequest {
            body: b"",
            ..example()
        };
        assert_eq!(
            check(emptied, EXAMPLE_S),
            Err(RequestAuthError::BodyChanged)
        );
    }

    #[test]
    fn every_parameter_of_the_signature_is_required_and_named() {
        for name in [
            "auth_key",
            "auth_version",
            "auth_timestamp",
            "body_md5",
            "auth_signature",
        ] {
            let query = EXAMPLE_QUERY.replace(name, "x");
            let error = check(
                SignedRequest {
                    query: &query,
                    ..example()
                },
                EXAMPLE_S,
            );
            assert_eq!(error, Err(RequestAuthError::Missing(name)));
        }
        let error = check(
            SignedRequest {
                query: "",
                ..example()
            },
            EXAMPLE_S,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "auth_key is required");
    }

    #[test]
    fn a_request_of_another_key_or_version_is_refused() {
        let query = EXAMPLE_QUERY.replace(KEY, "other");
        assert_eq!(
            check(
                SignedRequest {
                    query: &query,
                    ..example()
                },
                EXAMPLE_S
            ),
            Err(RequestAuthError::OtherKey {
                given: "other".to_owned()
            })
        );
        let query = EXAMPLE_QUERY.replace("=1.0", "=1.1");
        assert_eq!(
            check(
                SignedRequest {
                    query: &query,
                    ..example()
                },
                EXAMPLE_S
            ),
            Err(RequestAuthError::VersionNotSupported)
        );
    }

    #[test]
    fn a_request_is_good_for_ten_minutes_before_and_after() {
        for now_s in [EXAMPLE_S - GRACE_S, EXAMPLE_S + GRACE_S] {
            assert_eq!(check(example(), now_s), Ok(()));
        }
        for now_s in [
            0,
            EXAMPLE_S - GRACE_S - 1,
            EXAMPLE_S + GRACE_S + 1,
            u64::MAX,
        ] {
            assert!(matches!(
                check(example(), now_s),
                Err(RequestAuthError::TimestampExpired { .. })
            ));
        }
        let query = EXAMPLE_QUERY.replace("=1353088179", "=soon");
        assert_eq!(
            check(
                SignedRequest {
                    query: &query,
                    ..example()
                },
                EXAMPLE_S
            ),
            Err(RequestAuthError::TimestampInvalid)
        );
    }

    #[test]
    fn a_refused_request_says_what_should_have_been_signed() {
        let query = EXAMPLE_QUERY.replace("=da45", "=0000");
        let error = check(
            SignedRequest {
                query: &query,
                ..example()
            },
            EXAMPLE_S,
        )
        .unwrap_err();
        assert!(
            error.to_string().starts_with(
                "Invalid signature: you should have sent \
                 HmacSHA256Hex(\"POST\\n/apps/3/events\\nauth_key=278d425bdf160c739803&"
            ),
            "{error}"
        );
    }

    #[test]
    fn keys_are_signed_in_lower_case_and_in_order() {
        let auth = format!("auth_key={KEY}&auth_timestamp={EXAMPLE_S}&auth_version=1.0");
        let query = signed_query(
            &format!("{auth}&b=1&c=Two"),
            &format!("C=Two&Auth_Version=1.0&b=1&auth_key={KEY}&auth_timestamp={EXAMPLE_S}"),
        );
        assert_eq!(check_query(&query), Ok(()));
    }

    #[test]
    fn an_array_is_signed_in_the_order_it_came_in() {
        let auth = format!("auth_key={KEY}&auth_timestamp={EXAMPLE_S}&auth_version=1.0");
        let signed = format!("{auth}&channels[]=b&channels[]=a&name=n");
        for sent in [
            signed.clone(),
            format!("channels%5B%5D=b&channels%5B%5D=a&name=n&{auth}"),
        ] {
            assert_eq!(check_query(&signed_query(&signed, &sent)), Ok(()), "{sent}");
        }
    }

    #[test]
    fn values_are_signed_as_they_read_before_they_were_escaped() {
        let auth = format!("auth_key={KEY}&auth_timestamp={EXAMPLE_S}&auth_version=1.0");
        let query = signed_query(
            &format!("{auth}&filter_by_prefix=a b&é%=1+1=2"),
            &format!("{auth}&filter_by_prefix=a+b&%c3%A9%=1%2B1%3D2"),
        );
        assert_eq!(check_query(&query), Ok(()));
    }

    /// Sent to a listening socket by PyPI `pusher` and npm `pusher`, as their users call them.
    #[test]
    fn what_the_official_libraries_send_is_accepted() {
        const SENT_S: u64 = 1795427274;
        const AUTH: &str =
            "auth_key=278d425bdf160c739803&auth_timestamp=1795427274&auth_version=1.0";
        const EMPTY_MD5: &str = "body_md5=d41d8cd98f00b204e9800998ecf8427e";
        // method, path behind /apps/3, parameters besides AUTH, signature, body
        let python = [
            (
                "POST",
                "/events",
                "body_md5=746ac3f5c80a9ebac73331e6d25af92e".to_owned(),
                "30457e657575f654072a97f58346933f04fdb9dd906018af0cb40ddac1174668",
                r#"{"name": "foo", "channels": ["project-3", "project-4"], "data": "{\"some\": \"d\u00e4\\\"ta\"}", "socket_id": "123.456"}"#,
            ),
            (
                "POST",
                "/batch_events",
                "body_md5=c78ef327624868ecd80e706c849937fa".to_owned(),
                "120b2158bfbea3920b77952d32a3422cb04a33569b59d3c5d8805cd073c321e5",
                r#"{"batch": [{"channel": "a", "name": "e", "data": "{\"x\": 1}"}]}"#,
            ),
            (
                "GET",
                "/channels",
                format!("{EMPTY_MD5}&filter_by_prefix=presence-a%20b;%C3%A9&info=user_count"),
                "1b79cd8d95d58f135443f8f5af079203c4aad37ad5a86e432bda066a2c361b3c",
                "",
            ),
            (
                "GET",
                "/channels/presence-a=b,c;d@e.f",
                format!("{EMPTY_MD5}&info=user_count,subscription_count"),
                "0773c8262085ac98026246c151d37039743b366f58b78bd72cb376457d99c867",
                "",
            ),
            (
                "GET",
                "/channels/presence-a/users",
                EMPTY_MD5.to_owned(),
                "691edc962dbff27fbd848a15917443450f55ee38bca222ad7f5180bb470b1c22",
                "",
            ),
        ];
        let node = [
            (
                "POST",
                "/events",
                "body_md5=f4c46c50ea02b572def90bd8afe521af".to_owned(),
                "afaacea19ab513838b6a88742d88c0ca5dd71aeba203508436a8d135f15cdc8a",
                r#"{"name":"foo","data":"{\"some\":\"dä\\\"ta\"}","channels":["project-3","project-4"],"socket_id":"123.456","info":"user_count"}"#,
            ),
            (
                "GET",
                "/channels",
                "filter_by_prefix=presence-a%20b;%C3%A9&info=user_count,subscription_count"
                    .to_owned(),
                "4c8d35cdafcc97410eec722b98e325690778bfd5f1f8290ba5574e655b315e20",
                "",
            ),
            (
                "GET",
                "/channels",
                String::new(),
                "04d344864214b971ae211561753dc9edb19df2eddba9bb4307e1428c08f59c57",
                "",
            ),
            (
                "POST",
                "/users/u;1@x=2,3/terminate_connections",
                "body_md5=99914b932bd37a50b983c5e7c90ae93b".to_owned(),
                "c0fee0ac8e70bf1434a7dd10994f50c900d87acd6a45f8af84ac0d514ec3b446",
                "{}",
            ),
        ];
        for (method, path, parameters, signature, body) in python.into_iter().chain(node) {
            let request = SignedRequest {
                method,
                path: &format!("/apps/3{path}"),
                query: &format!("auth_signature={signature}&{AUTH}&{parameters}"),
                body: body.as_bytes(),
            };
            assert_eq!(check(request, SENT_S), Ok(()), "{method} {path}");
        }
    }

    proptest! {
        #[test]
        fn random_text_never_panics(
            query in any::<String>(),
            auth in any::<String>(),
            body in any::<Vec<u8>>(),
        ) {
            for query in [&query, &format!("{EXAMPLE_QUERY}&{query}")] {
                let request = SignedRequest { query, body: &body, ..example() };
                prop_assert!(check(request, EXAMPLE_S).is_err());
            }
            prop_assert!(check_user(KEY, &signer(), &auth, SOCKET_ID, "").is_err());
        }
    }
}
