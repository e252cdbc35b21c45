//! The book and the bell.
//!
//! The row in the [`Store`] is the truth; the [`Queue`] only says "look now". A lost ring costs a
//! sweep interval, a doubled one an empty claim. Nothing here knows HTTP or sandboxes.
//!
//! Reading order: the two traits below, then [`sqlite`] (the book on one node) and [`local`] (the bell
//! of one process). `contract` holds the rules that every implementation of the traits keeps.

#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod inputs;
pub mod local;
pub mod sqlite;
pub mod token;

pub use local::LocalQueue;
pub use sqlite::{SqliteOptions, SqliteStore};
pub use token::{Quota, QuotaKind, Rate, Scope, Scopes, Token, TokenCreated, TokenHash};

use async_trait::async_trait;
use gavel_core::job::Tty;
use gavel_core::verdict::{Evidence, Verdict};
use gavel_core::{Job, JobId, Outcome, Status, Timestamp};
use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// A job on its way into the book.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub id: JobId,
    pub job: Job,
    /// Whose it is; `None` on a server without tokens.
    pub owner: Option<String>,
    pub idempotency: Option<Idempotency>,
    /// How much its owner may have; looked at in the transaction that stores the job.
    pub quota: Quota,
    pub created_at: Timestamp,
}

/// The same key and the same body give the same job; the same key and another body are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    pub key: String,
    /// Hash of the request body.
    pub fingerprint: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    New,
    /// The idempotency key is known: this is the job it belongs to. A key outlives a job that is erased
    /// within a day, so the job may be gone. Also the answer when the id itself is known: an insert may be
    /// repeated after an error that left open whether it was done.
    Existing(JobId),
    /// The idempotency key is known with another body.
    Conflict,
    /// The queue is at `max_depth`; nothing was stored.
    QueueFull,
    /// The owner has used up its quota; nothing was stored.
    OverQuota(QuotaKind),
}

/// Names one attempt at one job. A result that comes with an old attempt is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClaimKey {
    pub id: JobId,
    pub attempt: u32,
}

/// A worker's lease on a job.
#[derive(Debug, Clone)]
pub struct Claim {
    pub key: ClaimKey,
    /// Attempts that count against the maximum, this one included. Not the number in `key`, which
    /// also counts the attempts that were given back.
    pub tries: u32,
    pub worker: i32,
    pub job: Job,
    pub owner: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Timestamp,
}

/// What became of a claim when its lease was extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    Held,
    /// Still held, but somebody wants the job cancelled.
    CancelWanted,
    /// Somebody else has it, or it has ended: drop the work.
    Lost,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Settlement {
    Completed(Arc<Outcome>),
    /// Our fault, after the last attempt. The message is public: no internals in it.
    Failed {
        message: String,
    },
    Cancelled,
    /// Our fault, or the node is going away: back to `pending`, not before `delay` has passed.
    /// `count_attempt` is false where the job was not to blame (a drain), so that it keeps its tries.
    /// A job that somebody wants cancelled ends as `cancelled` instead: it is never run again.
    Released {
        delay: Duration,
        count_attempt: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was pending and is now cancelled.
    Done,
    /// It is running: whoever runs it has been asked to stop.
    Wanted,
    /// It has already ended.
    Ended(Status),
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    Done,
    NotEnded(Status),
    Unknown,
}

/// Who delivers callbacks, and what it has under way.
#[derive(Debug, Clone, Default)]
pub struct Courier {
    pub node: String,
    /// Deliveries that it takes at most.
    pub max: usize,
    /// Deliveries to one host at once.
    pub per_host: usize,
    /// How many are under way already, by host.
    pub busy: BTreeMap<String, usize>,
}

/// Names one attempt at one delivery: a job has one at most, so the job names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryKey {
    pub id: JobId,
    pub attempt: u32,
}

/// The news of a job's end, on its way to the URL that the job names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub key: DeliveryKey,
    /// Attempts that came to an end before this one. Attempts that were given back or lost do not count.
    pub tries: u32,
    /// Host and port, by which [`Courier::busy`] counts.
    pub host: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deliveries {
    pub claimed: Vec<Delivery>,
    /// When the next one may be claimed, as far as it is known now.
    pub next: Option<Timestamp>,
}

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryTry {
    pub started_at: Timestamp,
    pub duration: Duration,
    /// What the receiver answered, if it did.
    pub status_code: Option<u16>,
    /// Why it failed, in public words.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryEnd {
    Delivered(DeliveryTry),
    /// It failed and is due again at this time.
    Retry {
        done: DeliveryTry,
        at: Timestamp,
    },
    /// It failed, and nobody tries again.
    GivenUp(DeliveryTry),
    /// Nothing was done: due at once, and nothing is written down.
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    Pending,
    Delivered,
    GivenUp,
}

impl DeliveryState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::GivenUp];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::GivenUp => "given_up",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| format!("unknown state {text:?}"))
    }
}

/// A delivery with its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    pub state: DeliveryState,
    /// When it is tried next; `None` where it is over or under way.
    pub next_at: Option<Timestamp>,
    /// When the job ended.
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub tries: Vec<DeliveryTry>,
}

/// One row of the book, as read.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRecord {
    pub id: JobId,
    pub job: Job,
    pub owner: Option<String>,
    pub status: Status,
    pub worker_id: Option<i32>,
    pub node: Option<String>,
    /// Attempts begun so far.
    pub attempt: u32,
    pub error_message: Option<String>,
    /// Only for `completed`.
    pub outcome: Option<Arc<Outcome>>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
}

/// A line of a listing: no source, no output.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSummary {
    pub id: JobId,
    pub language: String,
    pub status: Status,
    pub verdict: Option<Verdict>,
    pub reason: Option<String>,
    pub evidence: Evidence,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub cpu: Option<Duration>,
    pub wall: Option<Duration>,
    pub memory_kb: Option<u64>,
    pub priority: i32,
    pub worker_id: Option<i32>,
    pub node: Option<String>,
    pub attempt: u32,
    pub error_message: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only the jobs of this owner; `None`: of all.
    pub owner: Option<String>,
    pub status: Option<Status>,
    pub verdict: Option<Verdict>,
    pub language: Option<String>,
    /// Created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Created before this time, so that windows side by side share no job and miss none.
    pub created_before: Option<Timestamp>,
    /// Only jobs older than this one, in listing order (newest first, by id).
    pub before: Option<JobId>,
}

/// One ended job in a sample for statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    pub language: String,
    pub status: Status,
    pub verdict: Option<Verdict>,
    pub queue: Duration,
    pub compile: Duration,
    pub compile_cached: bool,
    pub cpu: Duration,
    pub wall: Duration,
    pub completed_at: Timestamp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    pub pending: u64,
    pub running: u64,
    pub oldest_pending: Option<Timestamp>,
}

/// A page of a listing that counts instead of remembering where it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Newest first.
    pub ids: Vec<JobId>,
    /// Jobs on all pages together.
    pub total: u64,
}

/// How many jobs there are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tally {
    pub language: String,
    /// A job that runs counts as pending here; [`Store::depth`] tells them apart.
    pub pending: bool,
    /// `None`: it did not complete (yet).
    pub verdict: Option<Verdict>,
    pub signal: Option<i32>,
    /// The day of its creation, counted from 1970-01-01 UTC.
    pub day: i64,
    pub jobs: u64,
}

/// All jobs in the book, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    pub tallies: Vec<Tally>,
    /// What the database takes.
    pub size: u64,
}

/// Who claims: one entry in `workers` for each job that may be handed out.
#[derive(Debug, Clone)]
pub struct Claimant {
    pub node: String,
    pub workers: Vec<i32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Claims that ran out and went back to `pending`. Those that somebody wanted cancelled are
    /// `cancelled` now and counted nowhere.
    pub requeued: u64,
    /// Jobs whose last attempt ran out: now `failed`.
    pub failed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The claim is not this attempt's any more; the result is dropped.
    #[error("the lease on this attempt is lost")]
    LeaseLost,
    /// The database cannot be used right now; trying again may help.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The disk is full, or so nearly that new jobs are refused to leave room for results.
    #[error("the disk of the store is full")]
    Full,
    /// A row cannot be read back: our bug or a damaged database.
    #[error("a stored row is damaged: {0}")]
    Damaged(String),
}

/// The book. Sizes of memory are kept in whole KiB, rounded up; times of day and limits in microseconds.
/// Dropping the future of a call leaves open whether it was carried out, but claims that nobody received
/// go back. Every method that writes returns only when what it wrote survives a power cut, except
/// `insert_unsynced`, `claim`, `claim_next`, `extend`, `claim_deliveries` and `touch_tokens`: a forgotten claim costs
/// one attempt at most, never a job. What `find` and `list` say of an ended job survives a power cut, too. What
/// fails as `Unavailable` may have been carried out.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One answer for each job, in order; all that are `New` are stored in one transaction.
    async fn insert(&self, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError>;

    /// The same for a caller who tells nobody of these jobs before they have ended or [`Store::sync`] has
    /// returned: the end of a job is stored after the job, so who knows of the one has the other.
    async fn insert_unsynced(&self, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError> {
        self.insert(jobs).await
    }

    /// Returns when everything that was written before survives a power cut.
    async fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Hands out pending jobs, most urgent first, at most one for each worker named. A step of priority
    /// is worth ten seconds of waiting, so nothing starves.
    async fn claim(&self, by: Claimant, now: Timestamp, lease: Duration) -> Result<Vec<Claim>, StoreError>;

    /// The next job for one worker, as soon as there is one: the store may hand it out in the very
    /// transaction that brings it. `clock` says when that is. `None`: a job is pending that may not be
    /// handed out yet, or this store does not wait; then [`Store::claim`] when the bell rings.
    async fn claim_next(
        &self,
        _node: &str,
        _worker: i32,
        _clock: fn() -> Timestamp,
        _lease: Duration,
    ) -> Result<Option<Claim>, StoreError> {
        Ok(None)
    }

    /// One answer for each key, in order.
    async fn extend(&self, keys: Vec<ClaimKey>, now: Timestamp, lease: Duration) -> Result<Vec<Lease>, StoreError>;

    /// Ends an attempt. `LeaseLost` if it is not the current one.
    async fn settle(&self, key: ClaimKey, now: Timestamp, end: Settlement) -> Result<(), StoreError>;

    async fn find(&self, id: JobId) -> Result<Option<JobRecord>, StoreError>;

    /// Newest first.
    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<JobSummary>, StoreError>;

    /// The jobs of `owner`, or of all, after the `offset` newest. Costs as much as there are jobs before and
    /// on the page, and counts them all: [`Store::list`] is for whoever can do with a cursor.
    async fn page(&self, owner: Option<String>, offset: u64, limit: usize) -> Result<Page, StoreError>;

    /// Counts the jobs of `owner`, or of all. Reads every row: not for every request.
    async fn census(&self, owner: Option<String>) -> Result<Census, StoreError>;

    async fn cancel(&self, id: JobId, now: Timestamp) -> Result<Cancelled, StoreError>;

    async fn delete(&self, id: JobId) -> Result<Deleted, StoreError>;

    /// Takes back claims whose lease ran out; those beyond `max_attempts` fail.
    async fn sweep(&self, now: Timestamp, max_attempts: u32) -> Result<Swept, StoreError>;

    /// Takes back every claim of this node: called at start, when nothing can be running yet.
    async fn take_back(&self, node: String, now: Timestamp, max_attempts: u32) -> Result<Swept, StoreError>;

    /// Hands out deliveries that are due, longest due first. A job with a callback gets one in the very
    /// transaction that ends it, however it ends; erasing the job erases it, delivered or not.
    /// [`Store::take_back`] takes back those of its node, too.
    async fn claim_deliveries(
        &self,
        courier: Courier,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Deliveries, StoreError>;

    /// Ends an attempt at a delivery. `LeaseLost` if it is not the current one.
    async fn settle_delivery(&self, key: DeliveryKey, now: Timestamp, end: DeliveryEnd) -> Result<(), StoreError>;

    /// The delivery of a job; `None` while it has not ended, and where it has no callback.
    async fn delivery(&self, id: JobId) -> Result<Option<DeliveryRecord>, StoreError>;

    /// Deliveries that are not over.
    async fn pending_deliveries(&self) -> Result<u64, StoreError>;

    /// Erases ended jobs older than `before`, at most `max` of them; returns how many.
    async fn retain(&self, before: Timestamp, max: usize) -> Result<u64, StoreError>;

    async fn depth(&self) -> Result<Depth, StoreError>;

    /// The latest ended jobs, newest first.
    async fn recent(&self, limit: usize) -> Result<Vec<Ended>, StoreError>;

    /// Stores a token, unless another one that is neither revoked nor expired has its name.
    async fn create_token(&self, token: Token) -> Result<TokenCreated, StoreError>;

    /// Revokes the token of this name or id; `None` where there is none that is not revoked.
    async fn revoke_token(&self, which: String, now: Timestamp) -> Result<Option<Token>, StoreError>;

    /// All tokens, oldest first, those that were revoked too.
    async fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// A number that is another one when a token was created or revoked, by whichever process.
    async fn token_changes(&self) -> Result<u64, StoreError>;

    /// Takes note of when tokens were last used.
    async fn touch_tokens(&self, uses: Vec<(Uuid, Timestamp)>) -> Result<(), StoreError>;

    /// A cheap write that shows the store works, for the readiness check.
    async fn check(&self) -> Result<(), StoreError>;

    /// Finishes what is queued and closes; later calls are `Unavailable`.
    async fn close(&self);
}

/// Which stream a piece of live output belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    CompileOutput,
}

/// What happens to a job, as it happens.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Started {
        worker: i32,
        attempt: u32,
    },
    Output {
        stream: Stream,
        bytes: Vec<u8>,
    },
    /// Output is missing here: more than is kept, or this listener was too slow. The row has it.
    Dropped {
        bytes: u64,
    },
    /// The job is pending again; what was shown of its output is void.
    Restarted,
    /// With what is in the row now, where whoever rings has it at hand; else the row says how it ended.
    Ended(Option<Arc<JobRecord>>),
}

/// What a listener receives: everything of the current attempt so far, then the rest as it comes.
#[async_trait]
pub trait Listener: Send {
    /// `None`: nothing more will come; read the row.
    async fn next(&mut self) -> Option<Event>;
}

/// What somebody types for a running job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    Bytes(Vec<u8>),
    /// Nothing more will come.
    End,
    /// The terminal has this size now.
    Resize(Tty),
}

/// Why input was not taken. Nobody will see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InputRefused {
    #[error("the job has ended")]
    Ended,
    #[error("the input has been ended before")]
    Closed,
    /// This queue passes no input on.
    #[error("this server takes no live input")]
    Unsupported,
}

/// The worker's end of a job's input.
pub trait Inputs: Send {
    /// The next that has come; never waits.
    fn take(&mut self) -> Option<Input>;
}

struct NoInputs;

impl Inputs for NoInputs {
    fn take(&mut self) -> Option<Input> {
        None
    }
}

/// The bell. Losing any of this must cost time only.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Jobs were stored: whoever waits in [`Queue::wait`] should look.
    fn announce(&self, jobs: usize);

    /// Returns when jobs were announced since the last call.
    async fn wait(&self);

    /// Jobs with a callback have ended: whoever waits in [`Queue::wait_for_deliveries`] should look.
    fn announce_deliveries(&self) {}

    /// Returns when such jobs were announced since the last call; never where the bell cannot tell.
    async fn wait_for_deliveries(&self) {
        std::future::pending().await
    }

    /// Tells listeners of a job. Cheap when nobody listens.
    fn publish(&self, id: JobId, event: Event);

    /// Listens to one job. Listen first and read the row then, or the end can be missed.
    fn listen(&self, id: JobId) -> Box<dyn Listener>;

    /// Asks whoever runs the job to stop it.
    fn want_cancel(&self, id: JobId);

    /// The next job that should be stopped; every node hears of it.
    async fn cancel_wanted(&self) -> JobId;

    /// Passes on what somebody types for a job that has not ended. Waits while more is on the way than may be, before
    /// the job runs as well as later: dropped while it waits, nothing was sent. What was typed for an attempt
    /// that is void is not typed again for the next one.
    async fn send_input(&self, _id: JobId, _input: Input) -> Result<(), InputRefused> {
        Err(InputRefused::Unsupported)
    }

    /// For whoever runs the job: its input, with what has come before it ran. `ring` is called when there is
    /// something to take again; it must not block.
    fn take_input(&self, _id: JobId, _ring: Box<dyn Fn() + Send + Sync>) -> Box<dyn Inputs> {
        Box::new(NoInputs)
    }
}
