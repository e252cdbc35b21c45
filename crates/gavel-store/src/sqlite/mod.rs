//! The book on one node: SQLite, one writer thread with group commit, readers that never wait for it.

mod claim;
mod deliver;
mod end;
mod erase;
mod error;
mod hot;
mod insert;
mod log;
mod migrate;
mod open;
mod read;
mod reader;
mod request;
mod room;
mod row;
mod standing;
mod syncer;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

pub use error::OpenError;
pub use migrate::MigrationState;
pub use tokens::TokenBook;

use crate::{
    Cancelled, Census, Claim, ClaimKey, Claimant, Courier, Deleted, Deliveries, DeliveryEnd, DeliveryKey,
    DeliveryRecord, Depth, Ended, Filter, Inserted, JobRecord, JobSummary, Lease, NewJob, Page, Settlement, Store,
    StoreError, Swept, Token, TokenCreated,
};
use async_trait::async_trait;
use end::Lost;
use gavel_core::{Bytes, JobId, Timestamp};
use open::{DirectoryLock, connect_writer, create_private, refuse_scraps};
use rusqlite::Connection;
use standing::Waiting;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use writer::{Command, Durability, Message, Op, Shared, Tx};

/// Jobs that one transaction of `retain` erases: between two of them others get their turn.
const ERASED_AT_ONCE: usize = 200;

#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// The database file. Its directory is the data directory and belongs to one server at a time.
    pub path: PathBuf,
    /// Pending jobs beyond which new ones are refused.
    pub max_depth: u64,
    /// Size beyond which the database does not grow: it is then full, as a disk is full. New jobs are
    /// refused when seven eighths of it are used: the rest is for results.
    pub max_size: Option<Bytes>,
    /// Free space on the disk below which new jobs are refused, for the same reason.
    pub min_free: Bytes,
    /// How long to wait for another program that holds the database locked.
    pub busy_timeout: Duration,
}

impl SqliteOptions {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_depth: 100_000,
            max_size: None,
            min_free: Bytes::mib(64),
            busy_timeout: Duration::from_secs(5),
        }
    }
}

pub struct SqliteStore {
    options: SqliteOptions,
    /// `None` only while dropping.
    writer: Option<mpsc::Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    /// `None` once closed.
    readers: Mutex<Option<mpsc::Sender<reader::Work>>>,
    shared: Arc<Shared>,
    /// Device and inode of the file that was opened.
    identity: (u64, u64),
}

impl SqliteStore {
    /// Opens the database, creating and migrating it as needed. Blocks: call it before serving.
    pub fn open(options: SqliteOptions) -> Result<Self, OpenError> {
        let path = options.path.clone();
        let lock = DirectoryLock::take(&path)?;
        let mut conn = open_connection(&options)?;
        migrate::apply(&mut conn, &path)?;
        let other = |cause: Box<dyn std::error::Error + Send + Sync>| match cause.downcast::<rusqlite::Error>() {
            Ok(error) => OpenError::from_sql(&path, &error),
            Err(cause) => OpenError::Other { path: path.clone(), cause: cause.to_string() },
        };
        let identity = identity(&path).map_err(|cause| other(cause.into()))?;
        let readers = reader::start(&options).map_err(other)?;
        let writer::Started { sender, thread, shared } =
            writer::start(conn, options.clone(), move || drop(lock)).map_err(other)?;
        let readers = Mutex::new(Some(readers));
        Ok(Self { options, writer: Some(sender), thread: Some(thread), readers, shared, identity })
    }

    /// Every version of the schema, as far as the database at `options.path` has it.
    pub fn migrations(options: &SqliteOptions) -> Result<Vec<MigrationState>, OpenError> {
        migrate::list(&open_connection(options)?, &options.path)
    }

    /// Brings the schema up to date without serving; returns how many versions were applied.
    pub fn migrate(options: &SqliteOptions) -> Result<usize, OpenError> {
        let _lock = DirectoryLock::take(&options.path)?;
        migrate::apply(&mut open_connection(options)?, &options.path)
    }

    async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        weight: usize,
        work: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write_or(durability, weight, work, |_| None).await
    }

    async fn write_or<T: Send + 'static>(
        &self,
        durability: Durability,
        weight: usize,
        work: impl FnMut(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        undelivered: fn(T) -> Option<Box<dyn Op>>,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { durability, weight, work, result: None, reply: Some(reply), undelivered };
        self.ask(Message::Run(Box::new(command)), answer, undelivered).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        message: Message,
        answer: oneshot::Receiver<Result<T, StoreError>>,
        undelivered: fn(T) -> Option<Box<dyn Op>>,
    ) -> Result<T, StoreError> {
        let writer = self.writer.as_ref().ok_or_else(closed)?;
        let mut answer = Answer { answer, writer, undelivered };
        writer.send(message).await.map_err(|_| closed())?;
        (&mut answer.answer).await.map_err(|_| StoreError::Unavailable("the store's writer failed".to_owned()))?
    }

    async fn insert_with(&self, durability: Durability, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError> {
        let max_depth = self.options.max_depth;
        let answers = self.write(durability, jobs.len(), move |tx| insert::insert(tx, &jobs, max_depth)).await?;
        answers.ok_or(StoreError::Full)
    }

    /// Reads what may be told to anybody: nothing that is committed and was promised, but is not on the disk. An
    /// error where the disk has refused it.
    async fn read_synced<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let result = self.read(query).await?;
        if self.shared.progress.reached().await.is_err() {
            // The writer rescues the log first, with all that this read may have seen.
            self.sync().await?;
        }
        Ok(result)
    }

    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        reader::read(&self.readers()?, query).await
    }

    fn readers(&self) -> Result<mpsc::Sender<reader::Work>, StoreError> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)
    }
}

/// An answer under way. One that had been sent when its caller went away reached nobody, either.
struct Answer<'a, T> {
    answer: oneshot::Receiver<Result<T, StoreError>>,
    writer: &'a mpsc::Sender<Message>,
    undelivered: fn(T) -> Option<Box<dyn Op>>,
}

impl<T> Drop for Answer<'_, T> {
    fn drop(&mut self) {
        // From here on the writer notices by itself.
        self.answer.close();
        if let Ok(Ok(result)) = self.answer.try_recv()
            && let Some(op) = (self.undelivered)(result)
        {
            // Where there is no room, the leases run out.
            let _full = self.writer.try_send(Message::Run(op));
        }
    }
}

/// Without [`Store::close`] before it, this waits for what is queued. When it returns, the directory is
/// free for the next server.
impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.writer.take();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer ended in a panic");
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

fn open_connection(options: &SqliteOptions) -> Result<Connection, OpenError> {
    refuse_scraps(&options.path)?;
    create_private(&options.path)?;
    connect_writer(options).map_err(|e| OpenError::from_sql(&options.path, &e))
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Claims that reached nobody go back at once instead of waiting for their lease to run out.
fn return_claims(claims: Vec<Claim>) -> Option<Box<dyn Op>> {
    if claims.is_empty() {
        return None;
    }
    Some(Box::new(Command {
        durability: Durability::Relaxed,
        weight: claims.len(),
        work: move |tx: &mut Tx<'_>| {
            for claim in &claims {
                let back = Settlement::Released { delay: Duration::ZERO, count_attempt: false };
                end::settle(tx, claim.key, claim.started_at, &back)?;
            }
            Ok(())
        },
        result: None,
        reply: None,
        undelivered: |()| None,
    }))
}

#[async_trait]
impl Store for SqliteStore {
    async fn insert(&self, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError> {
        self.insert_with(Durability::Full, jobs).await
    }

    async fn insert_unsynced(&self, jobs: Vec<NewJob>) -> Result<Vec<Inserted>, StoreError> {
        self.insert_with(Durability::Relaxed, jobs).await
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.write(Durability::Full, 1, |_| Ok(())).await
    }

    async fn claim(&self, by: Claimant, now: Timestamp, lease: Duration) -> Result<Vec<Claim>, StoreError> {
        let work = move |tx: &mut Tx<'_>| claim::claim(tx, &by, now, lease);
        self.write_or(Durability::Relaxed, 1, work, return_claims).await
    }

    async fn claim_next(
        &self,
        node: &str,
        worker: i32,
        clock: fn() -> Timestamp,
        lease: Duration,
    ) -> Result<Option<Claim>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { node: node.to_owned(), worker, clock, lease, reply };
        self.ask(Message::Stand(waiting), answer, |claim| return_claims(claim.into_iter().collect())).await
    }

    async fn extend(&self, keys: Vec<ClaimKey>, now: Timestamp, lease: Duration) -> Result<Vec<Lease>, StoreError> {
        self.write(Durability::Relaxed, keys.len(), move |tx| claim::extend(tx, &keys, now, lease)).await
    }

    async fn settle(&self, key: ClaimKey, now: Timestamp, end: Settlement) -> Result<(), StoreError> {
        let held = self.write(Durability::Full, 1, move |tx| end::settle(tx, key, now, &end)).await?;
        if held { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn find(&self, id: JobId) -> Result<Option<JobRecord>, StoreError> {
        self.read_synced(move |conn| read::find(conn, id)).await
    }

    async fn list(&self, filter: Filter, limit: usize) -> Result<Vec<JobSummary>, StoreError> {
        let known = self.shared.skew_ms.clone();
        self.read_synced(move |conn| {
            loop {
                let skew_ms = known.load(Ordering::SeqCst);
                let jobs = read::list(conn, &filter, limit, skew_ms)?;
                // It is raised before the row that needs it can be seen: unchanged, nothing was missed.
                if known.load(Ordering::SeqCst) == skew_ms {
                    return Ok(jobs);
                }
            }
        })
        .await
    }

    async fn page(&self, owner: Option<String>, offset: u64, limit: usize) -> Result<Page, StoreError> {
        self.read_synced(move |conn| read::page(conn, owner.as_deref(), offset, limit)).await
    }

    async fn census(&self, owner: Option<String>) -> Result<Census, StoreError> {
        self.read(move |conn| read::census(conn, owner.as_deref())).await
    }

    async fn cancel(&self, id: JobId, now: Timestamp) -> Result<Cancelled, StoreError> {
        self.write(Durability::Full, 1, move |tx| end::cancel(tx, id, now)).await
    }

    async fn delete(&self, id: JobId) -> Result<Deleted, StoreError> {
        self.write(Durability::Full, 1, move |tx| erase::delete(tx, id)).await
    }

    async fn sweep(&self, now: Timestamp, max_attempts: u32) -> Result<Swept, StoreError> {
        self.write(Durability::Full, 1, move |tx| end::take_back(tx, &Lost::Expired, now, max_attempts)).await
    }

    async fn take_back(&self, node: String, now: Timestamp, max_attempts: u32) -> Result<Swept, StoreError> {
        self.write(Durability::Full, 1, move |tx| end::take_back(tx, &Lost::Node(&node), now, max_attempts)).await
    }

    async fn retain(&self, before: Timestamp, max: usize) -> Result<u64, StoreError> {
        let mut erased = 0;
        loop {
            let portion = ERASED_AT_ONCE.min(max - erased as usize);
            let work = move |tx: &mut Tx<'_>| erase::retain(tx, before, portion);
            let done = self.write(Durability::Full, portion, work).await?;
            erased += done;
            if done < portion as u64 || erased as usize >= max {
                return Ok(erased);
            }
        }
    }

    async fn claim_deliveries(
        &self,
        courier: Courier,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Deliveries, StoreError> {
        self.write(Durability::Relaxed, 1, move |tx| deliver::claim(tx, &courier, now, lease)).await
    }

    async fn settle_delivery(&self, key: DeliveryKey, now: Timestamp, end: DeliveryEnd) -> Result<(), StoreError> {
        let held = self.write(Durability::Full, 1, move |tx| deliver::settle(tx, key, now, &end)).await?;
        if held { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn delivery(&self, id: JobId) -> Result<Option<DeliveryRecord>, StoreError> {
        self.read_synced(move |conn| deliver::find(conn, id)).await
    }

    async fn pending_deliveries(&self) -> Result<u64, StoreError> {
        self.read(deliver::pending).await
    }

    async fn depth(&self) -> Result<Depth, StoreError> {
        self.readers()?;
        Ok(self.shared.depth())
    }

    async fn recent(&self, limit: usize) -> Result<Vec<Ended>, StoreError> {
        self.read(move |conn| read::recent(conn, limit)).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        // Writes to a deleted file succeed and are lost when it is closed.
        if identity(&self.options.path).ok() != Some(self.identity) {
            return Err(StoreError::Unavailable("the database file was moved or deleted".to_owned()));
        }
        self.write(Durability::Full, 1, |tx| {
            tx.conn.prepare_cached("UPDATE meta SET value = value + 1 WHERE name = 'checked'")?.execute([])?;
            Ok(())
        })
        .await
    }

    async fn create_token(&self, token: Token) -> Result<TokenCreated, StoreError> {
        self.write(Durability::Full, 1, move |tx| tokens::create(tx.conn, &token)).await
    }

    async fn revoke_token(&self, which: String, now: Timestamp) -> Result<Option<Token>, StoreError> {
        self.write(Durability::Full, 1, move |tx| tokens::revoke(tx.conn, &which, now)).await
    }

    async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.read_synced(tokens::list).await
    }

    async fn token_changes(&self) -> Result<u64, StoreError> {
        self.read(tokens::changes).await
    }

    async fn touch_tokens(&self, uses: Vec<(Uuid, Timestamp)>) -> Result<(), StoreError> {
        self.write(Durability::Relaxed, uses.len(), move |tx| tokens::touch(tx.conn, &uses)).await
    }

    async fn close(&self) {
        let (done, ended) = oneshot::channel();
        // Where the writer has ended already, there is nothing left to wait for.
        if let Some(writer) = &self.writer
            && writer.send(Message::Close(done)).await.is_ok()
        {
            let _ended = ended.await;
        }
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
