//! The bell of one process: announcements, live output and wishes to cancel, all in memory.

use crate::inputs::Mailboxes;
use crate::{Event, Input, InputRefused, Inputs, Listener, Queue, Stream};
use async_trait::async_trait;
use gavel_core::JobId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const SHARDS: usize = 16;
/// What an event costs in the log besides its bytes.
const OVERHEAD: usize = 64;
/// Wishes kept while nobody asks for them. An older one is not lost either: it stands in the book and
/// comes with the next extension of the lease.
const WISHES: usize = 65_536;
/// A log that nobody listens to and that got nothing for so long belongs to an attempt that was lost.
const STALE: Duration = Duration::from_secs(3600);
const TIDY_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct LocalQueueOptions {
    /// Live output kept of each running job, for listeners that come late or are slow. Beyond it the
    /// oldest goes, and they receive [`Event::Dropped`] in its place.
    pub kept_per_job: usize,
}

impl Default for LocalQueueOptions {
    fn default() -> Self {
        Self { kept_per_job: 1 << 20 }
    }
}

/// [`Queue`] for a server that is one process.
pub struct LocalQueue {
    options: LocalQueueOptions,
    rung: AtomicBool,
    waiting: Notify,
    shards: [Arc<Mutex<Shard>>; SHARDS],
    wishes: Mutex<Wishes>,
    wished: Notify,
    /// Keeps one ring for who is not waiting yet.
    deliveries: Notify,
    inputs: Mailboxes,
}

struct Shard {
    channels: HashMap<JobId, Arc<Channel>>,
    tidied: Instant,
}

/// Each job once, in the order of asking.
#[derive(Default)]
struct Wishes {
    order: VecDeque<JobId>,
    known: HashSet<JobId>,
}

/// One job's events, shared by all its listeners: a slow one reads late, it stores nothing.
struct Channel {
    log: Mutex<Log>,
    news: Notify,
    /// Changes only under the lock of the shard.
    listeners: AtomicUsize,
}

/// The current attempt, with a window of its latest output.
struct Log {
    /// Rises when an attempt is void: what a listener has seen of an older one no longer holds.
    generation: u64,
    started: Option<Event>,
    kept: VecDeque<Piece>,
    /// What `kept` counts against its limit.
    cost: usize,
    /// Where in the attempt the next output will stand.
    next: Position,
    /// The last event.
    ended: Option<Event>,
    touched: Instant,
}

struct Piece {
    at: Position,
    stream: Stream,
    bytes: Vec<u8>,
}

/// A place in the output of one attempt: so many pieces and so many bytes come before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Position {
    pieces: u64,
    bytes: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here runs foreign code under a lock, so a panic elsewhere left whole values behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for LocalQueue {
    fn default() -> Self {
        Self::new(LocalQueueOptions::default())
    }
}

impl LocalQueue {
    pub fn new(options: LocalQueueOptions) -> Self {
        let shard = |_| Arc::new(Mutex::new(Shard { channels: HashMap::new(), tidied: Instant::now() }));
        Self {
            options,
            rung: AtomicBool::new(false),
            waiting: Notify::new(),
            shards: std::array::from_fn(shard),
            wishes: Mutex::default(),
            wished: Notify::new(),
            deliveries: Notify::new(),
            inputs: Mailboxes::default(),
        }
    }

    fn shard(&self, id: JobId) -> &Arc<Mutex<Shard>> {
        // The end of an id is random, its beginning is the time.
        &self.shards[usize::from(id.as_bytes()[15]) % SHARDS]
    }

    /// Jobs whose events are kept or listened to.
    pub fn channels(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).channels.len()).sum()
    }
}

impl Channel {
    fn new() -> Arc<Self> {
        let log = Log {
            generation: 0,
            started: None,
            kept: VecDeque::new(),
            cost: 0,
            next: Position::default(),
            ended: None,
            touched: Instant::now(),
        };
        Arc::new(Self { log: Mutex::new(log), news: Notify::new(), listeners: AtomicUsize::new(0) })
    }

    fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 0
    }

    fn add(&self, event: Event, limit: usize) {
        lock(&self.log).add(event, limit);
        self.news.notify_waiters();
    }
}

impl Log {
    fn add(&mut self, event: Event, limit: usize) {
        self.touched = Instant::now();
        match event {
            Event::Started { .. } => {
                // An attempt after one that was lost without a word.
                if self.started.is_some() {
                    self.restart();
                }
                self.started = Some(event);
            }
            Event::Output { stream, bytes } => self.add_output(stream, bytes, limit),
            // The publisher itself lost something; listeners learn of it as they would of a gap.
            Event::Dropped { bytes } => {
                self.next = Position { pieces: self.next.pieces + 1, bytes: self.next.bytes + bytes }
            }
            Event::Restarted => self.restart(),
            Event::Ended(_) => self.ended = Some(event),
        }
    }

    fn add_output(&mut self, stream: Stream, bytes: Vec<u8>, limit: usize) {
        let at = self.next;
        self.next = Position { pieces: at.pieces + 1, bytes: at.bytes + bytes.len() as u64 };
        self.cost += bytes.len() + OVERHEAD;
        self.kept.push_back(Piece { at, stream, bytes });
        while self.cost > limit {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.cost -= oldest.bytes.len() + OVERHEAD;
        }
    }

    fn restart(&mut self) {
        self.generation += 1;
        self.started = None;
        self.kept = VecDeque::new();
        self.cost = 0;
        self.next = Position::default();
    }

    /// The piece at this place or, if it is gone, the first after it.
    fn piece_from(&self, place: Position) -> Option<&Piece> {
        let index = self.kept.partition_point(|piece| piece.at.pieces < place.pieces);
        self.kept.get(index)
    }
}

/// Reads a channel's log at its own pace.
struct LocalListener {
    id: JobId,
    shard: Arc<Mutex<Shard>>,
    channel: Arc<Channel>,
    generation: u64,
    seen_start: bool,
    place: Position,
    done: bool,
}

impl LocalListener {
    /// `None`: nothing yet.
    fn take(&mut self) -> Option<Event> {
        let log = lock(&self.channel.log);
        if self.generation != log.generation {
            let seen_anything = self.seen_start || self.place != Position::default();
            self.generation = log.generation;
            self.seen_start = false;
            self.place = Position::default();
            if seen_anything {
                return Some(Event::Restarted);
            }
        }
        if !self.seen_start
            && let Some(started) = &log.started
        {
            self.seen_start = true;
            return Some(started.clone());
        }
        if self.place != log.next {
            let piece = log.piece_from(self.place);
            let reached = piece.map_or(log.next, |piece| piece.at);
            if reached != self.place {
                let bytes = reached.bytes - self.place.bytes;
                self.place = reached;
                return Some(Event::Dropped { bytes });
            }
            let piece = piece?;
            self.place = Position { pieces: reached.pieces + 1, bytes: reached.bytes + piece.bytes.len() as u64 };
            return Some(Event::Output { stream: piece.stream, bytes: piece.bytes.clone() });
        }
        self.done = log.ended.is_some();
        log.ended.clone()
    }
}

#[async_trait]
impl Listener for LocalListener {
    async fn next(&mut self) -> Option<Event> {
        if self.done {
            return None;
        }
        let channel = self.channel.clone();
        loop {
            // Registered before the look, so that what comes in between is not missed.
            let mut news = std::pin::pin!(channel.news.notified());
            news.as_mut().enable();
            if let Some(event) = self.take() {
                return Some(event);
            }
            news.await;
        }
    }
}

/// The last listener of a job that is not running leaves nothing behind.
impl Drop for LocalListener {
    fn drop(&mut self) {
        let mut shard = lock(&self.shard);
        self.channel.listeners.fetch_sub(1, Ordering::Relaxed);
        let unused = shard.channels.get(&self.id).is_some_and(|channel| {
            Arc::ptr_eq(channel, &self.channel) && !channel.is_heard() && lock(&channel.log).started.is_none()
        });
        if unused {
            shard.channels.remove(&self.id);
        }
    }
}

impl Shard {
    fn tidy(&mut self) {
        if self.tidied.elapsed() >= TIDY_EVERY {
            self.tidied = Instant::now();
            self.channels.retain(|_, channel| channel.is_heard() || lock(&channel.log).touched.elapsed() < STALE);
        }
    }

    /// The channel that an event goes to, if anybody could ever hear it.
    fn channel_for(&mut self, id: JobId, event: &Event) -> Option<Arc<Channel>> {
        match event {
            Event::Started { .. } => {
                self.tidy();
                Some(self.channels.entry(id).or_insert_with(Channel::new).clone())
            }
            Event::Output { .. } | Event::Dropped { .. } => self.channels.get(&id).cloned(),
            Event::Restarted => {
                let unheard = self.channels.get(&id).is_some_and(|channel| !channel.is_heard());
                if unheard { self.channels.remove(&id) } else { self.channels.get(&id).cloned() }
            }
            Event::Ended(_) => self.channels.remove(&id),
        }
    }
}

#[async_trait]
impl Queue for LocalQueue {
    fn announce(&self, jobs: usize) {
        if jobs > 0 {
            self.rung.store(true, Ordering::SeqCst);
            self.waiting.notify_waiters();
        }
    }

    /// Meant for one task per process, the one that claims for all its workers. Where several wait, each
    /// ring wakes all that wait at that moment.
    async fn wait(&self) {
        let mut rung = std::pin::pin!(self.waiting.notified());
        rung.as_mut().enable();
        if !self.rung.swap(false, Ordering::SeqCst) {
            rung.await;
            // However often it rang by now: one look at the book answers it all.
            self.rung.store(false, Ordering::SeqCst);
        }
    }

    fn announce_deliveries(&self) {
        self.deliveries.notify_one();
    }

    /// Meant for the one task per process that delivers.
    async fn wait_for_deliveries(&self) {
        self.deliveries.notified().await;
    }

    fn publish(&self, id: JobId, event: Event) {
        match event {
            Event::Restarted => self.inputs.forget(id),
            Event::Ended(_) => self.inputs.end(id),
            _ => {}
        }
        let channel = lock(self.shard(id)).channel_for(id, &event);
        if let Some(channel) = channel {
            channel.add(event, self.options.kept_per_job);
        }
    }

    fn listen(&self, id: JobId) -> Box<dyn Listener> {
        let shard = self.shard(id).clone();
        let channel = {
            let mut shard = lock(&shard);
            let channel = shard.channels.entry(id).or_insert_with(Channel::new).clone();
            channel.listeners.fetch_add(1, Ordering::Relaxed);
            channel
        };
        Box::new(LocalListener {
            id,
            shard,
            channel,
            generation: 0,
            seen_start: false,
            place: Position::default(),
            done: false,
        })
    }

    fn want_cancel(&self, id: JobId) {
        {
            let mut wishes = lock(&self.wishes);
            if wishes.known.insert(id) {
                wishes.order.push_back(id);
            }
            if wishes.order.len() > WISHES
                && let Some(oldest) = wishes.order.pop_front()
            {
                wishes.known.remove(&oldest);
            }
        }
        self.wished.notify_waiters();
    }

    async fn cancel_wanted(&self) -> JobId {
        loop {
            let mut wished = std::pin::pin!(self.wished.notified());
            wished.as_mut().enable();
            {
                let mut wishes = lock(&self.wishes);
                if let Some(id) = wishes.order.pop_front() {
                    wishes.known.remove(&id);
                    return id;
                }
            }
            wished.await;
        }
    }

    async fn send_input(&self, id: JobId, input: Input) -> Result<(), InputRefused> {
        self.inputs.send(id, input).await
    }

    fn take_input(&self, id: JobId, ring: Box<dyn Fn() + Send + Sync>) -> Box<dyn Inputs> {
        self.inputs.open(id, ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::queue::QueueFixture;

    struct Local;

    #[async_trait]
    impl QueueFixture for Local {
        async fn fresh(&self) -> Arc<dyn Queue> {
            Arc::new(LocalQueue::default())
        }
    }

    mod contract {
        use super::Local;
        crate::queue_contract!(Local);
    }

    fn queue(kept_per_job: usize) -> LocalQueue {
        LocalQueue::new(LocalQueueOptions { kept_per_job })
    }

    fn id(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    fn output(bytes: usize) -> Event {
        Event::Output { stream: Stream::Stdout, bytes: vec![b'x'; bytes] }
    }

    const STARTED: Event = Event::Started { worker: 0, attempt: 1 };

    #[tokio::test]
    async fn what_is_not_kept_is_told_by_its_size() {
        let queue = queue(1000);
        let mut early = queue.listen(id(1));
        queue.publish(id(1), STARTED);
        assert_eq!(early.next().await, Some(STARTED));
        for _ in 0..100 {
            queue.publish(id(1), output(36));
        }
        let mut late = queue.listen(id(1));
        assert_eq!(late.next().await, Some(STARTED));
        for listener in [&mut early, &mut late] {
            // Ten pieces of 36 and their overhead are what fits.
            assert_eq!(listener.next().await, Some(Event::Dropped { bytes: 90 * 36 }));
            for _ in 0..10 {
                assert_eq!(listener.next().await, Some(output(36)));
            }
        }
        queue.publish(id(1), output(5000));
        queue.publish(id(1), Event::Ended(None));
        assert_eq!(late.next().await, Some(Event::Dropped { bytes: 5000 }));
        assert_eq!(late.next().await, Some(Event::Ended(None)));
    }

    #[tokio::test]
    async fn who_keeps_up_misses_nothing_however_much_it_is() {
        let queue = queue(1000);
        let mut listener = queue.listen(id(1));
        queue.publish(id(1), STARTED);
        assert_eq!(listener.next().await, Some(STARTED));
        for _ in 0..1000 {
            queue.publish(id(1), output(500));
            assert_eq!(listener.next().await, Some(output(500)));
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_of_what_has_ended_or_was_never_there() {
        let queue = queue(1 << 20);
        for n in 0..100 {
            queue.publish(id(n), output(100));
            queue.publish(id(n), Event::Restarted);
            queue.publish(id(n), Event::Ended(None));
        }
        assert_eq!(queue.channels(), 0, "unknown jobs");
        for n in 0..100 {
            queue.publish(id(n), STARTED);
            queue.publish(id(n), output(100));
        }
        assert_eq!(queue.channels(), 100);
        for n in 0..50 {
            queue.publish(id(n), Event::Restarted);
        }
        assert_eq!(queue.channels(), 50, "of a void attempt");
        for n in 0..100 {
            queue.publish(id(n), Event::Ended(None));
        }
        assert_eq!(queue.channels(), 0, "ended jobs");
        let listeners: Vec<_> = (0..100).flat_map(|n| [queue.listen(id(n)), queue.listen(id(n))]).collect();
        assert_eq!(queue.channels(), 100);
        drop(listeners);
        assert_eq!(queue.channels(), 0, "jobs that nobody listens to");
    }

    #[tokio::test]
    async fn an_attempt_that_starts_without_a_word_makes_void_the_one_before() {
        let queue = queue(1 << 20);
        let mut listener = queue.listen(id(1));
        queue.publish(id(1), STARTED);
        queue.publish(id(1), output(1));
        assert_eq!(listener.next().await, Some(STARTED));
        let second = Event::Started { worker: 3, attempt: 2 };
        queue.publish(id(1), second.clone());
        assert_eq!(listener.next().await, Some(Event::Restarted));
        assert_eq!(listener.next().await, Some(second));
    }

    #[tokio::test]
    async fn wishes_that_nobody_hears_do_not_pile_up() {
        let queue = queue(1 << 20);
        let wished = |n: u128| JobId::from_u128(n);
        for n in 0..WISHES as u128 + 10 {
            queue.want_cancel(wished(n));
            queue.want_cancel(wished(n));
        }
        assert_eq!(queue.cancel_wanted().await, wished(10), "the oldest stand in the book only");
        assert_eq!(lock(&queue.wishes).order.len(), WISHES - 1);
        assert_eq!(lock(&queue.wishes).known.len(), WISHES - 1);
    }
}
