//! A journal that is written: to real files, and to a disk that becomes full.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::*;
use crate::edge::journal::inspect;
use crate::hub::durable::Written as Word;
use crate::hub::letter::Origin;

const PACE: Pace = Pace {
    segment_bytes_max: 1 << 20,
    gather_ms: 0,
};

const FOREVER: Keep = Keep {
    messages: u64::MAX,
    bytes: u64::MAX,
    age_ms: u64::MAX / 2,
    keys: u64::MAX,
    key_age_ms: u64::MAX / 2,
};

fn append(channel: &str, ticket: u64, round: u32, serial: u64, data: &str) -> Append {
    Append {
        ticket,
        round,
        app: 0,
        origin: Origin::Api,
        epoch: 1,
        serial,
        channel: channel.into(),
        name: "\"said\"".into(),
        data: data.into(),
        user_id: "".into(),
        idempotency_key: "".into(),
    }
}

fn open(directory: &Path, pace: Pace) -> (Desk, BTreeMap<String, Vec<u64>>) {
    let mut channels: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let replay = |replayed: &Replayed<'_>| {
        let serials = channels.entry(replayed.entry.channel.into()).or_default();
        serials.push(replayed.entry.serial);
    };
    let forget = |_: &str, _: &str| panic!("there were no repairs");
    let opened = Opened::open(directory, pace, 2, Metrics::default(), replay, forget);
    let desk = opened.unwrap().0.into_desk();
    (desk, channels)
}

/// Does what is to be done at that moment, and says how many writes that were and what failed.
async fn work(desk: &mut Desk, now_ms: u64, keep: Keep) -> (u32, Vec<io::Error>) {
    let (mut writes, mut errors) = (0, Vec::new());
    while let Some(task) = desk.next_task(now_ms, now_ms, |_, _| keep) {
        writes += u32::from(matches!(task, Task::Write(..)));
        let outcome = task.run().await;
        errors.extend(desk.settle(outcome, now_ms));
    }
    (writes, errors)
}

fn told(desk: &mut Desk) -> Vec<(u16, Word)> {
    std::iter::from_fn(|| desk.next_told())
        .map(|told| (told.shard, told.written))
        .collect()
}

fn synced(shard: u16, ticket: u64) -> (u16, Word) {
    (shard, Word::Synced { ticket })
}

fn failed(shard: u16, round: u32) -> (u16, Word) {
    (shard, Word::Failed { round })
}

#[test]
fn what_waits_during_a_write_goes_out_in_one_write_and_one_sync() {
    let directory = tempfile::tempdir().unwrap();
    let (mut desk, _) = open(directory.path(), PACE);
    tokio_uring::start(async {
        desk.append(0, &append("a", 1, 0, 1, "1"), "1", 0, 0);
        let task = desk.next_task(0, 0, |_, _| FOREVER).unwrap();
        for serial in 2..=100 {
            desk.append(0, &append("a", serial, 0, serial, "2"), "1", 0, 0);
            desk.append(1, &append("b", serial, 0, serial, "3"), "1", 0, 0);
        }
        assert!(
            desk.next_task(0, 0, |_, _| FOREVER).is_none(),
            "one at a time"
        );
        assert!(!desk.is_idle() && told(&mut desk).is_empty());
        let outcome = task.run().await;
        assert!(desk.settle(outcome, 0).is_none());
        assert_eq!(told(&mut desk), [synced(0, 1)]);
        let (writes, errors) = work(&mut desk, 0, FOREVER).await;
        assert_eq!((writes, errors.len()), (1, 0));
        assert_eq!(told(&mut desk), [synced(0, 100), synced(1, 100)]);
        assert!(desk.is_idle());
        desk.end();
        work(&mut desk, 0, FOREVER).await;
        assert!(told(&mut desk).is_empty());
    });
    drop(desk);
    let (_, channels) = open(directory.path(), PACE);
    assert_eq!(channels["a"], (1..=100).collect::<Vec<_>>());
    assert_eq!(channels["b"], (2..=100).collect::<Vec<_>>());
}

#[test]
fn a_journal_goes_on_after_a_start_and_writes_wait_for_their_time() {
    let directory = tempfile::tempdir().unwrap();
    let pace = Pace {
        gather_ms: 10,
        ..PACE
    };
    for round in 0..3 {
        let (mut desk, channels) = open(directory.path(), pace);
        let known: Vec<u64> = (1..=2 * round).collect();
        assert_eq!(channels.get("a").cloned().unwrap_or_default(), known);
        tokio_uring::start(async {
            desk.append(0, &append("a", 1, 0, 2 * round + 1, ""), "1", 0, 100);
            assert_eq!(work(&mut desk, 100, FOREVER).await.0, 1);
            desk.append(0, &append("a", 2, 0, 2 * round + 2, ""), "1", 0, 101);
            assert_eq!(desk.next_ms(), Some(110));
            assert_eq!(work(&mut desk, 109, FOREVER).await.0, 0);
            assert_eq!(work(&mut desk, 110, FOREVER).await.0, 1);
        });
        assert_eq!(told(&mut desk), [synced(0, 1), synced(0, 2)]);
    }
    assert_eq!(
        fs::read_dir(directory.path()).unwrap().count(),
        2,
        "one segment and the lock"
    );
}

#[test]
fn segments_follow_each_other_and_go_when_nobody_needs_them() {
    let directory = tempfile::tempdir().unwrap();
    let pace = Pace {
        segment_bytes_max: 1000,
        ..PACE
    };
    let keep = Keep {
        messages: 20,
        ..FOREVER
    };
    let (mut desk, _) = open(directory.path(), pace);
    tokio_uring::start(async {
        for serial in 1..=100 {
            // Each at a moment at which it is looked whether a segment may go.
            let now_ms = serial * limits::JOURNAL_REMOVAL_LOOK_MS;
            let append = append("a", serial, 0, serial, "12345678");
            desk.append(0, &append, "1", now_ms, now_ms);
            assert_eq!(work(&mut desk, now_ms, keep).await.0, 1);
        }
    });
    let segments = desk.segments();
    assert!((3..=5).contains(&segments), "{segments}");
    drop(desk);
    let files = fs::read_dir(directory.path())
        .unwrap()
        .map(|file| file.unwrap());
    let lengths: Vec<u64> = files.map(|file| file.metadata().unwrap().len()).collect();
    assert_eq!(lengths.len(), segments + 1);
    assert!(lengths.iter().all(|length| *length <= 1000));
    let (mut desk, channels) = open(directory.path(), pace);
    let serials = &channels["a"];
    assert!((20..40).contains(&serials.len()));
    assert_eq!(
        *serials,
        (101 - serials.len() as u64..=100).collect::<Vec<_>>()
    );
    // What was read counts as what was written does.
    let old = Keep {
        age_ms: 10,
        ..FOREVER
    };
    tokio_uring::start(work(&mut desk, u64::MAX / 2, old));
    assert_eq!(desk.segments(), 1);
}

#[test]
fn what_failed_is_refused_with_what_is_behind_it_and_is_not_replayed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let (mut desk, _) = open(&path, PACE);
    let aside = directory.path().join("aside");
    tokio_uring::start(async {
        desk.append(0, &append("a", 1, 0, 1, ""), "1", 0, 0);
        work(&mut desk, 0, FOREVER).await;
        assert_eq!(told(&mut desk), [synced(0, 1)]);
        // The next segment cannot be made: its directory is not there.
        desk.commit.begin_segment();
        fs::rename(&path, &aside).unwrap();
        desk.append(0, &append("a", 2, 0, 2, ""), "1", 0, 1);
        let task = desk.next_task(1, 1, |_, _| FOREVER).unwrap();
        desk.append(1, &append("b", 1, 0, 1, ""), "1", 0, 1);
        let outcome = task.run().await;
        assert!(desk.settle(outcome, 1).is_some());
        assert_eq!(told(&mut desk), [failed(0, 0), failed(1, 0)]);
        // What was under way when it failed is left alone; of the next round it is told at once.
        desk.append(0, &append("a", 3, 0, 3, ""), "1", 0, 2);
        assert!(desk.is_idle() && told(&mut desk).is_empty());
        desk.append(0, &append("a", 4, 1, 2, ""), "1", 0, 3);
        assert!(desk.is_idle());
        assert_eq!(told(&mut desk), [failed(0, 1)]);
        // Later it is tried again.
        let later = 1 + limits::JOURNAL_RETRY_MS;
        desk.append(0, &append("a", 5, 2, 2, ""), "1", 0, later);
        assert_eq!(work(&mut desk, later, FOREVER).await.1.len(), 1);
        assert_eq!(told(&mut desk), [failed(0, 2)]);
        fs::rename(&aside, &path).unwrap();
        let later = later + limits::JOURNAL_RETRY_MS;
        desk.append(0, &append("a", 6, 3, 2, "\"kept\""), "1", 0, later);
        desk.append(1, &append("b", 2, 1, 1, ""), "1", 0, later);
        assert_eq!(work(&mut desk, later, FOREVER).await.1.len(), 0);
        assert_eq!(told(&mut desk), [synced(0, 6), synced(1, 2)]);
    });
    drop(desk);
    let (_, channels) = open(&path, PACE);
    assert_eq!((&*channels["a"], &*channels["b"]), (&[1, 2][..], &[1][..]));
}

/// A small file system that is gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing where mounting is not allowed, which is said past the capture of test output.
    fn mount(path: &Path) -> Option<SmallDisk> {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(path)
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(SmallDisk(path.into())),
            Ok(_) | Err(_) => {
                let words =
                    "\n*** NOT TESTED: a full disk, for mounting a tmpfs is not allowed here ***\n";
                io::stderr().write_all(words.as_bytes()).unwrap();
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(umount.is_ok_and(|status| status.success()));
    }
}

/// Fails if a group is confirmed without its sync, or if what a full disk took in part is kept.
#[test]
fn a_full_disk_refuses_loses_nothing_and_is_written_again_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&directory.path().join("disk")) else {
        return;
    };
    let path = disk.0.join("journal");
    let ballast = disk.0.join("ballast");
    fs::write(&ballast, vec![1; 64 << 10]).unwrap();
    let (mut desk, _) = open(&path, PACE);
    let confirmed = Rc::new(Cell::new(0));
    let known = confirmed.clone();
    tokio_uring::start(async move {
        let data = format!("\"{}\"", "x".repeat(3000));
        let (mut ticket, mut round, mut now_ms) = (0, 0, 1000);
        let mut refusals = 0;
        // Fill it twice: once there is room again, it goes on.
        while refusals < 4 {
            // Several in a group, so that a write can end within it.
            for place in 1..=5 {
                ticket += 1;
                let serial = known.get() + place;
                desk.append(
                    0,
                    &append("a", ticket, round, serial, &data),
                    "1",
                    0,
                    now_ms,
                );
            }
            let (writes, errors) = work(&mut desk, now_ms, FOREVER).await;
            assert_eq!(writes, 1);
            match &told(&mut desk)[..] {
                [(0, Word::Synced { ticket: to })] => {
                    assert_eq!((*to, errors.len()), (ticket, 0));
                    known.set(known.get() + 5);
                }
                [(0, Word::Failed { round: of })] => {
                    assert_eq!((*of, errors.len()), (round, 1));
                    assert_eq!(
                        errors[0].raw_os_error(),
                        Some(28),
                        "no space left on device"
                    );
                    refusals += 1;
                    round += 1;
                    now_ms += limits::JOURNAL_RETRY_MS;
                    if refusals == 2 {
                        assert!(known.get() > 20);
                        fs::remove_file(&ballast).unwrap();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(desk.is_idle());
    });
    let mut out = Vec::new();
    assert!(inspect::verify(&path, &mut out).unwrap());
    let (_, channels) = open(&path, PACE);
    assert!(confirmed.get() > 60, "{}", confirmed.get());
    assert_eq!(channels["a"], (1..=confirmed.get()).collect::<Vec<_>>());
}
