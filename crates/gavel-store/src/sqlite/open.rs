//! Opening: the data directory, the lock that keeps a second server out, connections.

use super::SqliteOptions;
use super::error::OpenError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "gavel.lock";
const STATEMENTS: usize = 64;

/// The right to be the only server on a data directory, as long as it lives. The kernel lets go of it
/// when the process dies, however it dies; the file itself stays, because removing it would race with
/// the next server that opens it.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    pub fn take(database: &Path) -> Result<Self, OpenError> {
        let directory = directory_of(database);
        let failed = |cause| OpenError::Directory { directory: directory.clone(), cause };
        // Sources and outputs are nobody else's business.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join(LOCK_FILE))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Only for the message: whoever holds the lock may not have written its number yet.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(OpenError::InUse { directory, pid });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(|cause| match cause.kind() {
                std::io::ErrorKind::StorageFull => OpenError::Full { path: database.to_owned() },
                _ => failed(cause),
            })?;
        Ok(Self { _file: file })
    }
}

fn directory_of(database: &Path) -> PathBuf {
    match database.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Pages after which the log is folded into the database, by the commit that reaches them. Measured from
/// 500 to 8,000: the throughput is the same, the slowest commit goes from 5 to 40 ms, and 500 makes every
/// tenth one slow.
const CHECKPOINT_PAGES: u32 = 1000;

/// SQLite takes a very short file for an empty database and would write over it.
pub(super) fn refuse_scraps(path: &Path) -> Result<(), OpenError> {
    match std::fs::metadata(path) {
        Ok(metadata) if (1..512).contains(&metadata.len()) => Err(OpenError::NotADatabase { path: path.to_owned() }),
        // Missing is fine; whatever else is wrong with it, SQLite will say.
        _ => Ok(()),
    }
}

/// SQLite makes its other files with the permissions of this one.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(OpenError::Directory { directory: directory_of(path), cause }),
    }
}

pub(super) fn connect_writer(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let conn = connect(options, OpenFlags::SQLITE_OPEN_CREATE)?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |r| r.get(0))?;
    if mode != "wal" {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some(format!("no write-ahead log on this file system (journal mode {mode})")),
        ));
    }
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = 67108864;"
    ))?;
    if let Some(max_size) = options.max_size {
        let page: u64 = conn.query_row("PRAGMA page_size", [], |r| r.get(0))?;
        let pages = (max_size.0 / page).clamp(1, u64::from(u32::MAX) - 1);
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    Ok(conn)
}

pub(super) fn connect_reader(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let conn = connect(options, OpenFlags::empty())?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2048;")?;
    Ok(conn)
}

fn connect(options: &SqliteOptions, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // No mutex: every connection lives on one thread. No URI: a file name is a file name.
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&options.path, flags)?;
    conn.busy_timeout(options.busy_timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // Plans do not depend on the values that are bound; else some statements are prepared for every value.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // Not mapped into memory: a disk error would then be a SIGBUS instead of an error.
    conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;")?;
    Ok(conn)
}
