//! How subscriptions are answered when the channel's home is on another shard.

use std::io::Write;

#[allow(dead_code, reason = "each test uses its part")]
mod raw;

use raw::{Raw, TEXT, confirmation, masked, serve, subscription};

#[test]
fn a_repeated_subscription_is_refused_after_the_first_is_answered() {
    let running = serve(2, |_| {});
    // Of so many channels some have their home on the other shard.
    for number in 0..32 {
        let channel = format!("room-{number}");
        let mut client = Raw::connect(running.address());
        client.next().expect("the session begins");
        let once = masked(TEXT, subscription(&channel).as_bytes());
        let ping = masked(TEXT, br#"{"event":"pusher:ping","data":{}}"#);
        let all = [&once[..], &once[..], &ping[..]].concat();
        client.stream.write_all(&all).unwrap();
        let answers = [(); 3].map(|()| String::from_utf8(client.next().unwrap().1).unwrap());
        assert_eq!(answers[0], confirmation(&channel));
        let refusal = format!("Existing subscription to channel {channel}");
        assert!(answers[1].contains(&refusal), "{answers:?}");
        assert!(answers[2].contains("pusher:pong"), "{answers:?}");
    }
    running.stop();
}
