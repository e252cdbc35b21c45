//! Readers: a few threads with connections of their own, so that no read ever waits for the writer.

use super::SqliteOptions;
use super::open::connect_reader;
use crate::StoreError;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Two: a long listing must not hold up the look at a single job.
const READERS: usize = 2;
const WAITING: usize = 1024;

pub(super) type Work = Box<dyn FnOnce(&Connection) + Send>;

pub(super) fn start(options: &SqliteOptions) -> Result<mpsc::Sender<Work>, Box<dyn std::error::Error + Send + Sync>> {
    let (sender, receiver) = mpsc::channel::<Work>(WAITING);
    let receiver = Arc::new(Mutex::new(receiver));
    for number in 0..READERS {
        let reader = Reader { options: options.clone(), receiver: receiver.clone() };
        let conn = connect_reader(options)?;
        std::thread::Builder::new().name(format!("gavel-store-r{number}")).spawn(move || reader.serve(conn))?;
    }
    Ok(sender)
}

struct Reader {
    options: SqliteOptions,
    receiver: Arc<Mutex<mpsc::Receiver<Work>>>,
}

impl Reader {
    fn serve(&self, conn: Connection) {
        let mut conn = Some(conn);
        while let Some(work) = self.next() {
            if conn.is_none() {
                match connect_reader(&self.options) {
                    Ok(fresh) => conn = Some(fresh),
                    // The caller learns of it because its answer never comes.
                    Err(error) => tracing::error!(%error, "a reader of the store cannot connect"),
                }
            }
            let Some(open) = &conn else { continue };
            if catch_unwind(AssertUnwindSafe(|| work(open))).is_err() {
                tracing::error!("a reader of the store panicked; its connection is opened again");
                conn = None;
            }
        }
    }

    /// One idle reader waits at the channel, the other for the lock: each piece of work goes to one.
    fn next(&self) -> Option<Work> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
    }
}

/// Runs a query on one of the readers.
pub(super) async fn read<T: Send + 'static>(
    readers: &mpsc::Sender<Work>,
    query: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let work: Work = Box::new(move |conn| {
        if !reply.is_closed() {
            let _gone = reply.send(query(conn));
        }
    });
    let stopped = || StoreError::Unavailable("the store is closed".to_owned());
    readers.send(work).await.map_err(|_| stopped())?;
    answer.await.map_err(|_| StoreError::Unavailable("a reader of the store failed".to_owned()))?
}
