//! The check of an API request: body_md5, the signed text and its HMAC.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use outpour::wire::signature::{Signer, check_request};

#[path = "pieces/request.rs"]
mod request;

use request::{KEY, NOW_S, SECRET};

fn check(criterion: &mut Criterion) {
    let signer = Signer::new(SECRET);
    let request = request::request();
    criterion.bench_function("signature check", |bencher| {
        bencher.iter(|| {
            let checked = check_request(KEY, &signer, black_box(request), NOW_S, 600);
            checked.expect("the signature is right");
        });
    });
}

criterion_group!(benches, check);
criterion_main!(benches);
