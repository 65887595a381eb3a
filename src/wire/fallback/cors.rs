//! What lets a page of any origin read the answers, and ask in the first place (the fetch
//! standard's "CORS protocol").
//!
//! Nothing here depends on cookies, so any origin may ask. sockjs-client asks "with credentials" all
//! the same, and then browsers want their origin named, not `*`.

use smallvec::{SmallVec, smallvec};

/// The status of the answer to OPTIONS: no content.
pub const PREFLIGHT_STATUS: u16 = 204;

/// Who asks from a page.
#[derive(Clone, Copy, Debug)]
pub struct Cors<'a> {
    origin: Option<&'a str>,
}

pub type Headers<'a> = SmallVec<[(&'static str, &'a str); 8]>;

impl<'a> Cors<'a> {
    /// `origin` is the value of the request's Origin header.
    pub fn new(origin: Option<&'a [u8]>) -> Cors<'a> {
        let origin = origin.and_then(|origin| std::str::from_utf8(origin).ok());
        let is_origin = |origin: &&str| !origin.is_empty() && origin.bytes().all(is_visible);
        Cors {
            origin: origin.filter(is_origin),
        }
    }

    /// The headers of every answer. None is to be kept by a cache: browsers kept some POSTs.
    pub fn headers(&self) -> Headers<'a> {
        let mut headers: Headers<'a> = smallvec![
            ("Access-Control-Allow-Origin", self.origin.unwrap_or("*")),
            ("Cache-Control", "no-store, no-transform"),
        ];
        if self.origin.is_some() {
            headers.push(("Access-Control-Allow-Credentials", "true"));
            headers.push(("Vary", "Origin"));
        }
        headers
    }

    /// The headers of the answer to OPTIONS: what a page may send.
    pub fn preflight_headers(&self) -> Headers<'a> {
        let mut headers = self.headers();
        headers.push(("Access-Control-Allow-Methods", "GET, POST, OPTIONS"));
        headers.push(("Access-Control-Allow-Headers", "Content-Type"));
        headers.push(("Access-Control-Max-Age", PREFLIGHT_MAX_AGE_S));
        headers
    }
}

/// As long as Chromium remembers it at most, in seconds.
const PREFLIGHT_MAX_AGE_S: &str = "7200";

fn is_visible(byte: u8) -> bool {
    byte.is_ascii_graphic()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(headers: &Headers<'a>, name: &str) -> Option<&'a str> {
        let found = headers.iter().find(|(candidate, _)| *candidate == name);
        found.map(|(_, value)| *value)
    }

    #[test]
    fn a_page_hears_its_own_origin() {
        let headers = Cors::new(Some(b"https://example.org:8443")).preflight_headers();
        let allowed = value(&headers, "Access-Control-Allow-Origin");
        assert_eq!(allowed, Some("https://example.org:8443"));
        let credentials = value(&headers, "Access-Control-Allow-Credentials");
        assert_eq!(credentials, Some("true"));
        let names = value(&headers, "Access-Control-Allow-Headers");
        assert_eq!(names, Some("Content-Type"));
        let methods = value(&headers, "Access-Control-Allow-Methods");
        assert!(methods.is_some_and(|methods| methods.contains("POST")));
    }

    #[test]
    fn whoever_names_no_origin_hears_that_all_may() {
        for origin in [None, Some(&b""[..]), Some(b"a b"), Some(b"\xff")] {
            let headers = Cors::new(origin).headers();
            let allowed = value(&headers, "Access-Control-Allow-Origin");
            assert_eq!(allowed, Some("*"));
            // Browsers refuse the two together.
            let credentials = value(&headers, "Access-Control-Allow-Credentials");
            assert_eq!(credentials, None);
        }
    }
}
