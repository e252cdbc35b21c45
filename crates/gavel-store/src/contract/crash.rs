//! A process that works on a store until it is killed, and the check that it kept its word: what it
//! had acknowledged is there when the store is opened again.

use super::model::Random;
use super::{LEASE, completed, new_job, with_callback};
use crate::{Cancelled, Claimant, Deleted, Inserted, Store};
use gavel_core::{JobId, Status, Timestamp, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

const NODE: &str = "crashing";
const WORD: &str = "acknowledged";

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// Works with several tasks at once and prints a line for everything that was acknowledged. Never returns
/// by itself.
pub async fn work_until_killed(store: Arc<dyn Store>, seed: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let store = store.clone();
        let random = Random::new(seed * 100 + task);
        tasks.spawn(async move {
            if task < 3 { submit(&*store, random).await } else { run(&*store, random, task as i32).await }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task of the crashing process");
    }
}

async fn submit(store: &dyn Store, mut random: Random) {
    loop {
        let jobs: Vec<_> = (0..1 + random.below(8))
            .map(|_| {
                let mut new = new_job(now(), random.number());
                // Enough to fill several pages now and then.
                new.job.stdin = vec![b'x'; random.below(20_000) as usize];
                if wants_callback(new.id) { with_callback(new, "https://example.org/") } else { new }
            })
            .collect();
        let ids: Vec<JobId> = jobs.iter().map(|new| new.id).collect();
        let inserted = store.insert(jobs).await.expect("insert");
        assert!(inserted.iter().all(|i| *i == Inserted::New));
        for id in &ids {
            println!("{WORD} inserted {id}");
        }
        if random.below(4) == 0 && store.cancel(ids[0], now()).await.expect("cancel") == Cancelled::Done {
            println!("{WORD} cancelled {}", ids[0]);
            if random.below(2) == 0 {
                assert_eq!(store.delete(ids[0]).await, Ok(Deleted::Done));
                println!("{WORD} deleted {}", ids[0]);
            }
        }
    }
}

async fn run(store: &dyn Store, mut random: Random, worker: i32) {
    loop {
        let workers = (0..1 + random.below(8) as i32).map(|n| worker * 100 + n).collect();
        let claims = store.claim(Claimant { node: NODE.to_owned(), workers }, now(), LEASE).await.expect("claim");
        for claim in &claims {
            println!("{WORD} claimed {}", claim.key.id);
        }
        for claim in claims {
            // Some are left running, to be found so.
            if random.below(5) > 0 {
                store.settle(claim.key, now(), completed(Verdict::Accepted)).await.expect("settle");
                println!("{WORD} completed {}", claim.key.id);
            }
        }
    }
}

/// Every second job.
fn wants_callback(id: JobId) -> bool {
    id.as_bytes()[15].is_multiple_of(2)
}

/// What was said about each job, in order.
#[derive(Debug, Default)]
pub struct Promises {
    said: BTreeMap<JobId, Vec<String>>,
}

impl Promises {
    /// Takes a line of the crashing process; others than its own are ignored.
    pub fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        if let [WORD, what, id] = words[..]
            && let Ok(id) = id.parse()
        {
            self.said.entry(id).or_default().push(what.to_owned());
        }
    }

    pub fn len(&self) -> usize {
        self.said.values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// Everything acknowledged is there.
    pub async fn check(&self, store: &dyn Store) {
        for (id, said) in &self.said {
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            let found = store.find(*id).await.expect("find");
            if said.contains(&"deleted") {
                assert_eq!(found, None, "{id}: {said:?}");
                continue;
            }
            // What came after the last word may have happened too, unsaid: a deletion after a
            // cancellation, a claim after an insertion.
            let Some(record) = found else {
                assert!(said.contains(&"cancelled"), "{id} is lost: {said:?}");
                continue;
            };
            let status = record.status;
            let delivery = store.delivery(*id).await.expect("delivery");
            let owed = status.has_ended() && wants_callback(*id);
            assert_eq!(delivery.is_some(), owed, "{id}: {status}, and its callback {delivery:?}");
            if said.contains(&"cancelled") {
                assert_eq!(status, Status::Cancelled, "{id}: {said:?}");
            } else if said.contains(&"completed") {
                assert_eq!(status, Status::Completed, "{id}: {said:?}");
                assert_eq!(record.outcome.map(|outcome| outcome.stdout.clone()), Some(b"7\n".to_vec()));
            } else if said.contains(&"claimed") {
                assert!(record.attempt >= 1, "{id}: {said:?}, but {status}");
            }
        }
        // The hot set agrees with the listing of it.
        let depth = store.depth().await.expect("depth");
        for (status, count) in [(Status::Pending, depth.pending), (Status::Running, depth.running)] {
            let filter = crate::Filter { status: Some(status), ..Default::default() };
            let listed = store.list(filter, usize::MAX >> 1).await.expect("list");
            assert_eq!(listed.len() as u64, count, "{status}");
        }
    }

    /// Nothing is stuck: all that was left can be taken back and brought to an end.
    pub async fn finish(&self, store: &dyn Store) {
        store.take_back(NODE.to_owned(), now(), u32::MAX).await.expect("take back");
        loop {
            let by = Claimant { node: NODE.to_owned(), workers: (0..100).collect() };
            let claims = store.claim(by, now(), LEASE).await.expect("claim");
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                store.settle(claim.key, now(), completed(Verdict::Accepted)).await.expect("settle");
            }
        }
        assert_eq!(store.depth().await, Ok(crate::Depth::default()));
        for (id, said) in &self.said {
            let ended = store.find(*id).await.expect("find").is_none_or(|record| record.status.has_ended());
            assert!(ended, "{id}: {said:?}");
        }
    }
}
