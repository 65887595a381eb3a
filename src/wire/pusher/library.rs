//! The file with which stock pusher-js resumes: what [`delivery`](super::delivery) says, spoken by a page.
//!
//! Its path has the version of what it offers to pages. It is the same for all apps and needs no key,
//! so a page may load it before it knows one.

pub const PATH: &str = "/outpour/1/recovery.js";

pub const TEXT: &str = include_str!("recovery.js");

/// Pages of any origin may load it, isolated ones too (the fetch standard's "CORS protocol" and
/// "Cross-Origin-Resource-Policy header"). A day is how late a page may learn of a mended one.
pub const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "text/javascript; charset=utf-8"),
    ("Cache-Control", "public, max-age=86400"),
    ("Access-Control-Allow-Origin", "*"),
    ("Cross-Origin-Resource-Policy", "cross-origin"),
    ("X-Content-Type-Options", "nosniff"),
];
