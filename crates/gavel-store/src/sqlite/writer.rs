//! The one writer: a thread that executes everything that waits in one transaction (group commit).
//!
//! No timer holds anything back here: a command commits at once with all that came with it. Callers are
//! answered after the commit, never before, and those that need the disk by [`super::syncer`].

use super::SqliteOptions;
use super::hot::Hot;
use super::log;
use super::open::connect_writer;
use super::room::Room;
use super::standing::{self, Standing, Waiting};
use super::syncer::{Committed, Progress, Syncer};
use crate::{Depth, StoreError};
use rusqlite::Connection;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Commands that may wait; whoever comes when it is full waits for room.
const WAITING: usize = 1024;
/// Rows that a group may touch: bounds how long a small command waits behind large ones.
const GROUP_WEIGHT: usize = 2000;

/// Must the answer wait for the disk?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Survives a power cut.
    Full,
    /// Survives the death of the process. The next command that waits for the disk makes it durable too,
    /// because the log is one file in one order.
    Relaxed,
}

/// What a command works with.
pub(super) struct Tx<'a> {
    pub conn: &'a Connection,
    pub hot: &'a mut Hot,
    pub skew: &'a mut Skew,
    pub room: &'a mut Room,
    /// `None` while each command of a group that failed runs alone: none may suffer from another.
    pub standing: Option<&'a mut Standing>,
}

/// How far the time inside an id was ever from its job's creation, in milliseconds: what makes a window
/// of ids out of a window of time. Readers see a larger value before they can see the row that needs it.
pub(super) struct Skew {
    pub stored: i64,
    committed: i64,
    pub seen: Arc<AtomicI64>,
}

/// One waiting command. It may be run twice: when the group it was in failed because of another.
pub(super) trait Op: Send {
    fn durability(&self) -> Durability;
    fn weight(&self) -> usize;
    /// Nobody waits for the answer any more.
    fn abandoned(&self) -> bool;
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    /// Answers, after the commit. Returns what must be done because the answer reached nobody.
    fn succeed(self: Box<Self>) -> Option<Box<dyn Op>>;
    fn fail(self: Box<Self>, error: StoreError);
}

/// A closure and the caller that waits for its result.
pub(super) struct Command<T, F> {
    pub durability: Durability,
    pub weight: usize,
    pub work: F,
    pub result: Option<T>,
    pub reply: Option<oneshot::Sender<Result<T, StoreError>>>,
    pub undelivered: fn(T) -> Option<Box<dyn Op>>,
}

impl<T, F> Op for Command<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn abandoned(&self) -> bool {
        self.reply.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.result = Some((self.work)(tx)?);
        Ok(())
    }

    fn succeed(self: Box<Self>) -> Option<Box<dyn Op>> {
        let Self { work, result, reply, undelivered, .. } = *self;
        // Whoever is told may find that what the command was given is its own again.
        drop(work);
        match reply?.send(Ok(result?)) {
            Ok(()) | Err(Err(_)) => None,
            Err(Ok(result)) => undelivered(result),
        }
    }

    fn fail(self: Box<Self>, error: StoreError) {
        if let Some(reply) = self.reply {
            // The caller may have gone; then nobody needs to know.
            let _gone = reply.send(Err(error));
        }
    }
}

pub(super) enum Message {
    Run(Box<dyn Op>),
    Stand(Waiting),
    /// Finish what waits, then end.
    Close(oneshot::Sender<()>),
}

/// What the writer tells everybody without being asked.
#[derive(Debug)]
pub(super) struct Shared {
    depth: Mutex<Depth>,
    pub skew_ms: Arc<AtomicI64>,
    pub progress: Arc<Progress>,
}

impl Shared {
    pub fn depth(&self) -> Depth {
        *self.depth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, depth: Depth) {
        *self.depth.lock().unwrap_or_else(PoisonError::into_inner) = depth;
    }
}

pub(super) struct Writer {
    options: SqliteOptions,
    /// `None` after trouble that only a new connection can mend.
    state: Option<State>,
    shared: Arc<Shared>,
    standing: Standing,
    /// What must be done because answers reached nobody.
    follow_up: Vec<Box<dyn Op>>,
    syncer: Syncer,
    /// SQLite's log, for the fdatasync that SQLite leaves to us.
    log: Arc<File>,
}

struct State {
    conn: Connection,
    hot: Hot,
    skew: Skew,
    room: Room,
}

impl State {
    fn new(conn: Connection, options: &SqliteOptions, seen: Arc<AtomicI64>) -> rusqlite::Result<Self> {
        let hot = Hot::count(&conn)?;
        let stored = stored_skew(&conn)?;
        // The syncer does for commits what FULL would do.
        conn.execute_batch("PRAGMA synchronous = NORMAL")?;
        seen.fetch_max(stored, Ordering::SeqCst);
        let skew = Skew { stored, committed: stored, seen };
        Ok(Self { conn, hot, skew, room: Room::new(options) })
    }
}

fn stored_skew(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("SELECT value FROM meta WHERE name = 'id_skew_ms'", [], |r| r.get(0))
}

pub(super) struct Started {
    pub sender: mpsc::Sender<Message>,
    pub thread: JoinHandle<()>,
    pub shared: Arc<Shared>,
}

/// Starts the thread. It ends when told to close or when every sender is gone.
pub(super) fn start(
    conn: Connection,
    options: SqliteOptions,
    at_end: impl FnOnce() + Send + 'static,
) -> Result<Started, Box<dyn std::error::Error + Send + Sync>> {
    let skew_ms = Arc::new(AtomicI64::new(0));
    let state = State::new(conn, &options, skew_ms.clone())?;
    // The process before this one may have been killed when the disk had refused its log: there is no other trace.
    let log = log::make_whole(&state.conn, &options.path)?;
    let progress = Arc::new(Progress::new());
    let shared = Arc::new(Shared { depth: Mutex::new(state.hot.depth()), skew_ms, progress: Arc::clone(&progress) });
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut writer = Writer {
        options,
        state: Some(state),
        shared: shared.clone(),
        standing: Standing::default(),
        follow_up: Vec::new(),
        syncer: Syncer::start(progress)?,
        log,
    };
    let thread = std::thread::Builder::new().name("gavel-store-w".to_owned()).spawn(move || {
        let closers = writer.serve(receiver);
        writer.finish();
        // The lock on the directory goes last, and only then is whoever asked for the end told.
        at_end();
        for closer in closers {
            let _gone = closer.send(());
        }
    })?;
    Ok(Started { sender, thread, shared })
}

impl Writer {
    fn serve(&mut self, mut receiver: mpsc::Receiver<Message>) -> Vec<oneshot::Sender<()>> {
        let mut closers = Vec::new();
        let mut group: Vec<Box<dyn Op>> = Vec::new();
        while let Some(first) = receiver.blocking_recv() {
            let mut next = Some(first);
            let mut weight = 0;
            while let Some(message) = next.take() {
                match message {
                    Message::Run(op) => {
                        weight += op.weight().max(1);
                        group.push(op);
                    }
                    Message::Stand(waiting) => self.standing.add(waiting),
                    Message::Close(closer) => {
                        receiver.close();
                        closers.push(closer);
                    }
                }
                if weight < GROUP_WEIGHT {
                    next = receiver.try_recv().ok();
                }
            }
            self.run(std::mem::take(&mut group));
            while !self.follow_up.is_empty() {
                let group = std::mem::take(&mut self.follow_up);
                self.run(group);
            }
        }
        self.standing.fail(&super::closed());
        closers
    }

    /// Runs a group and answers it. What must be done because answers reached nobody is in `follow_up` then.
    fn run(&mut self, mut group: Vec<Box<dyn Op>>) {
        group.retain(|op| !op.abandoned());
        self.standing.tidy();
        if self.shared.progress.is_in_doubt()
            && let Err(error) = self.rescue()
        {
            self.standing.fail(&error);
            group.into_iter().for_each(|op| op.fail(error.clone()));
            return;
        }
        if group.is_empty() && !self.can_serve() {
            return;
        }
        if !group.is_empty() {
            metrics::histogram!("gavel_store_group_size").record(group.len() as f64);
        }
        let promises = group.iter().any(|op| op.durability() == Durability::Full);
        let number = promises.then(|| self.shared.progress.begin());
        let errors = self.run_group(&mut group);
        if let Some(state) = &self.state {
            self.shared.show(state.hot.depth());
        }
        let mut promised = Vec::new();
        for (op, error) in group.into_iter().zip(errors) {
            match error {
                None if op.durability() == Durability::Full => promised.push(op),
                None => self.follow_up.extend(op.succeed()),
                Some(error) => op.fail(error),
            }
        }
        if let Some(number) = number {
            let (log, depth) = (Arc::clone(&self.log), self.shared.depth());
            self.syncer.send(Committed { number, group: promised, log, at: Instant::now(), depth });
        }
    }

    /// Is there a worker that waits, and a job that it may have?
    fn can_serve(&self) -> bool {
        !self.standing.is_empty() && self.state.as_ref().is_none_or(|state| state.hot.pending() > 0)
    }

    /// One result for each command. All share a transaction, with the workers that wait for jobs; where it
    /// fails, all is undone and each command runs again in a transaction of its own, so that the others do
    /// not suffer. Failures are rare and groups bounded, so this costs less than a savepoint around every
    /// command.
    fn run_group(&mut self, group: &mut [Box<dyn Op>]) -> Vec<Option<StoreError>> {
        let alone = group.len() + usize::from(!self.standing.is_empty()) <= 1;
        let errors = match self.attempt_guarded(group, true) {
            Ok(()) => return vec![None; group.len()],
            Err(Failed::Command(_)) if !alone => group
                .iter_mut()
                .map(|op| self.attempt_guarded(std::slice::from_mut(op), false).err().map(Failed::into_error))
                .collect(),
            Err(failed) => {
                let error = failed.into_error();
                if group.is_empty() {
                    self.standing.fail(&error);
                }
                vec![Some(error); group.len()]
            }
        };
        if self.can_serve()
            && let Err(failed) = self.attempt_guarded(&mut [], true)
        {
            self.standing.fail(&failed.into_error());
        }
        errors
    }

    /// A panic costs the command that panicked and the connection, never the thread.
    fn attempt_guarded(&mut self, group: &mut [Box<dyn Op>], with_standing: bool) -> Result<(), Failed> {
        let result = catch_unwind(AssertUnwindSafe(|| self.attempt(group, with_standing))).unwrap_or_else(|_| {
            tracing::error!("the store's writer panicked; its connection is opened again");
            self.state = None;
            Err(Failed::Command(StoreError::Unavailable("internal error in the store".to_owned())))
        });
        match (&result, &self.state) {
            (Ok(()), Some(state)) => {
                let undelivered = self.standing.committed(state.hot.pending(), with_standing);
                self.follow_up.extend(super::return_claims(undelivered));
            }
            _ => self.standing.rolled_back(),
        }
        result
    }

    fn attempt(&mut self, group: &mut [Box<dyn Op>], with_standing: bool) -> Result<(), Failed> {
        self.open()?;
        let Self { state: Some(state), standing, .. } = self else { return Err(Failed::no_connection()) };
        state.begin()?;
        let result = state.fill(group, with_standing.then_some(standing)).and_then(|()| state.commit());
        if result.is_err() && !state.roll_back() {
            self.state = None;
        }
        result
    }

    /// Opens the connection again if it was given up.
    fn open(&mut self) -> Result<(), Failed> {
        if self.state.is_none() {
            let open = |writer: &mut Self| -> rusqlite::Result<State> {
                let conn = connect_writer(&writer.options)?;
                let state = State::new(conn, &writer.options, writer.shared.skew_ms.clone())?;
                writer.log = log::open(&writer.options.path)?;
                Ok(state)
            };
            self.state = Some(open(self).map_err(|error| Failed::All(error.into()))?);
            tracing::info!("the store's writer has a new connection");
        }
        Ok(())
    }

    /// After the disk has refused the log: nothing more goes into it, and nobody is served, before the disk has
    /// what is in it. Whoever was told of a refusal may find that it was done after all.
    fn rescue(&mut self) -> Result<(), StoreError> {
        self.state = None;
        let conn = connect_writer(&self.options)?;
        let log = log::rescue(&conn, &self.options.path)?;
        let state = State::new(conn, &self.options, self.shared.skew_ms.clone())?;
        let syncer = Syncer::start(Arc::clone(&self.shared.progress))
            .map_err(|error| StoreError::Unavailable(format!("no thread for the disk: {error}")))?;
        // Ends when it has refused all that it still has: from then on only the new one reports.
        drop(std::mem::replace(&mut self.syncer, syncer));
        self.log = log;
        self.state = Some(state);
        self.shared.progress.rescued();
        tracing::info!("the disk has the store's log again");
        Ok(())
    }

    /// Leaves one tidy file behind: no log that the next start, or a backup by copying, has to know of.
    fn finish(self) {
        let Self { state, syncer, shared, options, .. } = self;
        // Whoever waits for the disk is answered first.
        drop(syncer);
        let Some(State { conn, .. }) = state else { return };
        let folded = match shared.progress.is_in_doubt() {
            false => log::fold(&conn),
            true => log::rescue(&conn, &options.path).map(drop),
        };
        if let Err(error) = folded {
            tracing::warn!(%error, "the store's log could not be folded in; the next start will do it");
        }
        if let Err((_, error)) = conn.close() {
            tracing::warn!(%error, "the store's connection did not close cleanly");
        }
    }
}

/// Why a group came to nothing.
enum Failed {
    /// One command is to blame; the others may succeed without it.
    Command(StoreError),
    /// The database is: nobody would fare better alone.
    All(StoreError),
}

impl Failed {
    fn no_connection() -> Self {
        Self::All(StoreError::Unavailable("no connection".to_owned()))
    }

    fn into_error(self) -> StoreError {
        match self {
            Self::Command(error) | Self::All(error) => error,
        }
    }
}

impl State {
    fn begin(&mut self) -> Result<(), Failed> {
        let begun = self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        begun.map(drop).map_err(|error| Failed::All(error.into()))
    }

    fn fill(&mut self, group: &mut [Box<dyn Op>], standing: Option<&mut Standing>) -> Result<(), Failed> {
        let Self { conn, hot, skew, room, .. } = self;
        let mut tx = Tx { conn, hot, skew, room, standing };
        group.iter_mut().try_for_each(|op| op.run(&mut tx)).map_err(Failed::Command)?;
        standing::serve(&mut tx).map_err(Failed::Command)
    }

    fn commit(&mut self) -> Result<(), Failed> {
        let committed = self.conn.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]));
        match committed.map_err(StoreError::from) {
            Ok(_) => {
                self.hot.committed();
                self.skew.committed = self.skew.stored;
                Ok(())
            }
            // A large command may be what does not fit.
            Err(StoreError::Full) => Err(Failed::Command(StoreError::Full)),
            Err(error) => Err(Failed::All(error)),
        }
    }

    /// `false`: the connection is stuck in a transaction and must go.
    fn roll_back(&mut self) -> bool {
        self.hot.rolled_back();
        self.skew.stored = self.skew.committed;
        // Some errors end the transaction by themselves.
        if self.conn.is_autocommit() {
            return true;
        }
        match self.conn.execute_batch("ROLLBACK") {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(%error, "the store's transaction could not be rolled back");
                self.conn.is_autocommit()
            }
        }
    }
}
