//! Files that leave a sandbox: found and read through a directory that was held since before the
//! job, when nothing of the job is alive any more. No link is followed, no path is trusted.

use crate::failed::{At, Failed};
use gavel_agent::wire::{FileHead, Order};
use glob::{MatchOptions, Pattern};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Deeper directories and more entries are not looked at: a job may have left thousands.
const MAX_DEPTH: usize = 16;
const MAX_ENTRIES: usize = 20_000;

const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Hands each matching file to `emit`. Returns what was left out, with the reason.
pub fn collect(
    work: &OwnedFd,
    order: &Order,
    mut emit: impl FnMut(FileHead, OwnedFd) -> Result<(), Failed>,
) -> Result<Vec<String>, Failed> {
    let patterns: Vec<Pattern> = order.collect.iter().filter_map(|p| Pattern::new(p).ok()).collect();
    let mut left_out = Vec::new();
    let mut found = Vec::new();
    if order.collect.iter().any(|pattern| pattern.contains(['*', '?', '['])) {
        walk(work, &patterns, &mut found, &mut left_out)?;
    } else {
        found.extend(order.collect.iter().map(|path| (*path).to_owned()));
    }
    let (mut files, mut total) = (0, 0);
    for path in found {
        let (file, size, executable) = match open_regular(work, &path) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => continue,
            Err(e) => {
                left_out.push(format!("{path}: {}", why(e)));
                continue;
            }
        };
        if files == order.collect_max_files || total + size > order.collect_max_total {
            left_out.push(format!(
                "{path}: more than {} files or {} bytes",
                order.collect_max_files, order.collect_max_total
            ));
            continue;
        }
        files += 1;
        total += size;
        emit(FileHead { path, executable, size }, file)?;
    }
    left_out.truncate(32);
    Ok(left_out)
}

fn why(errno: Errno) -> &'static str {
    match errno {
        Errno::LOOP => "is a symbolic link",
        Errno::XDEV => "leaves the working directory",
        Errno::INVAL => "is no regular file with one name",
        _ => "cannot be opened",
    }
}

fn open_beneath(work: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    openat2(work, path, flags, Mode::empty(), resolve)
}

/// A regular file with one name, its size and whether it may be executed.
fn open_regular(work: &OwnedFd, path: &str) -> Result<(OwnedFd, u64, bool), Errno> {
    let file = open_beneath(work, path, OFlags::empty())?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
        return Err(Errno::INVAL);
    }
    Ok((file, stat.st_size as u64, stat.st_mode & 0o111 != 0))
}

/// Finds matching files, directory by directory, in the order of their names.
fn walk(
    work: &OwnedFd,
    patterns: &[Pattern],
    found: &mut Vec<String>,
    left_out: &mut Vec<String>,
) -> Result<(), Failed> {
    let mut waiting = vec![(String::new(), 0)];
    let mut entries = 0;
    while let Some((prefix, depth)) = waiting.pop() {
        let directory = if prefix.is_empty() { "." } else { prefix.trim_end_matches('/') };
        let Ok(fd) = open_beneath(work, directory, OFlags::DIRECTORY) else { continue };
        for entry in Dir::new(fd).at("read a directory")? {
            let entry = entry.at("read a directory")?;
            // Only names that the API can express.
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            entries += 1;
            if entries > MAX_ENTRIES {
                left_out.push("the rest of the directory: too many entries".to_owned());
                found.sort();
                return Ok(());
            }
            let path = format!("{prefix}{name}");
            match entry.file_type() {
                FileType::Directory if depth + 1 < MAX_DEPTH => waiting.push((format!("{path}/"), depth + 1)),
                FileType::RegularFile | FileType::Symlink if patterns.iter().any(|p| p.matches_with(&path, MATCH)) => {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    found.sort();
    Ok(())
}
