//! The check of an API request: body_md5, the signed text and its HMAC.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use outpour::wire::signature::{SignedRequest, Signer, check_request};

/// The worked example of Pusher's documentation.
const KEY: &str = "278d425bdf160c739803";
const SECRET: &[u8] = b"7ad3773142a6692b25b8";
const NOW_S: u64 = 1353088179;
const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
    &body_md5=ec365a775a4cd0599faeb73354201b6f\
    &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
const BODY: &str = r#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;

fn check(criterion: &mut Criterion) {
    let signer = Signer::new(SECRET);
    let request = SignedRequest {
        method: "POST",
        path: "/apps/3/events",
        query: QUERY,
        body: BODY.as_bytes(),
    };
    criterion.bench_function("signature check", |bencher| {
        bencher.iter(|| {
            let checked = check_request(KEY, &signer, black_box(request), NOW_S, 600);
            checked.expect("the signature is right");
        });
    });
}

criterion_group!(benches, check);
criterion_main!(benches);
