//! Thousands of random operations on a store, and on a model so simple that it is plainly right.

use super::store::keeps;
use super::{Fixture, NODE, at, completed, full_job, full_outcome, id_at, new_job, outcome};
use crate::{
    Cancelled, ClaimKey, Claimant, Deleted, Depth, Filter, Idempotency, Inserted, JobRecord, Lease, NewJob, Settlement,
    Store, StoreError, Swept,
};
use gavel_core::{JobId, Outcome, Status, Timestamp, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MAX_DEPTH: u64 = 40;
const MAX_ATTEMPTS: u32 = 3;

/// xorshift64*: the same sequence for the same seed, on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len() as u64) as usize) }
    }
}

#[derive(Debug)]
struct ModelJob {
    record: JobRecord,
    tries: u32,
    not_before: Timestamp,
    lease_until: Timestamp,
    cancel_wanted: bool,
}

#[derive(Debug, Default)]
struct Model {
    jobs: BTreeMap<JobId, ModelJob>,
    keys: BTreeMap<(Option<String>, String), ([u8; 32], JobId)>,
}

impl Model {
    fn with(&self, status: Status) -> impl Iterator<Item = &ModelJob> {
        self.jobs.values().filter(move |job| job.record.status == status)
    }

    fn insert(&mut self, new: &NewJob) -> Inserted {
        let key = new.idempotency.as_ref().map(|i| ((new.owner.clone(), i.key.clone()), i.fingerprint));
        if let Some((fingerprint, id)) = key.as_ref().and_then(|(key, _)| self.keys.get(key)) {
            let same = key.as_ref().is_some_and(|(_, asked)| asked == fingerprint);
            return if same { Inserted::Existing(*id) } else { Inserted::Conflict };
        }
        if self.with(Status::Pending).count() as u64 >= MAX_DEPTH {
            return Inserted::QueueFull;
        }
        if let Some((key, fingerprint)) = key {
            self.keys.insert(key, (fingerprint, new.id));
        }
        let record = JobRecord {
            id: new.id,
            job: new.job.clone(),
            owner: new.owner.clone(),
            status: Status::Pending,
            worker_id: None,
            node: None,
            attempt: 0,
            error_message: None,
            outcome: None,
            created_at: new.created_at,
            started_at: None,
            completed_at: None,
        };
        let zero = Timestamp(0);
        let job = ModelJob { record, tries: 0, not_before: zero, lease_until: zero, cancel_wanted: false };
        self.jobs.insert(new.id, job);
        Inserted::New
    }

    fn claim(&mut self, by: &Claimant, now: Timestamp, lease: Duration) -> Vec<(ClaimKey, u32, i32)> {
        let mut order: Vec<_> = self
            .with(Status::Pending)
            .filter(|job| job.not_before <= now)
            .map(|job| (job.record.created_at.0 - i64::from(job.record.job.priority) * 10_000_000, job.record.id))
            .collect();
        order.sort_unstable();
        let mut claims = Vec::new();
        for (&worker, (_, id)) in by.workers.iter().zip(order) {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.tries += 1;
            job.lease_until = now.plus(lease);
            job.cancel_wanted = false;
            job.record.attempt += 1;
            job.record.status = Status::Running;
            job.record.worker_id = Some(worker);
            job.record.node = Some(by.node.clone());
            job.record.started_at = Some(now);
            claims.push((ClaimKey { id, attempt: job.record.attempt }, job.tries, worker));
        }
        claims
    }

    fn held(&mut self, key: ClaimKey) -> Option<&mut ModelJob> {
        self.jobs
            .get_mut(&key.id)
            .filter(|job| job.record.status == Status::Running && job.record.attempt == key.attempt)
    }

    fn settle(&mut self, key: ClaimKey, now: Timestamp, end: &Settlement) -> Result<(), StoreError> {
        let job = self.held(key).ok_or(StoreError::LeaseLost)?;
        match end {
            Settlement::Completed(outcome) => job.end(now, Status::Completed, Some(outcome), None),
            Settlement::Failed { message } => job.end(now, Status::Failed, None, Some(message)),
            Settlement::Cancelled => job.end(now, Status::Cancelled, None, None),
            Settlement::Released { delay, count_attempt } => {
                job.tries -= u32::from(!count_attempt);
                job.put_back(now, now.plus(*delay));
            }
        }
        Ok(())
    }

    fn extend(&mut self, key: ClaimKey, now: Timestamp, lease: Duration) -> Lease {
        match self.held(key) {
            None => Lease::Lost,
            Some(job) => {
                job.lease_until = now.plus(lease);
                if job.cancel_wanted { Lease::CancelWanted } else { Lease::Held }
            }
        }
    }

    fn take_back(&mut self, lost: impl Fn(&ModelJob) -> bool, now: Timestamp) -> Swept {
        let mut swept = Swept::default();
        for job in self.jobs.values_mut().filter(|job| job.record.status == Status::Running && lost(job)) {
            if job.cancel_wanted {
                job.put_back(now, now);
            } else if job.tries < MAX_ATTEMPTS {
                swept.requeued += 1;
                job.put_back(now, now);
            } else {
                swept.failed += 1;
                job.end(now, Status::Failed, None, Some("lost"));
            }
        }
        swept
    }

    fn cancel(&mut self, id: JobId, now: Timestamp) -> Cancelled {
        let Some(job) = self.jobs.get_mut(&id) else { return Cancelled::Unknown };
        match job.record.status {
            Status::Pending => {
                job.end(now, Status::Cancelled, None, None);
                Cancelled::Done
            }
            Status::Running => {
                job.cancel_wanted = true;
                Cancelled::Wanted
            }
            ended => Cancelled::Ended(ended),
        }
    }

    fn delete(&mut self, id: JobId) -> Deleted {
        match self.jobs.get(&id).map(|job| job.record.status) {
            None => Deleted::Unknown,
            Some(status) if status.has_ended() => {
                self.jobs.remove(&id);
                Deleted::Done
            }
            Some(status) => Deleted::NotEnded(status),
        }
    }

    fn depth(&self) -> Depth {
        Depth {
            pending: self.with(Status::Pending).count() as u64,
            running: self.with(Status::Running).count() as u64,
            oldest_pending: self.with(Status::Pending).map(|job| job.record.created_at).min(),
        }
    }
}

impl ModelJob {
    fn end(&mut self, now: Timestamp, status: Status, outcome: Option<&Arc<Outcome>>, message: Option<&str>) {
        self.record.status = status;
        self.record.completed_at = Some(now);
        self.record.outcome = outcome.cloned();
        self.record.error_message = message.map(str::to_owned);
    }

    fn put_back(&mut self, now: Timestamp, not_before: Timestamp) {
        if self.cancel_wanted {
            return self.end(now, Status::Cancelled, None, None);
        }
        self.not_before = not_before;
        self.record.status = Status::Pending;
        self.record.worker_id = None;
        self.record.node = None;
        self.record.started_at = None;
    }
}

/// The walk: a store, its model, and what a client and a worker would remember.
struct Walk<'a> {
    fixture: &'a dyn Fixture,
    store: Arc<dyn Store>,
    model: Model,
    random: Random,
    now: Timestamp,
    born: u64,
    ids: Vec<JobId>,
    keys: Vec<ClaimKey>,
}

/// Walks `steps` random steps; a failure names the seed and the step, which repeat it.
pub async fn random_walk(fixture: &dyn Fixture, seed: u64, steps: usize) {
    let store = fixture.fresh(MAX_DEPTH).await;
    let (model, random) = (Model::default(), Random::new(seed));
    let (ids, keys) = (Vec::new(), Vec::new());
    let mut walk = Walk { fixture, store, model, random, now: at(0), born: 0, ids, keys };
    for step in 0..steps {
        let place = format!("seed {seed}, step {step}");
        walk.now = walk.now.plus(Duration::from_millis(walk.random.below(3000)));
        match walk.random.below(100) {
            0..30 => walk.insert(&place).await,
            30..50 => walk.claim(&place).await,
            50..75 => walk.settle(&place).await,
            75..81 => walk.extend(&place).await,
            81..86 => walk.cancel(&place).await,
            86..89 => walk.delete(&place).await,
            89..92 => walk.sweep(&place).await,
            92..96 => walk.list(&place).await,
            96 => walk.retain(&place).await,
            _ => walk.look(&place).await,
        }
        if walk.random.one_in(400) {
            walk.store = walk.fixture.reopen(walk.store).await;
        }
        assert_eq!(walk.store.depth().await, Ok(walk.model.depth()), "{place}");
    }
    for id in walk.ids.clone() {
        walk.compare(id, &format!("seed {seed}, the end")).await;
    }
}

impl Walk<'_> {
    fn any_id(&mut self) -> JobId {
        let unknown = id_at(self.now, u64::MAX);
        if self.random.one_in(20) { unknown } else { self.random.pick(&self.ids).copied().unwrap_or(unknown) }
    }

    /// Mostly a claim that may still be held, now and then an old or an impossible one.
    fn any_key(&mut self) -> ClaimKey {
        let index = self.keys.len().saturating_sub(1 + self.random.below(12) as usize);
        let mut key = self.keys.get(index).copied().unwrap_or(ClaimKey { id: id_at(self.now, 0), attempt: 1 });
        if self.random.one_in(15) {
            key.attempt += 1;
        }
        key
    }

    fn any_job(&mut self) -> NewJob {
        self.born += 1;
        let template = if self.random.one_in(10) { full_job(self.now) } else { new_job(self.now, 0) };
        let mut new = NewJob { id: id_at(self.now, self.born), idempotency: None, ..template };
        new.job.priority = self.random.below(7) as i32 - 3;
        new.job.language = ["c", "python3"][self.random.below(2) as usize].to_owned();
        new.owner = [None, Some("a"), Some("b")][self.random.below(3) as usize].map(str::to_owned);
        if self.random.one_in(4) {
            let key = format!("key {}", self.random.below(30));
            new.idempotency = Some(Idempotency { key, fingerprint: [self.random.below(2) as u8; 32] });
        }
        new
    }

    fn any_end(&mut self) -> Settlement {
        match self.random.below(10) {
            0..3 => completed(Verdict::Accepted),
            3 => Settlement::Completed(Arc::new(full_outcome())),
            4 => {
                let verdict = Verdict::ALL[self.random.below(7) as usize];
                Settlement::Completed(Arc::new(outcome(verdict)))
            }
            5 => Settlement::Failed { message: "x".to_owned() },
            6 => Settlement::Cancelled,
            n => {
                let delay = Duration::from_secs(self.random.below(20));
                Settlement::Released { delay, count_attempt: n == 7 }
            }
        }
    }

    async fn insert(&mut self, place: &str) {
        let jobs: Vec<NewJob> = (0..1 + self.random.below(6)).map(|_| self.any_job()).collect();
        let expected: Vec<Inserted> = jobs.iter().map(|new| self.model.insert(new)).collect();
        let ids: Vec<JobId> = jobs.iter().map(|new| new.id).collect();
        assert_eq!(self.store.insert(jobs).await, Ok(expected), "{place}");
        self.ids.extend(ids);
    }

    async fn claim(&mut self, place: &str) {
        let node = [NODE, "node-2"][self.random.below(2) as usize].to_owned();
        let by = Claimant { node, workers: (0..1 + self.random.below(5) as i32).collect() };
        let lease = Duration::from_secs(5 + self.random.below(30));
        let expected = self.model.claim(&by, self.now, lease);
        let claims = self.store.claim(by, self.now, lease).await.expect(place);
        let got: Vec<_> = claims.iter().map(|claim| (claim.key, claim.tries, claim.worker)).collect();
        assert_eq!(got, expected, "{place}");
        for claim in claims {
            let record = &self.model.jobs[&claim.key.id].record;
            assert_eq!((&claim.job, claim.created_at), (&record.job, record.created_at), "{place}");
            self.keys.push(claim.key);
        }
    }

    async fn settle(&mut self, place: &str) {
        let (key, end) = (self.any_key(), self.any_end());
        let expected = self.model.settle(key, self.now, &end);
        assert_eq!(self.store.settle(key, self.now, end).await, expected, "{place}");
    }

    async fn extend(&mut self, place: &str) {
        let keys: Vec<ClaimKey> = (0..3).map(|_| self.any_key()).collect();
        let lease = Duration::from_secs(5 + self.random.below(30));
        let expected: Vec<Lease> = keys.iter().map(|key| self.model.extend(*key, self.now, lease)).collect();
        assert_eq!(self.store.extend(keys, self.now, lease).await, Ok(expected), "{place}");
    }

    async fn cancel(&mut self, place: &str) {
        let id = self.any_id();
        let expected = self.model.cancel(id, self.now);
        assert_eq!(self.store.cancel(id, self.now).await, Ok(expected), "{place}");
    }

    async fn delete(&mut self, place: &str) {
        let id = self.any_id();
        // A key outlives its job here: the walk takes less than a day.
        let expected = self.model.delete(id);
        assert_eq!(self.store.delete(id).await, Ok(expected), "{place}");
    }

    async fn sweep(&mut self, place: &str) {
        let now = self.now;
        let swept = if self.random.one_in(4) {
            let expected = self.model.take_back(|job| job.record.node.as_deref() == Some(NODE), now);
            (self.store.take_back(NODE.to_owned(), now, MAX_ATTEMPTS).await, expected)
        } else {
            let expected = self.model.take_back(|job| job.lease_until <= now, now);
            (self.store.sweep(now, MAX_ATTEMPTS).await, expected)
        };
        assert_eq!(swept.0, Ok(swept.1), "{place}");
    }

    async fn retain(&mut self, place: &str) {
        let before = self.now.minus(Duration::from_secs(self.random.below(600)));
        let mut old: Vec<_> = self
            .model
            .jobs
            .values()
            .filter(|job| job.record.completed_at.is_some_and(|end| end < before))
            .map(|job| job.record.id)
            .collect();
        // All or none: which ones a smaller number takes is no rule.
        let max = if self.random.one_in(2) { 0 } else { usize::MAX };
        old.truncate(max);
        for id in &old {
            self.model.jobs.remove(id);
        }
        assert_eq!(self.store.retain(before, max).await, Ok(old.len() as u64), "{place}");
    }

    async fn list(&mut self, place: &str) {
        let random = &mut self.random;
        let some_time = |random: &mut Random| at(random.below(2000));
        let filter = Filter {
            owner: random.one_in(3).then(|| "a".to_owned()),
            status: if random.one_in(2) { random.pick(&Status::ALL).copied() } else { None },
            verdict: if random.one_in(3) { random.pick(&Verdict::ALL).copied() } else { None },
            language: random.one_in(3).then(|| "c".to_owned()),
            created_after: if random.one_in(3) { Some(some_time(random)) } else { None },
            created_before: if random.one_in(3) { Some(some_time(random)) } else { None },
            before: if random.one_in(3) { random.pick(&self.ids).copied() } else { None },
        };
        let limit = random.below(30) as usize;
        let records = self.model.jobs.values().rev().map(|job| &job.record);
        let expected: Vec<_> =
            records.filter(|record| keeps(&filter, record)).take(limit).map(|r| (r.id, r.status, r.attempt)).collect();
        let listed = self.store.list(filter.clone(), limit).await.expect(place);
        let listed: Vec<_> = listed.iter().map(|job| (job.id, job.status, job.attempt)).collect();
        assert_eq!(listed, expected, "{place}: {filter:?}");
    }

    async fn look(&mut self, place: &str) {
        let id = self.any_id();
        self.compare(id, place).await;
    }

    async fn compare(&self, id: JobId, place: &str) {
        let mut found = self.store.find(id).await.expect(place);
        let mut expected = self.model.jobs.get(&id).map(|job| job.record.clone());
        // Who gave a job up says so in words of its own.
        for record in [&mut found, &mut expected].into_iter().flatten() {
            record.error_message = record.error_message.as_ref().map(|_| String::new());
        }
        let delivery = self.store.delivery(id).await.expect(place);
        let owed = expected.as_ref().filter(|record| record.status.has_ended() && record.job.callback.is_some());
        assert_eq!(delivery.map(|d| d.created_at), owed.and_then(|record| record.completed_at), "{place}");
        // A cancelled job that was never run again keeps no trace of its former workers.
        assert_eq!(found, expected, "{place}");
    }
}
