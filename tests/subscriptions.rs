//! How subscriptions are answered when the channel's home is on another shard.

use std::io::Write;

#[allow(dead_code, reason = "each test uses its part")]
mod raw;

use outpour::base::metrics::Metric;
use outpour::options::{ChannelOptions, ChannelPattern};
use raw::{Publisher, Raw, TEXT, confirmation, data_of, masked, serve, subscription, sum};

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

/// Broken once by reading what follows the request before what the address asks for, and once by forgetting
/// what the address asks for behind a channel whose home is on another shard: it failed both times.
#[test]
fn what_an_address_asks_for_is_answered_as_if_it_had_been_sent_first() {
    let kept = ChannelOptions {
        name: ChannelPattern::Prefix("kept-".to_owned()),
        ..ChannelOptions::default()
    };
    let running = serve(2, |options| options.apps[0].channels = vec![kept]);
    let address = running.address();
    let mut publisher = Publisher::connect(address);
    for number in 0..16 {
        let (room, kept) = (format!("room-{number}"), format!("kept-{number}"));
        publisher.publish(&kept, "0");
        publisher.publish(&kept, "1");
        let query = format!(
            "&subscribe={kept}&subscribe=%7B%22channel%22:%22kept-again-{number}%22,%22rewind%22:1%7D\
             &subscribe={room}&subscribe={room}&subscribe=private-{number}&subscribe=%7B%22channel%22:1%7D"
        );
        let ping = masked(TEXT, br#"{"event":"pusher:ping","data":{}}"#);
        let mut client = Raw::subscribing(address, &query, &ping);
        let mut next = || String::from_utf8(client.next().unwrap().1).unwrap();
        assert!(next().contains("pusher:connection_established"));
        let said = next();
        assert!(
            said.contains("subscription_succeeded") && said.contains(&kept),
            "{said}"
        );
        assert!(said.contains(r#"\"serial\":2"#), "{said}");
        let said = next();
        assert!(
            said.contains("subscription_succeeded") && said.contains("kept-again"),
            "{said}"
        );
        assert_eq!(next(), confirmation(&room));
        let said = next();
        assert!(
            said.contains(&format!("Existing subscription to channel {room}")),
            "{said}"
        );
        let said = next();
        assert!(
            said.contains("subscription_error") && said.contains("private-"),
            "{said}"
        );
        let said = next();
        assert!(said.contains("pusher:error"), "{said}");
        let said = next();
        assert!(said.contains("pusher:pong"), "{said}");
        publisher.publish(&room, "live");
        assert_eq!(data_of(&next(), &room), "live");
    }
    assert_eq!(sum(&running, Metric::MessagesRefused), 3 * 16);
    running.stop();
}

#[test]
fn an_address_is_as_long_as_what_a_client_may_send_ahead() {
    let running = serve(1, |options| options.http_head_bytes_max = 1 << 20);
    let query = "&subscribe=".repeat(10_000);
    let mut client = Raw::subscribing(running.address(), &query, &[]);
    let mut next = || String::from_utf8(client.next().unwrap().1).unwrap();
    assert!(next().contains("pusher:connection_established"));
    assert!(next().contains("more subscriptions than are read at once"));
    running.stop();
}

#[test]
fn a_head_in_pieces_and_a_compressing_client_subscribe_in_their_address_too() {
    let running = serve(2, |_| {});
    let address = running.address();
    for number in 0..8 {
        let room = format!("room-{number}");
        let query = format!("&subscribe={room}");
        let mut client = Raw::subscribing_in_pieces(address, &query, 9);
        let mut next = || String::from_utf8(client.next().unwrap().1).unwrap();
        assert!(next().contains("pusher:connection_established"));
        assert_eq!(next(), confirmation(&room));
        let mut publisher = Publisher::connect(address);
        publisher.publish(&room, "live");
        assert_eq!(data_of(&next(), &room), "live");
    }
    running.stop();
}
