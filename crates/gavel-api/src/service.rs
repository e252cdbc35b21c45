//! What can be done with jobs, without HTTP. Wire layers translate to and from these calls only.
//!
//! Waiting: listen first, then insert or read, then wait at the bell; a slow poll makes a lost ring
//! cost time only. Nothing here runs code. Dropping a future frees everything that it held.

use crate::languages::{LanguageBook, Shelf};
use crate::owner::Owner;
use crate::places::Places;
use crate::stats::{Cached, Stats};
use crate::times::now;
use crate::watch::Watch;
use futures_util::{StreamExt, stream};
use gavel_core::board::WorkerEntry;
use gavel_core::validate::validate;
use gavel_core::{Board, Draft, Job, JobId, Problem, Rejection, Rules, Status, Timestamp};
use gavel_store::{
    Cancelled, Census, Deleted, DeliveryRecord, Depth, Event, Filter, Idempotency, Input, InputRefused, Inserted,
    JobRecord, JobSummary, Listener, NewJob, Page, Queue, Quota, QuotaKind, Store, StoreError,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;
use uuid::Uuid;

#[derive(Debug, Clone)]
pub struct ServiceOptions {
    pub rules: Rules,
    /// Jobs in one batch.
    pub max_batch: usize,
    /// How long a request waits for its job when it does not say.
    pub default_wait: Duration,
    pub max_wait: Duration,
    /// Jobs that are waited for at once, over all clients.
    pub max_waiters: usize,
    /// Event streams open at once, over all clients.
    pub max_watchers: usize,
    /// How often a waiting request looks at the row in case a ring was lost.
    pub poll: Duration,
    /// How long a request to cancel waits for a running job to stop.
    pub cancel_patience: Duration,
    /// The store refuses jobs beyond this many pending ones; shown in statistics and readiness.
    pub max_depth: u64,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            max_batch: 1000,
            default_wait: Duration::from_secs(30),
            max_wait: Duration::from_secs(300),
            max_waiters: 10_000,
            max_watchers: 1000,
            poll: Duration::from_secs(2),
            cancel_patience: Duration::from_secs(5),
            max_depth: 100_000,
        }
    }
}

/// What a [`Service`] is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub board: Arc<Board>,
    pub languages: LanguageBook,
    pub options: ServiceOptions,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("the request is not valid")]
    Rejected(Rejection),
    #[error("the idempotency key was used with another body")]
    KeyConflict,
    #[error("the idempotency key belongs to a job that was erased")]
    KeyOutlivedJob,
    #[error("the queue is full")]
    QueueFull,
    #[error("the owner has used up its quota")]
    OverQuota { kind: QuotaKind, limit: u64, now: Timestamp },
    #[error("the token has expired or was revoked")]
    TokenEnded,
    #[error("the server is shutting down")]
    Draining,
    #[error("too many requests are waiting for their jobs")]
    TooManyWaiters,
    #[error("too many event streams are open")]
    TooManyWatchers,
    #[error("there is no such job")]
    UnknownJob,
    #[error("the job has already ended: {0}")]
    AlreadyEnded(Status),
    #[error("the job has not ended: {0}")]
    NotEnded(Status),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ServiceError {
    /// A request that is wrong in one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let problems = vec![Problem { field: field.into(), message: message.into() }];
        Self::Rejected(Rejection { problems, too_large: false })
    }
}

/// What is known of a job that was just stored.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub id: JobId,
    pub language: String,
    pub metadata: BTreeMap<String, String>,
    pub created_at: Timestamp,
}

#[derive(Debug)]
pub enum Submitted {
    New(Receipt),
    /// The idempotency key is known: nothing was stored, this is the job of the first time.
    Known(JobId),
}

#[derive(Debug)]
pub enum Waited {
    /// The job as it is now; look at its status.
    Read(Arc<JobRecord>),
    /// It is stored, but the store could not be read again before the time was up.
    Unread(Receipt),
}

pub struct Service {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    board: Arc<Board>,
    languages: LanguageBook,
    options: ServiceOptions,
    waiters: Places,
    watchers: Places,
    /// Nothing new is taken any more.
    closed: AtomicBool,
    draining: watch::Sender<bool>,
    /// Where jobs of streams wait for room in the queue.
    turnstile: Mutex<()>,
    depth: Cached<Depth>,
    stats: Cached<Arc<Stats>>,
    /// The latest count for each owner who asked; they are few.
    census: Mutex<Counts>,
}

type Counts = HashMap<Option<String>, (Instant, Arc<Counted>)>;

/// All jobs, counted.
#[derive(Debug)]
pub struct Counted {
    pub at: Timestamp,
    pub census: Census,
    /// Only for whoever sees all; for others it is 0, and what runs is counted with what waits.
    pub running: u64,
}

/// When the client hears of a job that it submits.
#[derive(Debug, Clone, Copy)]
enum Told {
    AtOnce,
    /// It waits; where it gives up, [`Service::until_ended`] sees to it that the job is on the disk.
    AtTheEnd,
}

impl Service {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { store, queue, board, languages, options } = parts;
        Arc::new(Self {
            store,
            queue,
            board,
            languages,
            waiters: Places::new(options.max_waiters),
            watchers: Places::new(options.max_watchers),
            closed: AtomicBool::new(false),
            draining: watch::Sender::new(false),
            turnstile: Mutex::new(()),
            depth: Cached::new(Duration::from_millis(250)),
            stats: Cached::new(Duration::from_secs(1)),
            census: Mutex::default(),
            options,
        })
    }

    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// Validates, stores and rings.
    pub async fn submit(
        &self,
        owner: &Owner,
        draft: Draft,
        key: Option<Idempotency>,
    ) -> Result<Submitted, ServiceError> {
        let new = self.admit(owner, draft, key)?;
        self.insert_one(new, Told::AtOnce).await
    }

    /// The same, and then waits for the job to end, at most for `patience`. `held` is dropped when the job is
    /// stored: a request that waits does not hold its body.
    pub async fn submit_and_wait(
        &self,
        owner: &Owner,
        draft: Draft,
        key: Option<Idempotency>,
        patience: Duration,
        held: impl Send,
    ) -> Result<Waited, ServiceError> {
        let until = Instant::now() + patience;
        let new = self.admit(owner, draft, key)?;
        // Before anything is stored: a refused client must be able to try again.
        let _place = self.waiters.try_take(owner, 1).ok_or(ServiceError::TooManyWaiters)?;
        let mut listener = self.queue.listen(new.id);
        let stored = self.insert_one(new, Told::AtTheEnd).await?;
        drop(held);
        match stored {
            Submitted::Known(id) => self.wait_for(id, until).await.map(Waited::Read),
            Submitted::New(receipt) => self.wait_stored(receipt, listener.as_mut(), until).await,
        }
    }

    /// For a stream of jobs: instead of being refused, waits for a place among the waiting requests
    /// and in the queue. Returns when the job has ended or the server drains.
    pub async fn run_through(&self, owner: &Owner, draft: Draft) -> Result<Waited, ServiceError> {
        let new = self.admit(owner, draft, None)?;
        let _place = self.waiters.take(owner).await.ok_or(ServiceError::TooManyWaiters)?;
        let mut listener = self.queue.listen(new.id);
        match self.insert_patiently(new).await? {
            Submitted::New(receipt) => self.wait_stored(receipt, listener.as_mut(), far()).await,
            Submitted::Known(id) => self.wait_for(id, far()).await.map(Waited::Read),
        }
    }

    /// Waits for room in the queue. One job at a time tries again, in the order in which they were refused:
    /// all at once would fill what room there is with two and send the others back to sleep.
    async fn insert_patiently(&self, new: NewJob) -> Result<Submitted, ServiceError> {
        let mut turn = None;
        let mut pause = Duration::from_millis(5);
        loop {
            let answer = self.insert_one(new.clone(), Told::AtTheEnd).await;
            match answer {
                Err(ServiceError::QueueFull) if turn.is_none() => turn = Some(self.turnstile.lock().await),
                Err(ServiceError::QueueFull) => {}
                // The room of one owner: nobody else may wait behind it.
                Err(ServiceError::OverQuota { kind: QuotaKind::Concurrent, limit: 1.., .. }) => turn = None,
                other => return other,
            }
            if self.is_draining() {
                return answer;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Stores all drafts that are valid in one transaction. One answer for each, in order.
    pub async fn submit_batch(
        &self,
        owner: &Owner,
        drafts: Vec<Result<Draft, Rejection>>,
        key: Option<Idempotency>,
    ) -> Result<Vec<Result<Submitted, ServiceError>>, ServiceError> {
        let admitted = self.admit_batch(owner, drafts, key)?;
        self.insert_batch(admitted, Told::AtOnce).await
    }

    /// The same, and then waits for all of them; `patience` is for the whole batch. `render` makes of
    /// each answer what the caller keeps, so that the outputs of a thousand jobs are never held at once.
    pub async fn submit_batch_and_wait<T>(
        &self,
        owner: &Owner,
        drafts: Vec<Result<Draft, Rejection>>,
        key: Option<Idempotency>,
        patience: Duration,
        mut render: impl FnMut(Result<Waited, ServiceError>) -> T,
    ) -> Result<Vec<T>, ServiceError> {
        let until = Instant::now() + patience;
        let admitted = self.admit_batch(owner, drafts, key)?;
        let wanted = u32::try_from(admitted.len()).map_err(|_| ServiceError::TooManyWaiters)?;
        let _places = self.waiters.try_take(owner, wanted).ok_or(ServiceError::TooManyWaiters)?;
        let listeners: Vec<_> =
            admitted.iter().map(|new| new.as_ref().ok().map(|new| self.queue.listen(new.id))).collect();
        let answers = self.insert_batch(admitted, Told::AtTheEnd).await?;
        // In order and a few at a time: all must end anyway, and the rows hold their results.
        let mut ends = Vec::with_capacity(answers.len());
        for (answer, listener) in answers.into_iter().zip(listeners) {
            ends.push(self.wait_one(answer, listener, until));
        }
        let mut ends = stream::iter(ends).buffered(BATCH_READS);
        let mut rendered = Vec::new();
        while let Some(end) = ends.next().await {
            rendered.push(render(end));
        }
        Ok(rendered)
    }

    pub async fn find(&self, owner: &Owner, id: JobId) -> Result<JobRecord, ServiceError> {
        let record = self.store.find(id).await?.ok_or(ServiceError::UnknownJob)?;
        // A job of somebody else does not exist, so that ids cannot be probed.
        if owner.sees(record.owner.as_deref()) { Ok(record) } else { Err(ServiceError::UnknownJob) }
    }

    /// The job when it has ended, or as it is when the time is up.
    pub async fn wait(&self, owner: &Owner, id: JobId, patience: Duration) -> Result<Arc<JobRecord>, ServiceError> {
        let until = Instant::now() + patience;
        let _place = self.waiters.try_take(owner, 1).ok_or(ServiceError::TooManyWaiters)?;
        self.owned(owner, id).await?;
        self.wait_for(id, until).await
    }

    /// Follows a job: what happened so far, then the rest as it happens.
    pub async fn watch(self: &Arc<Self>, owner: &Owner, id: JobId) -> Result<Watch, ServiceError> {
        let place = self.watchers.try_take(owner, 1).ok_or(ServiceError::TooManyWatchers)?;
        let listener = self.queue.listen(id);
        let record = self.find(owner, id).await?;
        Ok(Watch::new(self.clone(), place, listener, record))
    }

    /// Types for an interactive job that its owner watches. Waits while there is no room for more.
    pub async fn send_input(&self, id: JobId, input: Input) -> Result<(), InputRefused> {
        self.queue.send_input(id, input).await
    }

    /// How many event streams and sockets are open.
    pub fn watching(&self) -> usize {
        self.watchers.taken()
    }

    /// Returns when nobody watches any job any more.
    pub async fn unwatched(&self) {
        self.watchers.all_free().await;
    }

    /// The cancelled job; or the still running one, when it did not stop in time: it will.
    pub async fn cancel(&self, owner: &Owner, id: JobId) -> Result<Arc<JobRecord>, ServiceError> {
        self.owned(owner, id).await?;
        let mut listener = self.queue.listen(id);
        let answer = self.store.cancel(id, now()).await?;
        let record = match answer {
            Cancelled::Unknown => return Err(ServiceError::UnknownJob),
            Cancelled::Ended(status) => return Err(ServiceError::AlreadyEnded(status)),
            Cancelled::Done => {
                // Whether it has a callback is in its row; a look in vain costs little.
                self.queue.announce_deliveries();
                self.queue.publish(id, Event::Ended(None));
                self.store.find(id).await?.map(Arc::new)
            }
            Cancelled::Wanted => {
                self.queue.want_cancel(id);
                self.until_ended(id, listener.as_mut(), Instant::now() + self.options.cancel_patience).await?
            }
        };
        let record = record.ok_or(ServiceError::UnknownJob)?;
        if answer == Cancelled::Done {
            count_cancelled(&record.job.language);
        }
        match record.status {
            // It ended by itself before anybody could stop it.
            Status::Completed | Status::Failed => Err(ServiceError::AlreadyEnded(record.status)),
            Status::Cancelled | Status::Pending | Status::Running => Ok(record),
        }
    }

    /// The job and what became of its callback; `None` while there is nothing to deliver.
    pub async fn delivery(
        &self,
        owner: &Owner,
        id: JobId,
    ) -> Result<(JobRecord, Option<DeliveryRecord>), ServiceError> {
        let record = self.find(owner, id).await?;
        let delivery = match record.job.callback {
            Some(_) => self.store.delivery(id).await?,
            None => None,
        };
        Ok((record, delivery))
    }

    /// Deliveries that are not over.
    pub(crate) async fn pending_deliveries(&self) -> Result<u64, StoreError> {
        self.store.pending_deliveries().await
    }

    /// Erases an ended job.
    pub async fn delete(&self, owner: &Owner, id: JobId) -> Result<(), ServiceError> {
        self.owned(owner, id).await?;
        match self.store.delete(id).await? {
            Deleted::Done => Ok(()),
            Deleted::NotEnded(status) => Err(ServiceError::NotEnded(status)),
            Deleted::Unknown => Err(ServiceError::UnknownJob),
        }
    }

    /// Newest first.
    pub async fn list(&self, owner: &Owner, mut filter: Filter, limit: usize) -> Result<Vec<JobSummary>, ServiceError> {
        filter.owner = owner.filter();
        Ok(self.store.list(filter, limit).await?)
    }

    /// The same by number of the page instead of a cursor.
    pub async fn page(&self, owner: &Owner, offset: u64, limit: usize) -> Result<Page, ServiceError> {
        Ok(self.store.page(owner.filter(), offset, limit).await?)
    }

    /// Would the queue take so many jobs at this moment?
    pub async fn has_room_for(&self, jobs: u64) -> Result<bool, ServiceError> {
        Ok(self.store.depth().await?.pending.saturating_add(jobs) <= self.options.max_depth)
    }

    /// Counts the owner's jobs, unless that was done less than `keep` ago. One at a time: it reads everything.
    pub async fn census(&self, owner: &Owner, keep: Duration) -> Result<Arc<Counted>, ServiceError> {
        let whose = owner.filter();
        let mut known = self.census.lock().await;
        if let Some((at, counted)) = known.get(&whose)
            && at.elapsed() < keep
        {
            return Ok(counted.clone());
        }
        let mut census = self.store.census(whose.clone()).await?;
        // What runs and how large the store is are known for all owners together only, and nobody's business
        // but the operator's.
        let running = match owner.sees_all {
            true => self.store.depth().await?.running,
            false => {
                census.size = 0;
                0
            }
        };
        let counted = Arc::new(Counted { at: now(), census, running });
        known.insert(whose, (Instant::now(), counted.clone()));
        Ok(counted)
    }

    pub fn languages(&self) -> Arc<Shelf> {
        self.languages.read()
    }

    /// The workers of this process.
    pub fn workers(&self) -> Vec<WorkerEntry> {
        self.board.snapshot()
    }

    /// How many jobs wait and run; at most a moment old.
    pub async fn depth(&self) -> Result<Depth, ServiceError> {
        Ok(self.depth.get(|| self.store.depth()).await?)
    }

    /// At most a second old.
    pub async fn stats(&self) -> Result<Arc<Stats>, ServiceError> {
        let read = || async {
            let (recent, depth) = (self.store.recent(STATS_SAMPLE).await?, self.store.depth().await?);
            let shelf = self.languages.read();
            Ok(Arc::new(Stats::of(&recent, depth, self.options.max_depth, &self.board.snapshot(), &shelf, now())))
        };
        Ok(self.stats.get(read).await.map_err(|error: StoreError| error)?)
    }

    /// A write that shows that the store works.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        self.store.check().await
    }

    /// From now on no job is taken and the server is not ready; whoever waits goes on waiting.
    pub fn begin_drain(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// From now on nobody waits, either: requests answer with what they have, event streams end.
    pub fn drain(&self) {
        self.begin_drain();
        self.draining.send_replace(true);
    }

    pub fn is_draining(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    pub(crate) async fn read(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.store.find(id).await
    }

    fn admit(&self, owner: &Owner, draft: Draft, key: Option<Idempotency>) -> Result<NewJob, ServiceError> {
        let created_at = now();
        if !owner.is_valid(created_at) {
            return Err(ServiceError::TokenEnded);
        }
        let shelf = self.languages.read();
        if let Some(reason) = shelf.unavailable(&draft.language) {
            return Err(ServiceError::invalid("language", format!("is not available on this server: {reason}")));
        }
        let job: Job = validate(draft, &shelf.catalogue, &self.options.rules).map_err(ServiceError::Rejected)?;
        let (id, quota) = (Uuid::now_v7(), owner.quota);
        Ok(NewJob { id, job, owner: owner.name.clone(), idempotency: key, quota, created_at })
    }

    fn admit_batch(
        &self,
        owner: &Owner,
        drafts: Vec<Result<Draft, Rejection>>,
        key: Option<Idempotency>,
    ) -> Result<Vec<Result<NewJob, ServiceError>>, ServiceError> {
        let max = self.options.max_batch;
        if drafts.is_empty() || drafts.len() > max {
            let message = format!("has {} jobs; a batch has between 1 and {max}", drafts.len());
            return Err(ServiceError::invalid("jobs", message));
        }
        let admit = |(index, draft): (usize, Result<Draft, Rejection>)| {
            // Each job has a key of its own, so that a batch of which a part was stored can be repeated.
            let key = key.as_ref().map(|key| Idempotency { key: format!("{}#{index}", key.key), ..key.clone() });
            self.admit(owner, draft.map_err(ServiceError::Rejected)?, key)
        };
        Ok(drafts.into_iter().enumerate().map(admit).collect())
    }

    fn takes_jobs(&self) -> Result<(), ServiceError> {
        if self.is_draining() { Err(ServiceError::Draining) } else { Ok(()) }
    }

    async fn insert(&self, jobs: Vec<NewJob>, told: Told) -> Result<Vec<Inserted>, StoreError> {
        match told {
            Told::AtOnce => self.store.insert(jobs).await,
            Told::AtTheEnd => self.store.insert_unsynced(jobs).await,
        }
    }

    async fn insert_one(&self, new: NewJob, told: Told) -> Result<Submitted, ServiceError> {
        self.takes_jobs()?;
        let (receipt, quota) = (Receipt::of(&new), new.quota);
        let mut answers = self.insert(vec![new], told).await?;
        let answer = submitted(answers.pop().ok_or_else(short_answer)?, receipt, quota)?;
        if let Submitted::New(receipt) = &answer {
            self.queue.announce(1);
            count_submitted(&receipt.language);
        }
        Ok(answer)
    }

    async fn insert_batch(
        &self,
        admitted: Vec<Result<NewJob, ServiceError>>,
        told: Told,
    ) -> Result<Vec<Result<Submitted, ServiceError>>, ServiceError> {
        self.takes_jobs()?;
        let mut jobs = Vec::with_capacity(admitted.len());
        let mut receipts: Vec<_> = admitted
            .into_iter()
            .map(|new| {
                new.map(|new| {
                    let receipt = (Receipt::of(&new), new.quota);
                    jobs.push(new);
                    receipt
                })
            })
            .collect();
        let answers = if jobs.is_empty() { Vec::new() } else { self.insert(jobs, told).await? };
        let full = !answers.is_empty() && answers.iter().all(|answer| *answer == Inserted::QueueFull);
        if full {
            return Err(ServiceError::QueueFull);
        }
        // As a full queue: where nothing was stored, it is the whole request that is refused.
        if let Some(over @ Inserted::OverQuota(_)) = answers.first().copied()
            && answers.iter().all(|answer| *answer == over)
            && let Some(first) = receipts.iter().position(Result::is_ok)
        {
            let (receipt, quota) = receipts.swap_remove(first)?;
            return submitted(over, receipt, quota).map(|_| Vec::new());
        }
        let mut answers = answers.into_iter();
        let mut results = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            results.push(match receipt {
                Err(refused) => Err(refused),
                Ok((receipt, quota)) => submitted(answers.next().ok_or_else(short_answer)?, receipt, quota),
            });
        }
        let mut stored = 0;
        for receipt in results.iter().filter_map(|result| match result {
            Ok(Submitted::New(receipt)) => Some(receipt),
            _ => None,
        }) {
            stored += 1;
            count_submitted(&receipt.language);
        }
        if stored > 0 {
            self.queue.announce(stored);
        }
        Ok(results)
    }

    async fn wait_one(
        &self,
        answer: Result<Submitted, ServiceError>,
        listener: Option<Box<dyn Listener>>,
        until: Instant,
    ) -> Result<Waited, ServiceError> {
        match (answer?, listener) {
            (Submitted::New(receipt), Some(mut listener)) => self.wait_stored(receipt, listener.as_mut(), until).await,
            (Submitted::New(Receipt { id, .. }) | Submitted::Known(id), _) => {
                self.wait_for(id, until).await.map(Waited::Read)
            }
        }
    }

    /// Waits for a job that was stored after `listener` began to listen.
    async fn wait_stored(
        &self,
        receipt: Receipt,
        listener: &mut dyn Listener,
        until: Instant,
    ) -> Result<Waited, ServiceError> {
        match self.until_ended(receipt.id, listener, until).await {
            Ok(Some(record)) => Ok(Waited::Read(record)),
            Ok(None) => Err(ServiceError::UnknownJob),
            // It is stored, so the client must learn its id even if it cannot be read now.
            Err(error) => {
                warn!(job.id = %receipt.id, %error, "cannot read a job that is waited for");
                self.store.sync().await?;
                Ok(Waited::Unread(receipt))
            }
        }
    }

    /// Waits for a job that may already have ended.
    async fn wait_for(&self, id: JobId, until: Instant) -> Result<Arc<JobRecord>, ServiceError> {
        let mut listener = self.queue.listen(id);
        let record = self.store.find(id).await?.ok_or(ServiceError::UnknownJob)?;
        if record.status.has_ended() {
            return Ok(Arc::new(record));
        }
        self.until_ended(id, listener.as_mut(), until).await?.ok_or(ServiceError::UnknownJob)
    }

    /// The row once the job has ended, from the bell if that brings it; or as it is when the time is up or the
    /// server drains.
    async fn until_ended(
        &self,
        id: JobId,
        listener: &mut dyn Listener,
        until: Instant,
    ) -> Result<Option<Arc<JobRecord>>, StoreError> {
        let mut draining = self.draining.subscribe();
        let mut listening = true;
        loop {
            let look = until.min(Instant::now() + self.options.poll);
            let give_up = tokio::select! {
                event = listener.next(), if listening => match event {
                    Some(Event::Ended(Some(record))) => return Ok(Some(record)),
                    Some(Event::Ended(None)) => false,
                    Some(_) => continue,
                    None => { listening = false; false }
                },
                () = sleep_until(look) => look >= until,
                () = raised(&mut draining) => true,
            };
            match self.store.find(id).await {
                Ok(Some(record)) if record.status.has_ended() => return Ok(Some(Arc::new(record))),
                Ok(Some(record)) if give_up => {
                    // Whoever waits stored it unsynced, and is told of it now.
                    self.store.sync().await?;
                    return Ok(Some(Arc::new(record)));
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) if give_up => return Err(error),
                // The next look may succeed; whoever waits has time.
                Err(error) => warn!(job.id = %id, %error, "cannot read a job that is waited for"),
            }
        }
    }

    /// Refuses an owner who does not see the job. Costs a read only where there are owners.
    async fn owned(&self, owner: &Owner, id: JobId) -> Result<(), ServiceError> {
        if !owner.sees_all {
            self.find(owner, id).await?;
        }
        Ok(())
    }
}

/// Rows of a batch that are read at once while it is waited for.
const BATCH_READS: usize = 32;

/// Ended jobs that statistics are made of.
const STATS_SAMPLE: usize = 10_000;

impl Receipt {
    fn of(new: &NewJob) -> Self {
        Self {
            id: new.id,
            language: new.job.language.clone(),
            metadata: new.job.metadata.clone(),
            created_at: new.created_at,
        }
    }
}

fn submitted(answer: Inserted, receipt: Receipt, quota: Quota) -> Result<Submitted, ServiceError> {
    match answer {
        Inserted::New => Ok(Submitted::New(receipt)),
        Inserted::Existing(id) => Ok(Submitted::Known(id)),
        Inserted::Conflict => Err(ServiceError::KeyConflict),
        Inserted::QueueFull => Err(ServiceError::QueueFull),
        Inserted::OverQuota(kind) => {
            let limit = match kind {
                QuotaKind::JobsPerDay => quota.jobs_per_day,
                QuotaKind::Concurrent => quota.concurrent,
            };
            Err(ServiceError::OverQuota { kind, limit: limit.unwrap_or(0), now: receipt.created_at })
        }
    }
}

fn short_answer() -> ServiceError {
    StoreError::Damaged("the store answered for fewer jobs than it was given".into()).into()
}

/// The label has as many values as there are languages: the job was validated.
fn count_submitted(language: &str) {
    metrics::counter!("gavel_jobs_submitted_total", "language" => language.to_owned()).increment(1);
}

/// What a worker ends, it counts; a job that was still pending ends here.
fn count_cancelled(language: &str) {
    let language = language.to_owned();
    metrics::counter!("gavel_jobs_total", "language" => language, "status" => "cancelled", "verdict" => "none")
        .increment(1);
}

/// A time that is not reached: the end of a wait that only the job or a drain ends.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(86400 * 365)
}

/// Ready once the flag is up, and for ever after.
pub(crate) async fn raised(flag: &mut watch::Receiver<bool>) {
    // An error means that nobody can raise it any more: the process is ending, which is as good.
    let _ = flag.wait_for(|up| *up).await;
}
