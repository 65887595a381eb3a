//! outpour: one publish, encoded once, written to every subscriber by pinned io_uring loops.
//!
//! # The one idea
//!
//! A subscriber is a position, not a queue. Each channel has a log of frames that are encoded as they
//! go on the wire; each subscription is a cursor into it. A visit to a subscriber sends everything
//! from its cursor to the head in one send. So batching under load comes by itself, a blocked socket
//! costs a cursor, and nothing is queued, cloned or counted for a single subscriber.
//!
//! # Where things are
//!
//! | module | what it does | may use |
//! |---|---|---|
//! | [`base`] | bounds, metrics, latencies, lanes, wakers, timers, slabs | |
//! | [`options`] | settings: their forms, defaults and origins | |
//! | [`ring`] | the kernel boundary: the trait, io_uring, its simulation, the start-up probe | `base` |
//! | [`wire`] | bytes to values: HTTP, its API, WebSocket, its fallbacks, Pusher, signatures | `base` |
//! | [`hub`] | decisions: apps, channels, homes, logs, what is retained, sweeps, rosters, sessions, letters | `base`, `wire`, `options` |
//! | [`shard`] | one thread: the turn, and everything that it moves | all of the above |
//! | [`edge`] | the thread for what is slow: webhooks, hooks, the journal | `base`, `wire`, `hub`, `options` |
//! | [`load`] | the load generator, `outpour bench`: clients, publishers, scenarios, reports | `base`, `ring`, `wire` |
//! | [`server`] | boot, pinning, signals, drain, doctor | all but `load` |
//!
//! # The path of a message
//!
//! ```text
//! ring.enter           one system call: last turn's sends go out, this turn's completions come in
//! shard::turn          completions -> letters -> timers -> sweeps (budgeted) -> letters out -> sleep
//! intake::on_received  bytes -> wire::http or wire::websocket -> hub::session or wire::api -> events
//! publish::route       home elsewhere? Letter::Publish through the lane
//! hold::take_in        home only: what an app's hook sees waits for its answer, in the channel's order
//! durable::persist     home only: what is to be on disk waits for it, in the channel's order
//! publish::sequence    home only: position, one encode a variant, append; Letter::Deliver to listening shards
//! sweep::sweep         each subscriber behind the head: one send of [cursor..head]
//! sweep::settle        short sends only: the cursor goes back, the socket is waited for
//! ```
//!
//! # Homes
//!
//! Every channel has one home, `hash(app, channel) % shards`. It alone gives positions, and it keeps
//! what a channel remembers: who is in a presence channel, the last event of a cache channel. A
//! variant is a form in which events go on the wire ([`hub::variant`]); each has a log of its own,
//! and a subscription belongs to one. A shard joins a channel for its first subscriber and leaves
//! with its last. Where the home decides on single subscribers (presence, cache), each of them asks
//! it ([`hub::ask`]) and is let in at a position: the answer travels behind every frame before that
//! position and ahead of every one after it, so a roster and the changes to it never disagree. A
//! connection that asks reads no further message until it is answered.
//!
//! A signed-in user is a channel too, `#server-to-user-ID`: its subscribers are the user's connections,
//! and the user is online while there are any. Who watches the user is a subscriber of `#watch-ID`,
//! whose home is the same, so that states and their changes come in one order ([`hub::users`]).
//!
//! Questions of the HTTP API go to the homes of the channels that they are about, a list of channels
//! to every shard in pages; the connection of the request waits meanwhile, as for a publish.
//!
//! So does the question who is furthest behind ([`shard::http::laggards`]), which looks at cursors where they
//! are: a lag is the head minus a cursor, and nothing counts it while frames are sent. Once a second
//! each shard surveys the channels that are not settled, and those who catch up, for the metrics
//! ([`shard::lag`]), some thousand cursors in a turn.
//!
//! Whoever agreed to permessage-deflate gets the variant of its window. Every message is compressed by
//! itself, so its frame is right for all of them, and no connection owns a window: what clients send
//! is inflated in memory of the shard ([`wire::websocket::Inflater`]).
//!
//! # What was missed
//!
//! Channels that a pattern of the options names have serials: the home numbers their events from 1 on,
//! without a hole, within an epoch that begins when the home has nothing of the channel, and every
//! frame carries its number as one more member, for all subscribers: there is no further variant.
//! What the server says of a channel's state (members, counts) has none; it is said anew to those who
//! come. Each of them is let in by the home and told the epoch and where it stands.
//!
//! The home retains the last events as plain frames in segments that do not change
//! ([`hub::retained`]), up to a number, an age and bytes for each channel; beyond what a shard may
//! retain, the channels that hold most lose their oldest segment ([`hub::holdings`]). The live logs
//! are not used for that: what those keep follows from sockets, what is retained from the options.
//!
//! One who resumes or goes back is let in behind the head ([`shard::backlog`]): its shard asks the home
//! for one segment after the other, by the same questions and answers, and is sent them straight from
//! the memory that the home shares. It costs a position and a share, whatever it has missed, and it
//! takes no part in the sweep meanwhile: what is published is retained too. The answer with the last
//! segment stands between the live frames, like every answer to one who comes, so that the subscriber
//! is at its shard's head when it arrives. What went before it was fetched is told as a gap. An event
//! that a connection is excluded from is left out for it here as well, and for the one with which its
//! client comes back, if that says which it was. Pages of what is retained are an answer of the home
//! like those about members; a reader of Server-Sent Events resumes by the id of the last event that
//! it got. Who waits for a page's first event ([`shard::http::poll`]) is answered by
//! the home that there is none, and told when there is: meanwhile nothing is under way, so waiting takes
//! no room from publishes, and each connection waits for one page at most.
//!
//! # How many have an event
//!
//! A publish may ask how many subscribers have its event when it is answered ([`shard::reach`]). Once the
//! event is sequenced, the home names the shards that listen and where the event's frames end; each of
//! them is asked, and counts cursors past that position once its sweep has passed it. Nothing is noted
//! while frames are sent, so that whoever does not ask pays for nothing.
//!
//! # The journal
//!
//! An event of a durable channel is on disk before it is sequenced: its home gives it the serial that
//! it will have and lets it wait ([`shard::home::durable`]), the edge thread writes it ([`edge::journal`]) and
//! says up to where everything is synced, and only then it is appended, delivered and acknowledged.
//! So nobody has seen a serial that a crash takes back, and a start gives homes what they retained,
//! with the same epochs and serials. There is one file that is written to, for all shards: a sync
//! confirms all that waited for it, and what comes meanwhile makes the next group. When a group
//! fails, it and all behind it are refused, and the serials that they would have had are given anew;
//! homes number their rounds, so that what is on its way when that happens is told from what follows.
//!
//! # Repeated publishes
//!
//! A back end may publish again under an idempotency key. Channels that have serials know such a
//! repeat: the key travels with the event to its home, which remembers the keys of the last events
//! beside what it retains ([`hub::repeats`]) and looks for one before anything is given a serial
//! ([`shard::home::repeat`]). So the answer is that of the first, and nobody gets the event again, whichever
//! shard the repeat comes over. What waits for the disk is found by its key too, and the repeat waits
//! with it ([`hub::durable`]); the journal keeps keys, and a start gives them back to homes. Where
//! nothing would remember, the publish is refused.
//!
//! # Sessions over HTTP
//!
//! A client without a WebSocket has a session ([`shard::fallback::sessions`]): a connection's record without
//! a socket, whose frames go out through whatever request of the client receives just then
//! ([`shard::fallback::receivers`]). Without one it stands where a full socket stands. Its frames lie in the
//! log as HTTP chunks, so a stream is sent like any subscriber. A session lives on the shard that
//! its name hashes to; a connection whose request calls it on another shard moves there, socket and
//! all ([`shard::fallback::transfer`]), and stays. A reader of Server-Sent Events ([`shard::http::event_stream`])
//! is an ordinary connection in a variant of its own.
//!
//! # Copies
//!
//! Each shard that listens keeps its own copy of the frames that its subscribers still need: one
//! copy a publish and shard, so that a sweep reads memory of its own core and a log is one
//! contiguous run whatever other shards do.
//!
//! # Overload
//!
//! The engine is behind when a sweep is further back than `log_bytes_max`: the home tells every
//! shard, and publishes to that channel wait where they arrived; after `publish_wait_ms_max` they
//! are refused with 503, and nothing of them was published. What was already on its way when the
//! news went out is still taken, so the bound is soft by what the lanes hold.
//! A subscriber is behind when its socket is full: its cursor stays, the log keeps its frames up to
//! `log_bytes_max` and `log_age_ms_max`. What it got is whole frames: a cursor stands between frames,
//! and the rest of one that its socket took in part is kept for it alone. What is kept for such alone
//! goes first when the logs of a shard hold more than `log_bytes_per_shard_max`.
//! When its next frame has left the log, it is parked, if the channel has serials and its policy lets
//! it lag: its cursor becomes the serial that it has ([`hub::parking`]), and when its socket takes
//! bytes again it catches up from what is retained, like one who resumes. Where the policy is to spare
//! it what is too much, it asks the home as soon as its socket takes bytes again, and the home leaves
//! out all but the newest event, or all but the newest of each key ([`hub::keys`]), and names what it
//! leaves out as gaps. Without serials it is closed with 4100 and counted; it reconnects.
//! A shard is full when it serves `connections_per_shard_max` connections: some more slots are kept
//! for those that come then, to refuse them with 4100 or to answer one HTTP request. When these are
//! taken too, the listener waits.
//! A peer that asks faster than it reads is not read: its next request waits until the answers to
//! those before have gone.
//!
//! # Invariants
//!
//! 1. `hub` and `wire` know no socket, thread or clock: they take bytes, ids and now.
//! 2. `ring` knows no protocol. `unsafe` lives in `base::lane`, `ring::kernel` and `ring::buffers`.
//! 3. `async` appears only in `edge`.
//! 4. Every queue has a bound. What can be derived from state (channels that move, letters that are
//!    owed) is not queued but looked at again.
//! 5. One publish is encoded once for each wire variant in use, however many sockets and shards
//!    receive it.
//! 6. A shard is generic over [`ring::Ring`]; the engine below it never enters the kernel.
//! 7. No subscriber sees a gap, a repeat or a reorder within a channel, but for gaps that it is told
//!    of: only the home gives positions and serials, lanes keep their order, and a cursor moves back
//!    by what a socket did not take.
//! 8. The bytes of a send are borrowed for the length of one system call; sends execute inside it.

pub mod base;
#[cfg(not(loom))]
pub mod edge;
pub mod hub;
#[cfg(not(loom))]
pub mod load;
pub mod options;
pub mod ring;
#[cfg(not(loom))]
pub mod server;
pub mod shard;
pub mod wire;
