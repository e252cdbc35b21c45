//! Files that leave a sandbox: found and read through a directory that was held since before the
//! job, when nothing of the job is alive any more. No link is followed, no path is trusted.

use crate::failed::{At, Failed};
use gavel_agent::wire::{FileHead, MAX_DEPTH, Order};
use glob::{MatchOptions, Pattern};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::borrow::Cow;
use std::os::fd::OwnedFd;

/// More entries are not looked at: a job may have left thousands.
const MAX_ENTRIES: usize = 20_000;

/// How many of what was left out are named, and how much of their paths: all in one frame.
const NAMED: usize = 32;
const SHOWN: usize = 200;

const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Hands each matching file to `emit`. Returns what was left out, with the reason.
pub fn collect(
    work: &OwnedFd,
    order: &Order,
    mut emit: impl FnMut(FileHead, OwnedFd) -> Result<(), Failed>,
) -> Result<Vec<String>, Failed> {
    let patterns: Vec<Pattern> = order.collect.iter().filter_map(|p| Pattern::new(p).ok()).collect();
    let mut left_out = LeftOut::default();
    let mut found = Vec::new();
    if order.collect.iter().any(|pattern| pattern.contains(['*', '?', '['])) {
        walk(work, order, &patterns, &mut found, &mut left_out)?;
    } else {
        found.extend(order.collect.iter().map(|path| (*path).to_owned()));
    }
    let (mut files, mut total) = (0, 0);
    for path in found {
        if !FileHead::can_name(&path) {
            left_out.push(&path, "has a path that is too long or too deep");
            continue;
        }
        let (file, size, executable) = match open_regular(work, &path) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => continue,
            Err(e) => {
                left_out.push(&path, why(e));
                continue;
            }
        };
        if files == order.collect_max_files || total + size > order.collect_max_total {
            let most = format!("more than {} files or {} bytes", order.collect_max_files, order.collect_max_total);
            left_out.push(&path, &most);
            continue;
        }
        files += 1;
        total += size;
        emit(FileHead { path, executable, size }, file)?;
    }
    Ok(left_out.0)
}

/// What was left out, with the reason: as much of it as fits into a report.
#[derive(Default)]
struct LeftOut(Vec<String>);

impl LeftOut {
    fn push(&mut self, path: &str, why: &str) {
        if self.0.len() == NAMED {
            return;
        }
        let end = (0..=SHOWN.min(path.len())).rfind(|at| path.is_char_boundary(*at)).unwrap_or(0);
        let shown = &path[..end];
        let cut = if shown.len() < path.len() { "..." } else { "" };
        self.0.push(format!("{shown}{cut}: {why}"));
    }
}

/// May the pattern match something below the directory?
fn reaches_below(pattern: &str, directory: &str) -> bool {
    let mut wanted = pattern.split('/');
    for name in directory.split('/') {
        match wanted.next() {
            Some("**") => return true,
            Some(component) if Pattern::new(component).is_ok_and(|pattern| pattern.matches_with(name, MATCH)) => {}
            _ => return false,
        }
    }
    wanted.next().is_some()
}

fn why(errno: Errno) -> &'static str {
    match errno {
        Errno::LOOP => "is a symbolic link",
        Errno::XDEV => "leaves the working directory",
        // The second is what the kernel says of a socket.
        Errno::INVAL | Errno::NXIO => "is no regular file with one name",
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

/// Finds what matches, directory by directory, in the order of the names.
fn walk(
    work: &OwnedFd,
    order: &Order,
    patterns: &[Pattern],
    found: &mut Vec<String>,
    left_out: &mut LeftOut,
) -> Result<(), Failed> {
    let matches = |path: &str| patterns.iter().any(|pattern| pattern.matches_with(path, MATCH));
    let is_wanted_below = |directory: &str| order.collect.iter().any(|pattern| reaches_below(pattern, directory));
    let mut waiting = vec![(String::new(), 0)];
    let mut entries = 0;
    while let Some((prefix, depth)) = waiting.pop() {
        let directory = if prefix.is_empty() { "." } else { prefix.trim_end_matches('/') };
        let fd = match open_beneath(work, directory, OFlags::DIRECTORY) {
            Ok(fd) => fd,
            Err(e) => {
                if prefix.is_empty() || is_wanted_below(directory) {
                    left_out.push(directory, why(e));
                }
                continue;
            }
        };
        for entry in Dir::new(fd).at("read a directory")? {
            let entry = entry.at("read a directory")?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            entries += 1;
            if entries > MAX_ENTRIES {
                left_out.push("the rest of the directory", "too many entries");
                found.sort();
                return Ok(());
            }
            let path = format!("{prefix}{name}");
            let is_directory = entry.file_type() == FileType::Directory;
            if !(if is_directory { is_wanted_below(&path) } else { matches(&path) }) {
                continue;
            }
            if matches!(name, Cow::Owned(_)) {
                // The API can express no such name.
                left_out.push(&path, "has a name that is not UTF-8");
            } else if !is_directory {
                // Whatever it is: opening it tells.
                found.push(path);
            } else if depth + 1 < MAX_DEPTH {
                waiting.push((format!("{path}/"), depth + 1));
            } else {
                left_out.push(&path, "is too deep a directory");
            }
        }
    }
    found.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_reach_below_the_directories_that_they_name() {
        for (pattern, directory, below) in [
            ("**", "a/b", true),
            ("**/*.class", "a", true),
            ("*.class", "a", false),
            ("a/*", "a", true),
            ("a/*", "a/b", false),
            ("a/*", "b", false),
            ("?/x/**", "a", true),
            ("?/x/**", "a/x/y/z", true),
            ("a", "a", false),
        ] {
            assert_eq!(reaches_below(pattern, directory), below, "{pattern} {directory}");
        }
    }

    #[test]
    fn what_is_said_of_what_was_left_out_is_bounded() {
        let mut left_out = LeftOut::default();
        for _ in 0..100 {
            left_out.push(&"\u{fc}".repeat(2000), "is a symbolic link");
        }
        left_out.push("last", "is not heard any more");
        assert_eq!(left_out.0.len(), NAMED);
        assert!(left_out.0.iter().all(|entry| entry.len() <= 256 && entry.ends_with("...: is a symbolic link")));
    }
}
