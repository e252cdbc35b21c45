//! Takes deliveries that are due and calls, a bounded number at once and to one host.
//!
//! Whatever happens between a claim and its end costs time only: a lease that runs out brings the delivery
//! back, and a process that starts anew takes back its own. The bell says when to look; where it is lost, the
//! store's own word of what is due next and a slow poll do.

use super::message::{self, Judge0Body, Message};
use super::send::{Caller, Failure, Reply, Resolver, SystemResolver};
use super::signature::Secret;
use crate::times::now;
use axum::http::StatusCode;
use gavel_core::{CallbackRules, JobId, Timestamp};
use gavel_store::{Courier, Delivery, DeliveryEnd, DeliveryKey, DeliveryTry, JobRecord, Queue, Store, StoreError};
use rustls::RootCertStore;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{error, info, warn};

#[derive(Debug, Clone)]
pub struct CallbackOptions {
    /// The name under which this process claims.
    pub node: String,
    pub rules: CallbackRules,
    /// Each signs every native callback.
    pub secrets: Vec<Secret>,
    /// For one call, from the name to the answer.
    pub timeout: Duration,
    pub max_attempts: u32,
    /// Longest pause before the second attempt; doubled with each further one.
    pub backoff: Duration,
    pub max_backoff: Duration,
    /// Calls at once, and to one host.
    pub concurrency: usize,
    pub per_host: usize,
    /// How often the store is asked in case a ring was lost.
    pub poll: Duration,
}

impl Default for CallbackOptions {
    fn default() -> Self {
        Self {
            node: String::new(),
            rules: CallbackRules::default(),
            secrets: Vec::new(),
            timeout: Duration::from_secs(5),
            max_attempts: 16,
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(600),
            concurrency: 64,
            per_host: 4,
            poll: Duration::from_secs(10),
        }
    }
}

/// What a [`Deliverer`] works with.
pub struct CallbackParts {
    pub store: Arc<dyn Store>,
    pub queue: Arc<dyn Queue>,
    pub resolver: Arc<dyn Resolver>,
    /// Whom `https` receivers must be certified by.
    pub roots: RootCertStore,
    /// `None`: no job here can want that form.
    pub judge0: Option<Judge0Body>,
}

impl CallbackParts {
    /// With the names and the authorities of this machine.
    pub fn of_system(store: Arc<dyn Store>, queue: Arc<dyn Queue>) -> Self {
        Self { store, queue, resolver: Arc::new(SystemResolver), roots: super::system_roots(), judge0: None }
    }
}

/// Time besides the call itself, within which its end is stored.
const SPARE: Duration = Duration::from_secs(30);
/// Jobs that are read and written down at once: with sources, input and outputs they are larger than what is
/// sent of them, which is all that a call then keeps.
const READ_AT_ONCE: usize = 4;
/// Pause after an error of the store.
const PAUSE: Duration = Duration::from_secs(1);

/// The task that delivers.
pub struct Deliverer {
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

impl Deliverer {
    /// Call it when what an earlier process had under way was taken back.
    pub fn start(parts: CallbackParts, options: CallbackOptions) -> Result<Self, rustls::Error> {
        let CallbackParts { store, queue, resolver, roots, judge0 } = parts;
        let caller = Caller::new(options.rules.clone(), resolver, roots, options.timeout)?;
        let (stop, stopped) = watch::channel(None);
        let reading = Semaphore::new(READ_AT_ONCE);
        let shared = Arc::new(Shared { store, queue, caller, judge0, options, reading });
        let round = Round { shared, under_way: JoinSet::new(), held: HashMap::new(), look_at: Instant::now() };
        Ok(Self { stop, task: tokio::spawn(round.run(stopped)) })
    }

    /// Begins no call any more, gives those under way so much time, and gives back what is left.
    pub async fn drain(self, patience: Duration) {
        self.stop.send_replace(Some(patience));
        if let Err(error) = self.task.await {
            error!(%error, "the deliverer of callbacks panicked");
        }
    }
}

struct Shared {
    store: Arc<dyn Store>,
    queue: Arc<dyn Queue>,
    caller: Caller,
    judge0: Option<Judge0Body>,
    options: CallbackOptions,
    reading: Semaphore,
}

/// What is under way, and when to look for more.
struct Round {
    shared: Arc<Shared>,
    /// Each gives the time of its next attempt, if there is one.
    under_way: JoinSet<Option<Timestamp>>,
    held: HashMap<Id, Delivery>,
    look_at: Instant,
}

impl Round {
    async fn run(mut self, mut stopped: watch::Receiver<Option<Duration>>) {
        let shared = Arc::clone(&self.shared);
        // Something due was left because too much is under way: the next that ends makes room.
        let mut crowded = false;
        loop {
            let room = self.held.len() < shared.options.concurrency;
            tokio::select! {
                _ = stopped.wait_for(Option::is_some) => break,
                Some(ended) = self.under_way.join_next_with_id() => {
                    self.ended(ended);
                    if !crowded {
                        continue;
                    }
                }
                () = shared.queue.wait_for_deliveries(), if room => {}
                () = sleep_until(self.look_at), if room => {}
            }
            crowded = self.take_more().await;
        }
        let patience = stopped.borrow().unwrap_or_default();
        self.drain(patience).await;
    }

    /// Claims and calls; tells whether something due was left.
    async fn take_more(&mut self) -> bool {
        let options = &self.shared.options;
        let mut busy = BTreeMap::new();
        for delivery in self.held.values() {
            *busy.entry(delivery.host.clone()).or_insert(0) += 1;
        }
        let max = options.concurrency.saturating_sub(self.held.len());
        let courier = Courier { node: options.node.clone(), max, per_host: options.per_host, busy };
        let asked_at = now();
        let lease = options.timeout + SPARE;
        let deliveries = match self.shared.store.claim_deliveries(courier, asked_at, lease).await {
            Ok(deliveries) => deliveries,
            Err(error) => {
                warn!(%error, "cannot look for callbacks");
                self.look_at = Instant::now() + PAUSE;
                return false;
            }
        };
        for delivery in deliveries.claimed {
            let shared = Arc::clone(&self.shared);
            let task = self.under_way.spawn(deliver(shared, delivery.clone()));
            self.held.insert(task.id(), delivery);
        }
        let left = deliveries.next.is_some_and(|next| next <= asked_at);
        // What is left waits for room, which the end of a call makes; a second is for a host of another node.
        let wait = match deliveries.next {
            Some(_) if left => PAUSE,
            Some(next) => next.since(asked_at).min(options.poll),
            None => options.poll,
        };
        self.look_at = Instant::now() + wait;
        left
    }

    fn ended(&mut self, ended: Result<(Id, Option<Timestamp>), tokio::task::JoinError>) {
        match ended {
            Ok((id, again)) => {
                self.held.remove(&id);
                if let Some(again) = again {
                    self.look_at = self.look_at.min(Instant::now() + again.since(now()));
                }
            }
            Err(error) => {
                // Its lease runs out, and it is tried again.
                let delivery = self.held.remove(&error.id());
                error!(%error, job.id = ?delivery.map(|delivery| delivery.key.id), "a callback panicked");
            }
        }
    }

    async fn drain(mut self, patience: Duration) {
        let ending = async {
            while let Some(ended) = self.under_way.join_next_with_id().await {
                self.ended(ended);
            }
        };
        if timeout(patience, ending).await.is_ok() {
            return;
        }
        self.under_way.shutdown().await;
        info!(callbacks = self.held.len(), "callbacks under way are given back");
        for delivery in self.held.values() {
            // Where that fails, or one was settled just now, nothing is lost.
            let _ = self.shared.store.settle_delivery(delivery.key, now(), DeliveryEnd::Released).await;
        }
    }
}

/// One attempt, from the row to the row. Returns the time of the next one.
async fn deliver(shared: Arc<Shared>, delivery: Delivery) -> Option<Timestamp> {
    let key = delivery.key;
    let until = Instant::now() + shared.options.timeout + SPARE;
    // Never closed; without a place it would only be read among more.
    let place = shared.reading.acquire().await.ok();
    let record = match shared.store.find(key.id).await {
        Ok(Some(record)) => record,
        // Erased, and its delivery with it.
        Ok(None) => return None,
        Err(StoreError::Damaged(cause)) => {
            error!(job.id = %key.id, cause, "a callback cannot be sent: its job is damaged");
            let given_up = DeliveryEnd::GivenUp(unsent("the job cannot be read back"));
            return settle(&shared, key, given_up, until).await;
        }
        Err(error) => {
            warn!(job.id = %key.id, %error, "a callback cannot be sent yet");
            sleep(PAUSE).await;
            return settle(&shared, key, DeliveryEnd::Released, until).await;
        }
    };
    let Some((url, message)) = write(&shared, record).await else {
        error!(job.id = %key.id, "a callback cannot be written");
        return settle(&shared, key, DeliveryEnd::GivenUp(unsent("the callback cannot be written")), until).await;
    };
    drop(place);
    let (started_at, clock) = (now(), Instant::now());
    let result = shared.caller.call(&url, message).await;
    let duration = clock.elapsed();
    count(&result, duration);
    let end = judge(&shared.options, delivery.tries, started_at, duration, result);
    settle(&shared, key, end, until).await
}

/// Large outputs take a while to write and to sign: not on a thread that serves sockets.
async fn write(shared: &Arc<Shared>, record: JobRecord) -> Option<(String, Message)> {
    let shared = Arc::clone(shared);
    let written = tokio::task::spawn_blocking(move || {
        let callback = record.job.callback.as_ref()?;
        let judge0 = shared.judge0.as_ref();
        let message = message::write(&record, callback.form, &shared.options.secrets, judge0, now())?;
        Some((callback.url.clone(), message))
    });
    written.await.ok()?
}

fn unsent(error: &str) -> DeliveryTry {
    DeliveryTry { started_at: now(), duration: Duration::ZERO, status_code: None, error: Some(error.to_owned()) }
}

/// What an answer, or none, means for the delivery. `before` is how many attempts there were.
fn judge(
    options: &CallbackOptions,
    before: u32,
    started_at: Timestamp,
    duration: Duration,
    result: Result<Reply, Failure>,
) -> DeliveryEnd {
    let status = result.as_ref().ok().map(|reply| reply.status);
    let error = match (status, &result) {
        (Some(StatusCode::GONE), _) => Some("the receiver wants no more callbacks".to_owned()),
        (Some(status), _) if status.is_redirection() => Some("redirects are not followed".to_owned()),
        (_, Err(failure)) => Some(failure.to_string()),
        _ => None,
    };
    let done = DeliveryTry { started_at, duration, status_code: status.map(|status| status.as_u16()), error };
    match status {
        Some(status) if status.is_success() => DeliveryEnd::Delivered(done),
        Some(StatusCode::GONE) => DeliveryEnd::GivenUp(done),
        _ if before + 1 >= options.max_attempts => DeliveryEnd::GivenUp(done),
        _ => {
            let asked_for = result.ok().and_then(|reply| reply.retry_after);
            let at = now().plus(pause(options, before, asked_for, fastrand::f64()));
            DeliveryEnd::Retry { done, at }
        }
    }
}

/// Exponential, and spread over the whole of it, so that receivers that were away are not met by all at once. A
/// receiver may ask for more, up to the longest pause. `spread` is between 0 and 1.
fn pause(options: &CallbackOptions, before: u32, asked_for: Option<Duration>, spread: f64) -> Duration {
    let factor = 2_u32.saturating_pow(before.min(31));
    let longest = options.backoff.saturating_mul(factor).min(options.max_backoff);
    let chosen = longest.mul_f64(spread.clamp(0.0, 1.0));
    chosen.max(asked_for.unwrap_or_default().min(options.max_backoff))
}

/// However long the store is away, while the lease holds. After that it is tried again.
async fn settle(shared: &Shared, key: DeliveryKey, end: DeliveryEnd, until: Instant) -> Option<Timestamp> {
    let again = match &end {
        DeliveryEnd::Retry { at, .. } => Some(*at),
        DeliveryEnd::Released => Some(now()),
        DeliveryEnd::Delivered(_) | DeliveryEnd::GivenUp(_) => None,
    };
    let mut pause = Duration::from_millis(20);
    loop {
        match shared.store.settle_delivery(key, now(), end.clone()).await {
            Ok(()) => {
                told(key.id, &end);
                return again;
            }
            // Erased meanwhile, or carried out by a try whose answer was lost, or somebody else's by now.
            Err(StoreError::LeaseLost) => return None,
            Err(error) if Instant::now() + pause >= until => {
                warn!(job.id = %key.id, %error, "what became of a callback cannot be stored; it will be sent again");
                return None;
            }
            Err(error) => {
                warn!(job.id = %key.id, %error, "cannot store yet what became of a callback");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE);
            }
        }
    }
}

fn told(id: JobId, end: &DeliveryEnd) {
    if let DeliveryEnd::GivenUp(done) = end {
        warn!(job.id = %id, status = done.status_code, error = done.error, "a callback is given up");
        metrics::counter!("gavel_deliveries_given_up_total").increment(1);
    }
}

fn count(result: &Result<Reply, Failure>, duration: Duration) {
    let result = match result {
        Ok(reply) if reply.status.is_success() => "delivered",
        Ok(_) => "refused",
        Err(failure) => failure.as_str(),
    };
    metrics::counter!("gavel_delivery_attempts_total", "result" => result).increment(1);
    metrics::histogram!("gavel_delivery_seconds").record(duration.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_have_a_bound() {
        let options = CallbackOptions::default();
        let seconds = |before, asked: Option<u64>, spread| {
            pause(&options, before, asked.map(Duration::from_secs), spread).as_secs_f64()
        };
        let longest: Vec<f64> = (0..12).map(|before| seconds(before, None, 1.0)).collect();
        assert_eq!(longest, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0]);
        assert_eq!(seconds(u32::MAX, None, 1.0), 600.0);
        assert_eq!((seconds(3, None, 0.0), seconds(3, None, 0.5)), (0.0, 4.0));
        assert_eq!(seconds(0, Some(30), 0.5), 30.0, "the receiver asks for more");
        assert_eq!(seconds(5, Some(1), 1.0), 32.0, "less than that is not asked for");
        assert_eq!(seconds(0, Some(u64::MAX), 0.0), 600.0, "nobody waits for ever");
    }

    #[test]
    fn an_answer_decides_what_becomes_of_a_delivery() {
        let options = CallbackOptions { max_attempts: 3, ..CallbackOptions::default() };
        let judge = |before, result| {
            match judge(&options, before, Timestamp(0), Duration::ZERO, result) {
                DeliveryEnd::Delivered(_) => "delivered",
                DeliveryEnd::Retry { .. } => "retry",
                DeliveryEnd::GivenUp(_) => "given up",
                DeliveryEnd::Released => "released",
            }
            .to_owned()
        };
        let answer = |status| Ok(Reply { status: StatusCode::from_u16(status).unwrap(), retry_after: None });
        for (status, expected) in [
            (200, "delivered"),
            (204, "delivered"),
            (299, "delivered"),
            (101, "retry"),
            (301, "retry"),
            (307, "retry"),
            (400, "retry"),
            (404, "retry"),
            (410, "given up"),
            (429, "retry"),
            (500, "retry"),
            (503, "retry"),
        ] {
            assert_eq!(judge(0, answer(status)), expected, "{status}");
        }
        assert_eq!(judge(1, Err(Failure::Timeout)), "retry");
        assert_eq!(judge(2, Err(Failure::Timeout)), "given up", "the third of three");
        assert_eq!(judge(2, answer(500)), "given up");
        assert_eq!(judge(2, answer(200)), "delivered");
    }
}
