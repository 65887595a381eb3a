//! What a publish costs, counted: encodes, system calls, completions and allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outpour::base::metrics::Metric;
use outpour::server::Running;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod raw;

use raw::{
    Publisher, Raw, TEXT, confirmation, data_of, data_of_next, publish_request, serve, subscribe,
    sum, wait_until,
};

/// What is counted here is the process's, so the tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much these metrics grow while `run` runs.
fn spent<const COUNT: usize>(
    running: &Running,
    metrics: [Metric; COUNT],
    run: impl FnOnce(),
) -> [u64; COUNT] {
    let before = metrics.map(|metric| sum(running, metric));
    run();
    let after = metrics.map(|metric| sum(running, metric));
    std::array::from_fn(|place| after[place] - before[place])
}

#[test]
fn a_publish_is_encoded_once_and_a_healthy_delivery_completes_nothing() {
    const SUBSCRIBERS: u64 = 400;
    const EVENTS: u64 = 25;
    let _alone = alone();
    let running = serve(1, |_| {});
    let address = running.address();
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| subscribe(address, "room"))
        .collect();
    let mut publisher = Publisher::connect(address);
    let metrics = [
        Metric::Encodes,
        Metric::Deliveries,
        Metric::Completions,
        Metric::Enters,
    ];
    let [encodes, deliveries, completions, enters] = spent(&running, metrics, || {
        for number in 0..EVENTS {
            publisher.publish("room", &number.to_string());
            for subscriber in &mut subscribers {
                assert_eq!(data_of_next(subscriber, "room"), number.to_string());
            }
        }
    });
    assert_eq!(encodes, EVENTS);
    assert_eq!(deliveries, EVENTS * SUBSCRIBERS);
    // The publisher's requests arrive as one completion each; nothing else may complete.
    assert!(completions <= EVENTS + 2, "{completions} completions");
    assert!(enters <= 4 * EVENTS, "{enters} system calls");
    assert_eq!(sum(&running, Metric::ShortSends), 0);
    running.stop();
}

#[test]
fn a_publish_is_encoded_once_for_each_variant_in_use_and_compressed_once_for_each_window() {
    const EACH: usize = 20;
    const EVENTS: u64 = 10;
    let _alone = alone();
    for shards in [1, 3] {
        let running = serve(shards, |_| {});
        let address = running.address();
        let mut subscribers = Vec::new();
        for _ in 0..EACH {
            subscribers.push(Raw::connect(address));
            for window_bits in [9, 12, 15] {
                subscribers.push(Raw::compressing(address, window_bits));
            }
        }
        for subscriber in &mut subscribers {
            subscriber.subscribe("room");
        }
        let mut publisher = Publisher::connect(address);
        let metrics = [Metric::Encodes, Metric::Deflates, Metric::Deliveries];
        let mut publish = |data: &str, subscribers: &mut [Raw]| {
            spent(&running, metrics, || {
                for number in 0..EVENTS {
                    publisher.publish("room", &format!("{number}{data}"));
                    for subscriber in &mut *subscribers {
                        let (opcode, text) = subscriber.next().expect("an event is there");
                        assert_eq!(opcode, TEXT);
                        let text = String::from_utf8_lossy(&text);
                        assert_eq!(data_of(&text, "room"), format!("{number}{data}"));
                    }
                }
            })
        };
        let deliveries = EVENTS * subscribers.len() as u64;
        let long = publish(&" and so on".repeat(100), &mut subscribers);
        assert_eq!(long, [4 * EVENTS, 3 * EVENTS, deliveries]);
        let short = publish("", &mut subscribers);
        assert_eq!(short, [4 * EVENTS, 0, deliveries]);
        // Whoever is left is plain: nothing is compressed for those who went.
        let mut plain: Vec<Raw> = subscribers.into_iter().step_by(4).collect();
        wait_until("the others' subscriptions ended", || {
            sum(&running, Metric::Subscriptions) == EACH as u64
        });
        wait_until("their variants are forgotten", || {
            let [encodes, ..] = publish(&" and so on".repeat(100), &mut plain);
            encodes == EVENTS
        });
        running.stop();
    }
}

#[test]
fn whoever_subscribes_in_its_address_is_sent_everything_at_once() {
    const CONNECTIONS: u64 = 50;
    let _alone = alone();
    let running = serve(1, |_| {});
    let address = running.address();
    for (query, sends) in [("&subscribe=room", 1), ("", 2)] {
        let [sent] = spent(&running, [Metric::Sends], || {
            for _ in 0..CONNECTIONS {
                let mut client = Raw::subscribing(address, query, &[]);
                let greeting = client.next().expect("it is greeted").1;
                assert!(String::from_utf8_lossy(&greeting).contains("connection_established"));
                if query.is_empty() {
                    client.subscribe("room");
                } else {
                    let answer = client.next().expect("an answer comes");
                    assert_eq!(answer, (TEXT, confirmation("room").into_bytes()));
                }
            }
        });
        assert_eq!(sent, sends * CONNECTIONS);
    }
    running.stop();
}

#[test]
fn ten_thousand_subscribers_take_two_system_calls_for_a_thousand_deliveries() {
    const SUBSCRIBERS: u64 = 10_000;
    let _alone = alone();
    let running = serve(1, |_| {});
    let address = running.address();
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| Raw::connect(address)).collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("room");
    }
    let mut publisher = Publisher::connect(address);
    let mut published = 0;
    // One event by itself, which gathers nothing, and a burst.
    for events in [1, 1, 50] {
        let metrics = [Metric::Deliveries, Metric::Enters];
        let [deliveries, enters] = spent(&running, metrics, || {
            let due = sum(&running, Metric::Deliveries) + events * SUBSCRIBERS;
            for number in published..published + events {
                publisher.send(&publish_request(&["room"], &number.to_string()));
            }
            for _ in 0..events {
                assert_eq!(publisher.answer().expect("it is answered").status, 200);
            }
            wait_until("everybody has everything", || {
                sum(&running, Metric::Deliveries) == due
            });
        });
        published += events;
        assert!(
            enters * 1000 <= deliveries * 2,
            "{enters} system calls for {deliveries} deliveries"
        );
    }
    assert_eq!(sum(&running, Metric::ShortSends), 0);
    for subscriber in subscribers.iter_mut().step_by(997) {
        for number in 0..published {
            let (opcode, text) = subscriber.next().expect("an event is there");
            assert_eq!(opcode, TEXT);
            let data = data_of(&String::from_utf8_lossy(&text), "room");
            assert_eq!(data, number.to_string());
        }
    }
    running.stop();
}

#[test]
fn a_shard_that_is_warm_allocates_nothing() {
    const SUBSCRIBERS: u64 = 100;
    const EVENTS: u64 = 200;
    let _alone = alone();
    let running = serve(1, |_| {});
    let address = running.address();
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| subscribe(address, "room"))
        .collect();
    let mut publisher = Publisher::connect(address);
    let mut publish = || {
        for number in 0..EVENTS {
            publisher.publish("room", &number.to_string());
            for subscriber in &mut subscribers {
                assert_eq!(data_of_next(subscriber, "room"), number.to_string());
            }
        }
    };
    publish();
    let allocations = shards_allocations(publish);
    assert_eq!(
        allocations, 0,
        "{EVENTS} events and {SUBSCRIBERS} subscribers"
    );
    running.stop();
}

#[test]
fn a_shard_that_is_warm_allocates_nothing_to_compress() {
    const EVENTS: u64 = 100;
    let _alone = alone();
    let running = serve(1, |_| {});
    let address = running.address();
    let windows = [9, 12, 15].into_iter().cycle().take(30);
    let mut subscribers: Vec<Raw> = windows
        .map(|window_bits| Raw::compressing(address, window_bits))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.subscribe("room");
    }
    let mut publisher = Publisher::connect(address);
    let text = " and so on".repeat(100);
    let mut publish = || {
        for number in 0..EVENTS {
            let data = format!("{number}{text}");
            publisher.publish("room", &data);
            for subscriber in &mut subscribers {
                let (_, text) = subscriber.next().expect("an event is there");
                assert_eq!(data_of(&String::from_utf8_lossy(&text), "room"), data);
            }
        }
    };
    publish();
    assert_eq!(shards_allocations(publish), 0, "{EVENTS} events");
    assert_eq!(sum(&running, Metric::Deflates), 2 * 3 * EVENTS);
    running.stop();
}

/// How often threads of shards allocate while `run` runs.
fn shards_allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    IS_COUNTING.store(true, Ordering::SeqCst);
    run();
    IS_COUNTING.store(false, Ordering::SeqCst);
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, which counts what shards ask of it.
struct Counting;

impl Counting {
    fn count(&self) {
        if IS_COUNTING.load(Ordering::Relaxed) && is_shard() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether this thread bears a shard's name. Asked of the kernel, for that allocates nothing.
fn is_shard() -> bool {
    let mut name = [0_u8; 16];
    // SAFETY: the kernel writes at most 16 bytes (PR_GET_NAME).
    let result = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    result == 0 && name.starts_with(b"shard-")
}

// SAFETY: the system's allocator keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}
