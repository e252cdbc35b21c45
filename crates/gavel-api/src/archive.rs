//! Zip archives that clients send: unpacked in memory, never onto the file system.
//!
//! Nothing in an archive is believed. The central directory is the only list of entries; its names are
//! used once, for the check and for the result alike. Sizes that it states only make a refusal cheaper:
//! what counts is what comes out of the decompressor.

#[cfg(test)]
mod tests;

use gavel_core::{File, path};
use rawzip::{CompressionMethod, ZipArchive, ZipFileHeaderRecord, ZipSliceArchive, ZipSliceEntry};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

/// What an archive may grow to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files and directories.
    pub entries: usize,
    /// Bytes of all files together.
    pub total: u64,
    /// Bytes of all files for each byte of the archive, beyond an allowance of [`ALLOWANCE`].
    pub ratio: u64,
    /// Bytes that other archives of the same request leave to this one.
    pub left: u64,
}

impl Limits {
    /// The most that an archive of this size may grow to: what is reserved before it is unpacked.
    pub fn most(&self, archive: u64) -> u64 {
        self.by_ratio(archive).min(self.total)
    }

    fn by_ratio(&self, archive: u64) -> u64 {
        self.ratio.saturating_mul(archive).saturating_add(ALLOWANCE)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1000, total: 64 << 20, ratio: 100, left: u64::MAX }
    }
}

/// An archive may always grow to this size: a megabyte of equal lines is an honest test input. Not more: it is
/// what every archive of a request costs, however small it is.
pub const ALLOWANCE: u64 = 1 << 20;

/// Why an archive was not unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The entry that is the reason, if it is one of them.
    pub entry: Option<String>,
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.entry {
            Some(entry) => write!(f, "the entry {entry:?} {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Refused {}

fn refused(reason: impl Into<String>) -> Refused {
    Refused { entry: None, reason: reason.into() }
}

/// The name of an entry for a message: short, whatever it is.
fn shown(name: &[u8]) -> String {
    const SHOWN: usize = 80;
    let text = String::from_utf8_lossy(&name[..name.len().min(4 * SHOWN)]);
    let short: String = text.chars().take(SHOWN).collect();
    if short.len() < name.len() { format!("{short}...") } else { short }
}

type Archive<'a> = ZipSliceArchive<&'a [u8]>;

/// The files of an archive, in its order. Directories are made by the files in them.
pub fn unpack(bytes: &[u8], limits: &Limits) -> Result<Vec<File>, Refused> {
    let archive = ZipArchive::from_slice(bytes)
        .map_err(|_| refused("is no zip archive, or not all of one: its end cannot be found"))?;
    // First the whole list and then the contents: an archive with one bad entry costs no inflating.
    let entries = list(&archive, limits)?;
    let mut room = Room::new(bytes.len() as u64, limits);
    entries.iter().map(|entry| inflate(entry, &mut room)).collect()
}

struct Entry<'a> {
    path: String,
    method: CompressionMethod,
    content: ZipSliceEntry<'a>,
}

impl Entry<'_> {
    fn refused(&self, reason: impl Into<String>) -> Refused {
        Refused { entry: Some(shown(self.path.as_bytes())), reason: reason.into() }
    }
}

fn list<'a>(archive: &'a Archive<'a>, limits: &Limits) -> Result<Vec<Entry<'a>>, Refused> {
    let too_many = || refused(format!("has more than {} entries", limits.entries));
    if archive.entries_hint() > limits.entries as u64 {
        return Err(too_many());
    }
    let mut entries = Vec::new();
    let mut names = Names::default();
    let mut occupied = Vec::new();
    let mut records = archive.entries();
    let mut count = 0;
    while let Some(record) = records.next_entry().map_err(|_| refused("has a damaged list of entries"))? {
        count += 1;
        if count > limits.entries {
            return Err(too_many());
        }
        let name = record.file_path().as_bytes();
        let in_entry = |reason: String| Refused { entry: Some(shown(name)), reason };
        let path = names.admit(name).and_then(|path| check_kind(&record).map(|()| path)).map_err(in_entry)?;
        let is_root = path.is_empty();
        let content = archive.get_entry(record.wayfinder()).map_err(|_| in_entry("is cut off or damaged".into()))?;
        occupied.push((record.local_header_offset(), content.compressed_data_range().1, path.clone()));
        if !record.is_dir() && !is_root {
            entries.push(Entry { path, method: record.compression_method(), content });
        }
    }
    if archive.entries_hint() != count as u64 {
        return Err(refused(format!("says that it has {} entries, and has {count}", archive.entries_hint())));
    }
    check_overlaps(occupied, archive.directory_offset())?;
    Ok(entries)
}

/// Entries that share bytes are how a small archive holds a huge one; no tool writes such a thing.
fn check_overlaps(mut occupied: Vec<(u64, u64, String)>, directory: u64) -> Result<(), Refused> {
    occupied.sort();
    let ends = occupied.iter().map(|(start, ..)| *start).skip(1).chain([directory]);
    for ((_, end, name), limit) in occupied.iter().zip(ends) {
        if *end > limit {
            let reason = "overlaps with another part of the archive".to_owned();
            return Err(Refused { entry: Some(shown(name.as_bytes())), reason });
        }
    }
    Ok(())
}

/// Only plain files and directories, and only what can be read here.
fn check_kind(record: &ZipFileHeaderRecord) -> Result<(), String> {
    const KIND: u32 = 0o170_000;
    const FILE: u32 = 0o100_000;
    const DIRECTORY: u32 = 0o040_000;
    let flags = record.flags();
    if flags.is_encrypted() || flags.has_strong_encryption() || flags.is_masked() {
        return Err("is encrypted".to_owned());
    }
    // Wherever the archive says that it was made: a kind that somebody wrote there is meant.
    match ((record.external_attributes() >> 16) & KIND, record.is_dir()) {
        (0, _) | (FILE, false) | (DIRECTORY, true) => {}
        (0o120_000, _) => return Err("is a symbolic link; send the file itself".to_owned()),
        _ => return Err("is neither a plain file nor a directory".to_owned()),
    }
    match record.compression_method() {
        CompressionMethod::STORE | CompressionMethod::DEFLATE => Ok(()),
        method => {
            let name = method.name().map_or_else(|| method.as_u16().to_string(), str::to_ascii_lowercase);
            Err(format!("is compressed by method {name}; use store or deflate"))
        }
    }
}

/// The names so far, and which of them are directories.
#[derive(Default)]
struct Names {
    is_directory: BTreeMap<String, bool>,
}

impl Names {
    /// The path of an entry, if it is a good one that goes with all before it. Empty for the directory
    /// that everything is in.
    fn admit(&mut self, name: &[u8]) -> Result<String, String> {
        let name = std::str::from_utf8(name).map_err(|_| "has a name that is not UTF-8".to_owned())?;
        if name.contains('\\') {
            return Err("has a backslash in its name; separate directories by /".to_owned());
        }
        // Some tools name everything from ".", and that directory itself.
        let mut plain = name;
        while let Some(rest) = plain.strip_prefix("./") {
            plain = rest;
        }
        if plain.is_empty() && !name.is_empty() {
            return Ok(String::new());
        }
        let path = plain.strip_suffix('/').unwrap_or(plain);
        path::check(path).map_err(|reason| format!("cannot be used: {reason}"))?;
        let is_directory = path.len() < plain.len();
        for (at, _) in path.match_indices('/') {
            // Directories may be listed or only be implied by what is in them.
            if !*self.is_directory.entry(path[..at].to_owned()).or_insert(true) {
                return Err(format!("is inside of {:?}, which is a file", shown(&path.as_bytes()[..at])));
            }
        }
        match self.is_directory.get(path) {
            None => {
                self.is_directory.insert(path.to_owned(), is_directory);
                Ok(path.to_owned())
            }
            Some(true) if is_directory => Ok(path.to_owned()),
            Some(true) => Err("is a file and a directory".to_owned()),
            Some(false) if is_directory => Err("is a file and a directory".to_owned()),
            Some(false) => Err("appears twice".to_owned()),
        }
    }
}

/// How many bytes may still come out, and which limit that is.
struct Room {
    left: u64,
    limit: String,
}

impl Room {
    fn new(archive: u64, limits: &Limits) -> Self {
        let by_ratio = limits.by_ratio(archive);
        if limits.left < limits.most(archive) {
            let limit = format!("the {} bytes that other archives of the request leave to it", limits.left);
            Self { left: limits.left, limit }
        } else if by_ratio < limits.total {
            let limit = format!("{} times the archive's size and {ALLOWANCE} bytes", limits.ratio);
            Self { left: by_ratio, limit }
        } else {
            Self { left: limits.total, limit: format!("{} bytes", limits.total) }
        }
    }
}

fn inflate(entry: &Entry, room: &mut Room) -> Result<File, Refused> {
    let too_large = |room: &Room| entry.refused(format!("makes the files larger than {}", room.limit));
    // The statement is not believed, but held against the archive: below it is checked at the end.
    if entry.content.claim_verifier().uncompressed_size > room.left {
        return Err(too_large(room));
    }
    let compressed = entry.content.data();
    let content = match entry.method {
        CompressionMethod::DEFLATE => read(entry, flate2::bufread::DeflateDecoder::new(compressed), room.left),
        _ => read(entry, compressed, room.left),
    }?;
    if content.len() as u64 > room.left {
        return Err(too_large(room));
    }
    room.left -= content.len() as u64;
    Ok(File { path: entry.path.clone(), content })
}

/// Everything, or one byte more than there is room for.
fn read(entry: &Entry, decompressor: impl Read, room: u64) -> Result<Vec<u8>, Refused> {
    let mut content = Vec::new();
    entry
        .content
        .verifying_reader(decompressor)
        .take(room + 1)
        .read_to_end(&mut content)
        .map_err(|_| entry.refused("is damaged: its content is not what the archive says it is"))?;
    Ok(content)
}
