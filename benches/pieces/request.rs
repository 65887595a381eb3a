//! A signed API request.

use outpour::wire::signature::SignedRequest;

/// The worked example of Pusher's documentation.
pub const KEY: &str = "278d425bdf160c739803";
pub const SECRET: &[u8] = b"7ad3773142a6692b25b8";
pub const NOW_S: u64 = 1353088179;
const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
    &body_md5=ec365a775a4cd0599faeb73354201b6f\
    &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;

pub fn request() -> SignedRequest<'static> {
    SignedRequest {
        method: "POST",
        path: "/apps/3/events",
        query: QUERY,
        body: BODY.as_bytes(),
    }
}
