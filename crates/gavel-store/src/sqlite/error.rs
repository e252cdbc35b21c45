//! What SQLite's errors mean to callers, and why a book could not be opened.

use crate::StoreError;
use rusqlite::ErrorCode;
use std::path::PathBuf;

/// Why the database could not be opened. The messages are meant for the operator, and each has its remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {} is in use by {}", directory.display(), holder(*pid))]
    InUse { directory: PathBuf, pid: Option<u32> },
    #[error("the data directory {} cannot be used: {cause}", directory.display())]
    Directory { directory: PathBuf, cause: std::io::Error },
    #[error("{} is not a SQLite database", path.display())]
    NotADatabase { path: PathBuf },
    #[error("{} is a SQLite database, but not one of Gavel's", path.display())]
    Foreign { path: PathBuf },
    #[error("{} was written by a newer Gavel (schema {found}; this one knows {known})", path.display())]
    TooNew { path: PathBuf, found: u32, known: u32 },
    #[error("a server of another version uses {} (schema {found}; this one knows {known})", path.display())]
    OtherVersion { path: PathBuf, found: u32, known: u32 },
    #[error("the disk is full: {} could not be opened", path.display())]
    Full { path: PathBuf },
    #[error("{} is locked by another program", path.display())]
    Locked { path: PathBuf },
    #[error("{} is damaged: {cause}", path.display())]
    Damaged { path: PathBuf, cause: String },
    #[error("{} could not be opened: {cause}", path.display())]
    Other { path: PathBuf, cause: String },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("another Gavel server (process {pid})"))
}

impl OpenError {
    /// What the operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop that server first, or give this one a data directory of its own",
            Self::Directory { .. } => "choose a directory that this user may write to",
            Self::NotADatabase { .. } | Self::Foreign { .. } => "set store.url to a new file or to one of Gavel's",
            Self::TooNew { .. } => "start the newer Gavel again, or restore a backup made before the upgrade",
            Self::OtherVersion { .. } => "use the gavel that the server was started from",
            Self::Full { .. } => "free some space on that disk",
            Self::Locked { .. } => "close the other program (a sqlite3 shell, a backup) and start again",
            Self::Damaged { .. } => "restore a backup, or save what can be read with `sqlite3 FILE .recover`",
            Self::Other { .. } => "check the disk, and the permissions of the file and of its directory",
        }
    }

    pub(super) fn from_sql(path: &std::path::Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path },
            Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { path, cause: error.to_string() },
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked { path },
            _ if is_shm_without_space(error) => Self::Full { path },
            _ => Self::Other { path, cause: error.to_string() },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as E;
        match &error {
            E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..) => Self::Damaged(error.to_string()),
            _ => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Self::Full,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    Self::Unavailable("the database is locked by another program".to_owned())
                }
                _ if is_shm_without_space(&error) => Self::Full,
                _ => Self::Unavailable(error.to_string()),
            },
        }
    }
}

/// A full disk shows up here first when the shared-memory file of the write-ahead log has to grow.
fn is_shm_without_space(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}
