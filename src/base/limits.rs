//! Every bound of the engine that is not a setting, each with the reason for its value.
//!
//! Bounds that an operator may want to move are settings with a default (`options`); these are the
//! ones whose value follows from the engine's own structure.

/// How long a turn with a long sweep is to take: what the sweep adds to the delay of everything
/// else. A system call and a look around are noise beside it.
pub const TURN_US: u64 = 5_000;

/// Visits that a turn may plan, whatever they cost: at 4 us for the cheapest, the most take some
/// 4 ms; the least go on with the sweep when receiving takes all the time that there is.
pub const VISITS_PER_TURN_MOST: usize = 1024;
pub const VISITS_PER_TURN_LEAST: usize = 128;

/// Deliveries that a turn plans, if there are so many to make, even when its time is over: what
/// keeps the system calls at 1 for 1,000 of them. While visits carry many frames, the time decides.
pub const DELIVERIES_PER_TURN_LEAST: u64 = 1_000;

/// A turn with fewer visits says more about the rest of it than about them.
pub const VISITS_TO_LEARN_FROM: usize = 64;

/// Sends that one channel may add before it goes to the back of the queue of moving channels.
pub const VISITS_PER_CHANNEL: usize = 512;

/// Subscribers that one sweep looks at in a turn, those that need nothing included: 16 bytes each
/// in sequence, some 20 us.
pub const LOOKS_PER_TURN: usize = 32 * 1024;

/// How exactly a log knows when its frames came: what blocked subscribers lack is dropped by age in
/// steps of this, and how far somebody is behind is told to within one. At 16 bytes a step, a log that
/// holds the frames of half a minute spends 5 KiB on it.
pub const LOG_AGE_STEP_MS: u64 = 100;

/// Subscribers and channels that a turn looks at to find who is behind: half a millisecond if all
/// of them are blocked and their records lie in no cache, a tenth of that otherwise.
pub const LAG_LOOKS_PER_TURN: usize = 4096;

/// What one who catches up counts as: the frames that it was given and has not been sent are walked.
pub const LAG_LOOKS_PER_BACKLOG: usize = 64;

/// Counts of subscribers who have an event, of one shard at once; those beyond are answered without
/// one. Each is looked at once a turn: some 20 us for all of them.
pub const REACH_COUNTS_MAX: usize = 1024;

/// Subscribers that a turn looks at for all of them: 16 bytes each in sequence and a bit of each,
/// some 100 us.
pub const REACH_LOOKS_PER_TURN: usize = 64 * 1024;

/// What one counts as whose connection's record, which lies in no cache, is read too.
pub const REACH_LOOKS_PER_RECORD: usize = 16;

/// How long a count waits for the sweep, and how long counting may then take.
pub const REACH_WAIT_MS: u64 = 1_000;
pub const REACH_COUNT_MS: u64 = 1_000;

/// Channels with the worst lags whose figures a shard keeps for its metrics, and those that are told
/// of all shards together: a number of series that a monitor bears.
pub const LAG_CHANNELS_KEPT: usize = 16;
pub const LAG_CHANNELS_TOLD: usize = 10;

/// Bytes of a channel's name in them; a longer name is cut.
pub const LAG_NAME_BYTES: usize = 256;

/// Accepts that wait in the ring at once; each owns the storage for one peer's address.
pub const ACCEPTS_WAITING: u32 = 64;

/// Slots of the file table beyond the connections that a shard serves: whoever gets one is told
/// that there is no room, or has one HTTP request answered. As many as may wait to be accepted.
pub const RESERVE_SLOTS: u32 = ACCEPTS_WAITING;

/// How long a connection on one of those slots has for its request.
pub const RESERVE_HANDSHAKE_MS: u64 = 1_000;

/// Submission queue entries: a turn's visits and about as many operations in one system call.
pub const SUBMISSION_ENTRIES: u32 = 2048;

/// Completion queue entries. Healthy sends leave none, so this bounds receives between two turns;
/// an overflow costs a re-armed receive, never data.
pub const COMPLETION_ENTRIES: u32 = 8192;

/// Receive buffers of a shard, shared by all its connections: 2 MiB.
pub const RECEIVE_BUFFERS: u16 = 512;
pub const RECEIVE_BUFFER_BYTES: u32 = 4096;

/// Letters that one lane holds. Half are set aside for publishes and their receipts, so that a
/// receipt always finds room; the rest carry state that is offered again in the next turn.
pub const LANE_LETTERS: usize = 1024;

/// Channels with letters to post that one turn looks at: what all lanes of a few shards can take.
pub const OWING_PER_TURN: usize = 4 * LANE_LETTERS;

/// Publishes that one shard may have under way to one home: the credit that keeps room for their
/// receipts. At least as many as one event has channels.
pub const PUBLISHES_UNDER_WAY_MAX: u32 = 256;

/// Room that letters which can be offered again must leave free in a lane: one receipt for every
/// publish under way, and as many publishes.
pub const LANE_RESERVE: usize = 2 * PUBLISHES_UNDER_WAY_MAX as usize;

/// Replies that wait for one connection whose socket is full; when they are more, the peer asks
/// without reading, and the connection is closed.
pub const OUTBOX_BYTES_MAX: usize = 256 * 1024;

/// Bytes that a connection may send ahead while its request waits; then its receive is stopped
/// until the request is answered, and TCP holds the peer back.
pub const READ_AHEAD_BYTES_MAX: usize = 64 * 1024;

/// Publishes of one connection whose homes have not confirmed them yet, beside the last. Their
/// answers go together, so that more would make the first answer late.
pub const PUBLISHES_AHEAD_MAX: u32 = 64;

/// How long a closing connection waits for the peer's end of stream, so that the last bytes sent
/// are not lost to a reset.
pub const LINGER_MS: u64 = 2_000;

/// How long an idle HTTP connection is kept for the next request.
pub const KEEP_ALIVE_MS: u64 = 75_000;

/// How long a shard waits before it accepts again after the system refused a socket.
pub const ACCEPT_RETRY_MS: u64 = 100;

/// How often a shard that drains looks whether the others have no connection left either.
pub const DRAINED_LOOK_MS: u64 = 20;

/// Resolution of timers: fine enough for the shortest timeout, coarse enough that an idle shard
/// with 20,000 connections wakes rarely.
pub const TIMER_TICK_MS: u64 = 64;

/// How often channels that keep frames for blocked subscribers are looked through.
pub const HOUSEKEEPING_MS: u64 = 1_000;

/// Logs that a shard keeps for the next channel that moves, and the largest it keeps: warm memory
/// instead of an allocation for every publish to a quiet channel.
pub const SPARE_LOGS_MAX: usize = 256;
pub const SPARE_LOG_BYTES_MAX: usize = 1 << 20;

/// What an inflater keeps of the room that a compressed message took: enough for any that is not
/// unusual, so that messages that are cost the shard no memory when they are gone.
pub const SPARE_INFLATED_BYTES_MAX: usize = 64 * 1024;

/// Room that an inflater takes at first; then it doubles up to what a message may have.
pub const INFLATE_STEP_BYTES: usize = 4096;

/// Outbox buffers kept for the next reply, and the largest kept.
pub const SPARE_OUTBOXES_MAX: usize = 256;
pub const SPARE_OUTBOX_BYTES_MAX: usize = 16 * 1024;

/// Records of requests that wait kept for the next one, and the most bytes of input that one may
/// have held: as many publishes as may be under way to one home need no allocation.
pub const SPARE_WAITS_MAX: usize = PUBLISHES_UNDER_WAY_MAX as usize;
pub const SPARE_WAIT_BYTES_MAX: usize = 16 * 1024;

/// The longest time that is told apart from longer ones, and how far back quantiles look.
pub const LATENCY_US_MAX: u64 = 60_000_000;
pub const LATENCY_WINDOW_S: u32 = 60;

/// Shards of one process: the width of a shard's number in a socket id.
pub const SHARDS_MAX: usize = 1024;

/// Connections of one shard: the width of a slot in a socket id.
pub const SLOTS_MAX: u32 = 1 << 24;

/// The bytes of frames that cross to other shards are cut from buffers of this size.
pub const ARENA_BYTES: usize = 256 * 1024;

/// Letters on their way from one shard to the edge thread; what comes when they are that many is
/// dropped and counted. As many channels may be vacated within a few turns when a server drains:
/// 1 MiB, touched as far as it is used.
pub const EDGE_LANE_LETTERS: usize = 64 * 1024;

/// Notices of one shard that the edge thread reads before it looks after requests again.
pub const EDGE_LETTERS_PER_TURN: usize = 1024;

/// Departures that wait for a return, of all apps: some 300 bytes each. When they are that many,
/// the next ones are told at once.
pub const DEPARTURES_WAITING_MAX: usize = 1 << 18;

/// The body of one request to a webhook; a single event may be longer.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 256 * 1024;

/// What is read of a webhook's answer so that its connection can be used again; a longer one ends
/// the connection.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What one queued event takes besides its text, as far as the bound on bytes is concerned.
pub const WEBHOOK_EVENT_OVERHEAD_BYTES: usize = 128;

/// Channels that a shard looks at for one page of a list: a few hundred microseconds of a turn.
pub const LISTED_PER_PAGE: u32 = 4096;

/// Subscribers up to which each change of their number is told at once; of more it is told this
/// often, in seconds, as the documentation of subscription counts has it.
pub const COUNTED_AT_ONCE_MAX: u32 = 100;
pub const COUNTED_EVERY_S: u32 = 5;

/// Events of one shard's homes that wait for hooks; the next ones are refused. The lane
/// by which the answers come holds as many, so that each finds room.
pub const HELD_EVENTS_MAX: usize = 8192;

/// Those of one channel, so that a channel whose hook is slow leaves room for others.
pub const HELD_EVENTS_PER_CHANNEL_MAX: usize = 1024;

/// Bytes of their texts.
pub const HELD_BYTES_MAX: usize = 64 << 20;

/// What is read of a hook's answer; a longer one counts as none.
pub const HOOK_ANSWER_BYTES_MAX: usize = 32 << 20;

/// Retained events lie in segments of this size, or of the one longer event in it; one who catches
/// up is sent at most one of them at a time, so that it lacks the live log no longer than a socket
/// takes for that.
pub const SEGMENT_BYTES: usize = 64 * 1024;

/// Of a segment that still grows a reader gets a copy, if that is so short; else the segment is
/// closed and shared, so that what readers hold does not grow with their number, and segments are
/// not so short that their records weigh.
pub const COPIED_BYTES_MAX: usize = 4 * 1024;

/// Those who catch up whose next events a turn looks for: at most 2 MiB to send, unless sockets take
/// less and come for the rest.
pub const FETCHES_PER_TURN: usize = 32;

/// Bytes that a turn plans for those who catch up, to a segment: some 2 ms. Beside live visits it is a
/// quarter of that, so that a sweep takes little longer for them, and they get what it leaves.
pub const BACKLOG_BYTES_PER_TURN: usize = 4 << 20;
pub const BACKLOG_BYTES_BESIDE_VISITS: usize = 1 << 20;

/// Publishes under way that those who catch up leave room for.
pub const FETCH_CREDIT_RESERVE: u32 = PUBLISHES_UNDER_WAY_MAX / 2;

/// What one who catches up gets at a time where its events are encoded for it alone.
pub const ENCODED_CHUNK_BYTES: usize = 16 * 1024;

/// The key of an event, in bytes; as long as names may be by default.
pub const EVENT_KEY_BYTES_MAX: usize = 200;

/// Events that are looked through at a time for one who gets the newest of each key: some 100 us.
pub const LOOKED_THROUGH_MAX: u64 = 4096;

/// The longest time for which an event is retained: a year.
pub const RETENTION_S_MAX: u64 = 31_536_000;

/// How long the journal refuses at once after a write has failed; the next event after that tries
/// again. Short beside the time in which somebody makes room on a disk.
pub const JOURNAL_RETRY_MS: u64 = 250;

/// The buffer of a group that the journal keeps for the next one.
pub const JOURNAL_SPARE_BYTES_MAX: usize = 4 << 20;

/// How long the journal waits before it tries again to remove a segment that it could not remove.
pub const JOURNAL_REMOVAL_RETRY_MS: u64 = 60_000;

/// How often the journal looks for segments that nobody needs: a look goes through the channels of the
/// oldest one.
pub const JOURNAL_REMOVAL_LOOK_MS: u64 = 10_000;

/// Events of one shard's homes that wait for the disk, bytes of their texts, and requests that wait
/// because they repeat one of them; the next ones are refused. The lane by which the journal's words
/// come holds one for each event.
pub const JOURNAL_EVENTS_MAX: usize = 16 * 1024;
pub const JOURNAL_BYTES_MAX: usize = 64 << 20;

/// Words of the edge thread on their way to one shard: an answer for each question, and for the journal
/// at most one for each event that waits. A power of two, as lanes are.
pub const EDGE_WORDS: usize = 32 * 1024;
const _: () = assert!(EDGE_WORDS > HELD_EVENTS_MAX + JOURNAL_EVENTS_MAX);
