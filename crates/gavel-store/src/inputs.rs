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
/// What an input costs besides its bytes.
const OVERHEAD: usize = 64;
/// Nobody runs a job whose input was not touched for so long; its end was not told.
const STALE: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub struct Mailboxes {
    boxes: Mutex<HashMap<JobId, Arc<Mailbox>>>,
    /// How many there are, for the many jobs that have none.
    count: AtomicUsize,
}

struct Mailbox {
    state: Mutex<State>,
    room: Notify,
}

struct State {
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
        if !boxes.contains_key(&id) {
            // Those that only this map knows any more.
            boxes.retain(|_, mailbox| Arc::strong_count(mailbox) > 1 || !mailbox.is_stale());
        }
        let mailbox = boxes.entry(id).or_insert_with(Mailbox::new).clone();
        self.count.store(boxes.len(), Ordering::SeqCst);
        mailbox
    }

    pub async fn send(&self, id: JobId, input: Input) -> Result<(), InputRefused> {
        let mailbox = self.of(id);
        let mut input = Some(input);
        loop {
            // Registered before the look, so that room that is made in between is not missed.
            let mut room = std::pin::pin!(mailbox.room.notified());
            room.as_mut().enable();
            if lock(&mailbox.state).put(&mut input)? {
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
        drop(state);
        Box::new(End(mailbox))
    }

    /// The attempt is void, and so is what was typed for it.
    pub fn forget(&self, id: JobId) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(mailbox) = lock(&self.boxes).get(&id)
        {
            let mut state = lock(&mailbox.state);
            // Whoever runs the next attempt may listen already.
            let ring = state.ring.take();
            *state = State { ring, ..State::new() };
            drop(state);
            mailbox.room.notify_waiters();
        }
    }

    pub fn end(&self, id: JobId) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mailbox = {
            let mut boxes = lock(&self.boxes);
            let mailbox = boxes.remove(&id);
            self.count.store(boxes.len(), Ordering::SeqCst);
            mailbox
        };
        if let Some(mailbox) = mailbox {
            *lock(&mailbox.state) = State { ended: true, ..State::new() };
            mailbox.room.notify_waiters();
        }
    }
}

impl Mailbox {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::new()), room: Notify::new() })
    }

    fn is_stale(&self) -> bool {
        lock(&self.state).touched.elapsed() >= STALE
    }
}

impl State {
    fn new() -> Self {
        Self { waiting: VecDeque::new(), cost: 0, closed: false, ended: false, ring: None, touched: Instant::now() }
    }

    /// Takes it, if there is room.
    fn put(&mut self, input: &mut Option<Input>) -> Result<bool, InputRefused> {
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
        if self.cost >= KEPT {
            return Ok(false);
        }
        if let Some(input) = input.take() {
            self.closed |= input == Input::End;
            self.cost += cost(&input);
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
        assert_eq!((lock(&mailboxes.boxes).len(), mailboxes.count.load(Ordering::SeqCst)), (0, 0));
    }
}
