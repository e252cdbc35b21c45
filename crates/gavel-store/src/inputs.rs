//! What clients type for the jobs of this process, until whoever runs them takes it.

use crate::{Input, InputRefused, Inputs};
use gavel_core::JobId;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Bytes that may wait for one job. Beyond it whoever types waits, too.
pub const KEPT: usize = 64 << 10;
/// Bytes that may wait for all the jobs together that nobody runs yet. Any number of jobs may be pending.
const KEPT_FOR_PENDING: usize = 16 << 20;
/// What an input costs besides its bytes.
const OVERHEAD: usize = 64;
/// Nobody runs a job whose input was not touched for so long; its end was not told.
const STALE: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub struct Mailboxes {
    boxes: Mutex<Boxes>,
    /// How many there are, for the many jobs that have none.
    count: AtomicUsize,
    /// What waits for jobs that nobody runs yet.
    pending: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Boxes {
    of_jobs: HashMap<JobId, Arc<Mailbox>>,
    /// So many there may be before the stale ones are looked for again.
    look_at: usize,
}

struct Mailbox {
    state: Mutex<State>,
    room: Notify,
    pending: Arc<AtomicUsize>,
}

struct State {
    /// What [`Mailboxes::pending`] counts of `cost`: all of it, until somebody runs the job.
    pending: usize,
    waiting: VecDeque<Input>,
    /// What `waiting` counts against its limit.
    cost: usize,
    closed: bool,
    ended: bool,
    ring: Option<Ring>,
    touched: Instant,
}

type Ring = Box<dyn Fn() + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mailboxes {
    fn of(&self, id: JobId) -> Arc<Mailbox> {
        let mut boxes = lock(&self.boxes);
        if boxes.of_jobs.len() >= boxes.look_at && !boxes.of_jobs.contains_key(&id) {
            // Those that only this map knows any more.
            boxes.of_jobs.retain(|_, mailbox| Arc::strong_count(mailbox) > 1 || !mailbox.is_stale());
            // So that a look costs each new one a constant share.
            boxes.look_at = (2 * boxes.of_jobs.len()).max(64);
        }
        let mailbox = boxes.of_jobs.entry(id).or_insert_with(|| Mailbox::new(self.pending.clone())).clone();
        self.count.store(boxes.of_jobs.len(), Ordering::SeqCst);
        mailbox
    }

    pub async fn send(&self, id: JobId, input: Input) -> Result<(), InputRefused> {
        let mailbox = self.of(id);
        let mut input = Some(input);
        loop {
            // Registered before the look, so that room that is made in between is not missed.
            let mut room = std::pin::pin!(mailbox.room.notified());
            room.as_mut().enable();
            if lock(&mailbox.state).put(&mut input, &self.pending)? {
                return Ok(());
            }
            room.await;
        }
    }

    pub fn open(&self, id: JobId, ring: Ring) -> Box<dyn Inputs> {
        let mailbox = self.of(id);
        let mut state = lock(&mailbox.state);
        if !state.waiting.is_empty() {
            ring();
        }
        state.ring = Some(ring);
        // From here on the number of workers is the bound.
        mailbox.pending.fetch_sub(std::mem::take(&mut state.pending), Ordering::SeqCst);
        drop(state);
        mailbox.room.notify_waiters();
        Box::new(End(mailbox))
    }

    /// The attempt is void, and so is what was typed for it.
    pub fn forget(&self, id: JobId) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(mailbox) = lock(&self.boxes).of_jobs.get(&id)
        {
            // Whoever runs the next attempt may listen already.
            mailbox.empty(|state| State { ring: state.ring.take(), ..State::new() });
        }
    }

    pub fn end(&self, id: JobId) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mailbox = {
            let mut boxes = lock(&self.boxes);
            let mailbox = boxes.of_jobs.remove(&id);
            self.count.store(boxes.of_jobs.len(), Ordering::SeqCst);
            mailbox
        };
        if let Some(mailbox) = mailbox {
            mailbox.empty(|_| State { ended: true, ..State::new() });
        }
    }
}

impl Mailbox {
    fn new(pending: Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new()), room: Notify::new(), pending })
    }

    /// Throws away what waits, and begins anew.
    fn empty(&self, anew: impl FnOnce(&mut State) -> State) {
        let mut state = lock(&self.state);
        self.pending.fetch_sub(state.pending, Ordering::SeqCst);
        *state = anew(&mut state);
        drop(state);
        self.room.notify_waiters();
    }

    fn is_stale(&self) -> bool {
        lock(&self.state).touched.elapsed() >= STALE
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.pending.fetch_sub(state.pending, Ordering::SeqCst);
    }
}

impl State {
    fn new() -> Self {
        Self {
            pending: 0,
            waiting: VecDeque::new(),
            cost: 0,
            closed: false,
            ended: false,
            ring: None,
            touched: Instant::now(),
        }
    }

    /// Takes it, if there is room.
    fn put(&mut self, input: &mut Option<Input>, pending: &AtomicUsize) -> Result<bool, InputRefused> {
        if self.ended {
            return Err(InputRefused::Ended);
        }
        if self.closed && !matches!(input, Some(Input::Resize(_))) {
            return Err(InputRefused::Closed);
        }
        self.touched = Instant::now();
        if let (Some(Input::Resize(_)), Some(last @ Input::Resize(_))) = (&*input, self.waiting.back_mut())
            && let Some(newest) = input.take()
        {
            // Only the last size matters.
            *last = newest;
            return Ok(true);
        }
        let is_pending = self.ring.is_none();
        // Whoever types waits for the job to be run, then.
        if self.cost >= KEPT || (is_pending && pending.load(Ordering::SeqCst) >= KEPT_FOR_PENDING) {
            return Ok(false);
        }
        if let Some(input) = input.take() {
            self.closed |= input == Input::End;
            self.cost += cost(&input);
            if is_pending {
                self.pending += cost(&input);
                pending.fetch_add(cost(&input), Ordering::SeqCst);
            }
            self.waiting.push_back(input);
        }
        if let Some(ring) = &self.ring {
            ring();
        }
        Ok(true)
    }
}

fn cost(input: &Input) -> usize {
    match input {
        Input::Bytes(bytes) => bytes.len() + OVERHEAD,
        Input::End | Input::Resize(_) => OVERHEAD,
    }
}

struct End(Arc<Mailbox>);

impl Inputs for End {
    fn take(&mut self) -> Option<Input> {
        let mut state = lock(&self.0.state);
        let input = state.waiting.pop_front()?;
        state.cost -= cost(&input);
        state.touched = Instant::now();
        drop(state);
        self.0.room.notify_waiters();
        Some(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_of_what_has_ended() {
        let mailboxes = Mailboxes::default();
        for n in 0..100 {
            let id = JobId::from_u128(n);
            mailboxes.send(id, Input::Bytes(b"x".to_vec())).await.unwrap();
            let _taken = mailboxes.open(id, Box::new(|| ())).take();
            mailboxes.end(id);
        }
        assert_eq!((lock(&mailboxes.boxes).of_jobs.len(), mailboxes.count.load(Ordering::SeqCst)), (0, 0));
    }

    #[tokio::test]
    async fn what_waits_for_pending_jobs_is_bounded_over_all_of_them() {
        let mailboxes = Mailboxes::default();
        let piece = || Input::Bytes(vec![b'x'; KEPT]);
        let ids: Vec<_> = (0..1000).map(JobId::from_u128).collect();
        let mut kept = 0;
        for id in &ids {
            let sent = tokio::time::timeout(Duration::from_millis(5), mailboxes.send(*id, piece())).await;
            kept += usize::from(sent.is_ok());
        }
        assert_eq!(kept, KEPT_FOR_PENDING.div_ceil(KEPT + OVERHEAD));
        // One that is run makes room, and so does one that has ended.
        let _inputs = mailboxes.open(ids[0], Box::new(|| ()));
        mailboxes.send(ids[999], piece()).await.unwrap();
        mailboxes.end(ids[1]);
        mailboxes.send(ids[998], piece()).await.unwrap();
        ids.iter().for_each(|id| mailboxes.end(*id));
        assert_eq!(mailboxes.pending.load(Ordering::SeqCst), 0);
    }
}
