//! One worker: a thread with a sandbox, judging one job after the other.

use super::dispatch::{Idle, STORE_PAUSE};
use super::{Shared, Why, now, settle::Done};
use crate::judge::{Judged, judge};
use gavel_core::Language;
use gavel_core::board::WorkerState;
use gavel_sandbox::{Bell, Cancel, Fault, Live, LiveInput, Sandbox, Typed};
use gavel_store::{Claim, Event, Input, Settlement, StoreError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Sender as DoneSender, UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What the dispatcher has for a worker that it was sent.
pub enum Task {
    Judge(Box<Claim>),
    /// Ask the store again.
    Stand,
}

/// A job that met a fault waits so long before its next attempt, doubled for each earlier one.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Pause before a worker tries again to open a sandbox.
const REOPEN_DELAY: Duration = Duration::from_millis(500);

pub fn start_all(shared: &Arc<Shared>, done: &DoneSender<Done>) -> (Vec<Sender<Task>>, UnboundedReceiver<Idle>) {
    let (idle, idle_receiver) = unbounded_channel();
    let slots = (0..shared.options.max_workers).map(|id| {
        let (sender, tasks) = channel();
        let slot = Slot {
            id,
            shared: Arc::clone(shared),
            runtime: Handle::current(),
            tasks,
            done: done.clone(),
            idle: idle.clone(),
            sandbox: None,
        };
        let spawned = std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || slot.run());
        if let Err(e) = spawned {
            tracing::error!(worker = id, error = %e, "cannot start a worker");
        }
        sender
    });
    (slots.collect(), idle_receiver)
}

struct Slot {
    id: u32,
    shared: Arc<Shared>,
    runtime: Handle,
    tasks: Receiver<Task>,
    done: DoneSender<Done>,
    idle: UnboundedSender<Idle>,
    sandbox: Option<Box<dyn Sandbox>>,
}

impl Slot {
    fn run(mut self) {
        if self.id < self.shared.options.min_workers {
            self.open_patiently();
        }
        self.enter(WorkerState::Idle);
        while let Some(claim) = self.next() {
            let end = self.attend(&claim);
            if self.done.blocking_send(Done { claim, end }).is_err() {
                break;
            }
            if self.sandbox.is_none() {
                // It failed, or could not be opened: no further job may suffer from that.
                self.open_patiently();
            }
            self.enter(WorkerState::Idle);
        }
        self.enter(WorkerState::Stopped);
    }

    /// The next job; `None` when the pool closes.
    fn next(&mut self) -> Option<Claim> {
        loop {
            let error = match self.stand() {
                Some(Ok(Some(claim))) => return Some(claim),
                Some(Ok(None)) => None,
                Some(Err(error)) => Some(error),
                None => return None,
            };
            // The dispatcher is gone only when the pool drains; then no task comes, either.
            let _ = self.idle.send(Idle { worker: self.id, error });
            match self.tasks.recv() {
                Ok(Task::Judge(claim)) => return Some(*claim),
                Ok(Task::Stand) => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits at the store, without a way over the dispatcher; `None` when the pool drains. Closes the sandbox
    /// of a worker that is only needed at busy times. A claim that comes when nobody waits any more goes back
    /// by itself.
    fn stand(&mut self) -> Option<Result<Option<Claim>, StoreError>> {
        let Self { id, shared, runtime, sandbox, .. } = self;
        let (id, options) = (*id, &shared.options);
        runtime.block_on(async {
            let mut draining = shared.draining.subscribe();
            let claim = shared.parts.store.claim_next(&options.node, id as i32, now, options.lease);
            tokio::pin!(claim);
            loop {
                let closes = id >= options.min_workers && sandbox.is_some();
                tokio::select! {
                    biased;
                    _ = draining.wait_for(|draining| *draining) => return None,
                    answer = &mut claim => return Some(answer),
                    () = tokio::time::sleep(options.idle_timeout), if closes => *sandbox = None,
                }
            }
        })
    }

    /// Judges one job, unless the pool drains. `None`: the claim is lost, and so is the result.
    fn attend(&mut self, claim: &Claim) -> Option<Settlement> {
        let not_now = |delay| Some(Settlement::Released { delay, count_attempt: false });
        if self.shared.is_draining() {
            return not_now(Duration::ZERO);
        }
        match self.shared.hold(claim.key) {
            Ok(cancel) => self.work(claim, &cancel),
            Err(error) => {
                // No descriptor is left for the bell of its cancellation: the job is not to blame.
                tracing::warn!(job.id = %claim.key.id, worker = self.id, %error, "giving back a job");
                not_now(STORE_PAUSE)
            }
        }
    }

    /// Opens the sandbox, however long it takes: what is in the way may go away.
    fn open_patiently(&mut self) {
        while !self.shared.is_draining() {
            match self.open() {
                Ok(()) => return,
                Err(fault) => {
                    tracing::error!(worker = self.id, step = fault.step, error = %fault, "cannot open a sandbox");
                    self.enter(WorkerState::Recovering);
                    std::thread::sleep(REOPEN_DELAY);
                }
            }
        }
    }

    fn open(&mut self) -> Result<(), Fault> {
        if self.sandbox.is_none() {
            let started = Instant::now();
            self.sandbox = Some(self.shared.parts.backend.open(self.id)?);
            metrics::counter!("gavel_sandboxes_opened_total").increment(1);
            metrics::histogram!("gavel_sandbox_open_seconds").record(started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn work(&mut self, claim: &Claim, cancel: &Cancel) -> Option<Settlement> {
        self.shared.parts.board.change(self.id as i32, now(), WorkerState::Busy, Some(claim.key.id));
        // Before it is told: whoever hears of this attempt types for it.
        let live = match claim.job.interactive.map(|_| self.input(claim)).transpose() {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(job.id = %claim.key.id, worker = self.id, %error, "giving back a job");
                return Some(Settlement::Released { delay: STORE_PAUSE, count_attempt: false });
            }
        };
        let started = Event::Started { worker: claim.worker, attempt: claim.key.attempt };
        self.shared.parts.queue.publish(claim.key.id, started);
        let Some(language) = self.shared.parts.catalogue.get(&claim.job.language).cloned() else {
            let message = format!("the language {:?} is not installed any more", claim.job.language);
            return Some(Settlement::Failed { message });
        };
        if let Err(fault) = self.open() {
            tracing::error!(worker = self.id, step = fault.step, error = %fault, "cannot open a sandbox");
            return Some(Settlement::Released { delay: REOPEN_DELAY, count_attempt: false });
        }
        // A bug of ours must cost one attempt and not the worker.
        let judged = catch_unwind(AssertUnwindSafe(|| self.judge(claim, &language, live.as_ref(), cancel)));
        let judged = judged.unwrap_or_else(|_| Err(Fault::new("judge a job", "a panic; its message is above")));
        match judged {
            Ok(Judged::Outcome(outcome)) => Some(Settlement::Completed(Arc::from(outcome))),
            Ok(Judged::Cancelled) => match self.shared.why_stopped(claim.key) {
                Some(Why::Wanted) => Some(Settlement::Cancelled),
                Some(Why::Drain) => Some(Settlement::Released { delay: Duration::ZERO, count_attempt: false }),
                Some(Why::LeaseLost) | None => None,
            },
            Err(fault) => Some(self.recover(claim, &fault)),
        }
    }

    /// What the clients of an interactive job type.
    fn input(&self, claim: &Claim) -> std::io::Result<LiveInput> {
        let bell = Bell::new()?;
        let ring = bell.clone();
        let mut typed = self.shared.parts.queue.take_input(claim.key.id, Box::new(move || ring.ring()));
        Ok(LiveInput::new(bell, move || {
            Some(match typed.take()? {
                Input::Bytes(bytes) => Typed::Bytes(bytes),
                Input::End => Typed::End,
                Input::Resize(tty) => Typed::Resize(tty),
            })
        }))
    }

    fn judge(
        &mut self,
        claim: &Claim,
        language: &Language,
        input: Option<&LiveInput>,
        cancel: &Cancel,
    ) -> Result<Judged, Fault> {
        let Some(sandbox) = self.sandbox.as_deref_mut() else {
            return Err(Fault::new("open a sandbox", "there is none"));
        };
        let Shared { parts, options, .. } = &*self.shared;
        let tty = claim.job.interactive.and_then(|interactive| interactive.tty);
        let live = input.map(|input| Live { input, tty, idle: options.interactive_idle });
        let mut publish = |stream, bytes: &[u8]| {
            parts.queue.publish(claim.key.id, Event::Output { stream, bytes: bytes.to_vec() });
        };
        judge(sandbox, language, &claim.job, &parts.cache, live, cancel, &mut publish)
    }

    /// Our fault: whatever the sandbox holds is unknown now, so it goes; the job gets another attempt
    /// while it has one.
    fn recover(&mut self, claim: &Claim, fault: &Fault) -> Settlement {
        self.sandbox = None;
        self.enter(WorkerState::Recovering);
        self.shared.parts.board.count_fault(self.id as i32);
        metrics::counter!("gavel_faults_total", "step" => fault.step).increment(1);
        let (id, tries) = (claim.key.id, claim.tries);
        tracing::error!(job.id = %id, tries, worker = self.id, step = fault.step, error = %fault, "a fault of ours");
        if tries >= self.shared.options.max_attempts {
            let message =
                format!("the sandbox failed {tries} times while it ran this job; the server's log has the details");
            return Settlement::Failed { message };
        }
        Settlement::Released {
            delay: RETRY_DELAY * 2u32.saturating_pow(tries.saturating_sub(1).min(8)),
            count_attempt: true,
        }
    }

    fn enter(&self, state: WorkerState) {
        self.shared.parts.board.change(self.id as i32, now(), state, None);
    }
}
