//! SQLite's log as a file: the handle for the fdatasync that SQLite leaves to us, and what to do when the
//! disk has refused it.

use crate::StoreError;
use rusqlite::Connection;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// It exists once a connection has read anything, and stays the same file until the last one closes.
pub(super) fn open(database: &Path) -> rusqlite::Result<Arc<File>> {
    let mut path = database.as_os_str().to_owned();
    path.push("-wal");
    let opened = OpenOptions::new().read(true).write(true).open(&path).map(Arc::new);
    opened.map_err(|error| failure(rusqlite::ffi::SQLITE_CANTOPEN, format!("the log cannot be opened: {error}")))
}

fn failure(code: std::ffi::c_int, message: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(message))
}

/// Folds the log into the database, which is synchronized then, and empties it.
pub(super) fn fold(conn: &Connection) -> Result<(), StoreError> {
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| r.get::<_, bool>(0))?;
    if busy {
        return Err(StoreError::Unavailable("somebody reads the log, so it cannot be emptied".to_owned()));
    }
    Ok(())
}

/// Brings the log to the disk after the disk has refused it, and empties it. Until this succeeds, nothing may
/// be promised.
///
/// First it is made whole. With a hole in it SQLite must not fold it: a power cut in the middle would leave some
/// pages of the database new, and the log that should complete them would end at the hole. Once it is folded,
/// nothing of a file that the disk has refused is relied on any more.
pub(super) fn rescue(conn: &Connection, database: &Path) -> Result<Arc<File>, StoreError> {
    let log = make_whole(conn, database)?;
    fold(conn)?;
    Ok(log)
}

/// Writes all of the log again from memory, so that the kernel has to bring it to the disk. Returns a handle
/// that knows of no failure before.
///
/// The kernel tells of a page that it could not write once, and takes it for written from then on: the log may
/// have a hole on the disk, and no later fdatasync, SQLite's own included, would say so. But the page is still
/// in memory, so all that was committed can be read.
pub(super) fn make_whole(conn: &Connection, database: &Path) -> rusqlite::Result<Arc<File>> {
    // Nobody else writes to the log meanwhile or starts it anew.
    conn.execute_batch("BEGIN IMMEDIATE")?;
    // Before the pages are written: then it hears of each that gets lost.
    let log = open(database)?;
    write_again(&log).map_err(|error| {
        failure(rusqlite::ffi::SQLITE_IOERR, format!("the log cannot be brought to the disk: {error}"))
    })?;
    conn.execute_batch("ROLLBACK")?;
    Ok(log)
}

/// Readers may read meanwhile: they see the same bytes before and after.
fn write_again(log: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let length = log.read_at(&mut buffer, at)?;
        if length == 0 {
            return log.sync_data();
        }
        log.write_all_at(&buffer[..length], at)?;
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::SystemTime;

    #[test]
    fn what_is_written_again_is_the_same() {
        let bytes: Vec<u8> = (0..(5 << 19) + 7).map(|n: u32| ((n * 31) >> 8) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("write");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("set the time");
        write_again(&file).expect("write again");
        let mut read = vec![0; bytes.len() + 1];
        assert_eq!(file.read_at(&mut read, 0).expect("read"), bytes.len());
        assert!(read[..bytes.len()] == bytes, "the content has changed");
        let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        assert!(modified > SystemTime::UNIX_EPOCH, "nothing was written");
    }
}
