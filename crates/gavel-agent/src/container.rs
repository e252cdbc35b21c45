//! The agent as the first process of a container: the container is the sandbox, made by somebody else.
//!
//! What is made anew for each command on a host is one and the same here for all of them. So after each
//! command everything is killed and waited for, and before the next one the agent empties all places
//! that a job can write to, makes sure that nothing is left of it, and goes on to another user. What
//! cannot be made sure of ends the agent, and the container with it.
//!
//! The agent is root with three capabilities: to change users, and to signal them. It has no rights over
//! other people's files, so it touches a job's files as the job's user.
//!
//! One thing may stay from one command to the next: a compiled program that the next one brings as well. It
//! is root's, in a directory of root's where everybody can remove only what is their own, and looked at
//! again with everything else: so no job can change it. A command that does not bring it never sees it.

use crate::counters::Counters;
use crate::failed::{At, Failed};
use crate::jail;
use crate::supervise::Kept;
use crate::sys;
use gavel_agent::wire::{self, Order, OrderContent, OrderFile};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, StatVfsMountFlags, chmod, chmodat, fstat, fstatvfs, open, openat, stat,
    statat, statvfs, unlinkat,
};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};
use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// Everything that a job may write to, each a tmpfs of its own.
const SCRATCH: [&str; 3] = ["/box", "/tmp", "/dev/shm"];

/// Everybody may make files, and remove their own.
const OPEN_TO_ALL: u32 = 0o1777;

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(5);

/// How long emptying may take, and how many entries there may be. A tmpfs with a limit on inodes holds fewer.
const EMPTYING: Duration = Duration::from_secs(10);
const ENTRIES: u32 = 1_000_000;

/// What the kernel takes apart on its own after the last process: files that were on their way through a socket.
const SETTLING: Duration = Duration::from_secs(1);

pub struct Container {
    scratch: [Scratch; 3],
    pub reuse: bool,
    /// Which user of how many has the current command.
    user: u32,
    users: u32,
    /// A command has run since the container was made or cleaned.
    used: bool,
    /// What is in /box between commands.
    staged: Vec<Staged>,
}

/// A kept file that lies in /box already.
struct Staged {
    number: u64,
    name: CString,
    executable: bool,
    was: Stat,
}

struct Scratch {
    path: &'static str,
    dir: OwnedFd,
    /// Inodes and blocks in use between commands.
    idle: (u64, u64),
}

/// What the processes used that nobody else waited for.
#[derive(Default)]
pub struct Orphans {
    /// Nanoseconds.
    pub cpu: u64,
    /// Largest resident set, bytes.
    pub max_rss: u64,
}

impl Container {
    /// Takes the container as it is: refuses one that does not isolate as it should.
    pub fn enter(plan: &wire::Container) -> Result<(Self, Counters), Failed> {
        if !rustix::process::getpid().is_init() {
            // Killing everything that is left of a job would kill what is none of the agent's.
            return Err(Errno::PERM).at("be the first process of a container");
        }
        if !statvfs("/").at("look at /")?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(Errno::PERM).at("see that / is read-only");
        }
        // With more, whoever finds a way into the agent would find a way out of the container.
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
        let root = rustix::process::geteuid().is_root();
        if !root || capabilities(None).at("read the capabilities")?.permitted != needed {
            return Err(Errno::PERM).at("be root with the capabilities SETUID, SETGID and KILL only");
        }
        refuse_writable(&fs::read_to_string("/proc/self/mountinfo").at("read the mounts")?)?;
        let counters = Counters::open("/sys/fs/cgroup")?;
        let [work, tmp, shm] = SCRATCH.map(Scratch::open);
        if plan.uids == 0 {
            return Err(Errno::INVAL).at("find a user for the jobs");
        }
        let scratch = [work?, tmp?, shm?];
        let container = Self { scratch, reuse: plan.reuse, user: 0, users: plan.uids, used: false, staged: Vec::new() };
        Ok((container, counters))
    }

    /// The working directory, to read what a command has left there.
    pub fn work(&self) -> Result<OwnedFd, Failed> {
        sys::duplicate(&self.scratch[0].dir).at("open /box")
    }

    /// A command is about to run.
    pub fn take(&mut self, order: &Order, kept: &Kept) -> Result<(), Failed> {
        if std::mem::replace(&mut self.used, true) {
            return Err(Errno::PROTO).at("run a command in a container that is not clean");
        }
        if self.reuse { self.stage(order, kept) } else { Ok(()) }
    }

    /// Puts the programs of an order that are kept anyway into /box, where they stay for the next one that
    /// brings the same; the others go. Whatever else is brought comes later, and as the job's own.
    fn stage(&mut self, order: &Order, kept: &Kept) -> Result<(), Failed> {
        let staged = self.staged.len();
        let mut gone = Ok(());
        self.staged.retain(|staged| {
            let wanted = order.files.iter().any(|file| staged.is(file));
            if !wanted && gone.is_ok() {
                gone = unlinkat(&self.scratch[0].dir, &*staged.name, AtFlags::empty()).at("remove a program from /box");
            }
            wanted
        });
        gone?;
        let mut changed = self.staged.len() != staged;
        for file in &order.files {
            let (OrderContent::Keep { number, .. } | OrderContent::Kept(number)) = file.content else { continue };
            // Directories are the job's.
            if file.path.contains('/') || self.stages(file) {
                continue;
            }
            let content = kept.get(&number).ok_or(Errno::PROTO).at("find a kept file")?;
            let name = CString::new(file.path).map_err(|_| Errno::INVAL).at("read a path")?;
            let target = jail::create(&self.scratch[0].dir, &name, if file.executable { 0o555 } else { 0o444 })?;
            jail::write_all(&target, content)?;
            let was = fstat(&target).at("look at a program in /box")?;
            self.staged.push(Staged { number, name, executable: file.executable, was });
            changed = true;
        }
        if changed {
            let work = &mut self.scratch[0];
            work.idle = used(&work.dir).at("look at /box")?;
        }
        Ok(())
    }

    /// Is this file of an order in /box already?
    pub fn stages(&self, file: &OrderFile) -> bool {
        self.staged.iter().any(|staged| staged.is(file))
    }

    /// Removes every trace of the last command, whose user this was. Returns the way to the next one's.
    pub fn clean(&mut self, uid: u32, gid: u32) -> Result<i32, Failed> {
        kill_the_rest()?;
        let mut patience = Patience { until: Instant::now() + EMPTYING, entries: ENTRIES };
        let staged: Vec<&CStr> = self.staged.iter().map(|staged| &*staged.name).collect();
        for (scratch, own) in self.scratch.iter().zip([&*staged, &[], &[]]) {
            as_user(uid, gid, || empty(scratch.dir.as_fd(), own, &mut patience))
                .map_err(|failed| Failed { step: format!("{} in {}", failed.step, scratch.path).into(), ..failed })?;
        }
        self.verify()?;
        self.used = false;
        let next = (self.user + 1) % self.users;
        let step = next.wrapping_sub(self.user).cast_signed();
        self.user = next;
        Ok(step)
    }

    /// Nothing is left: no process, no file or other object of the kernel. Whatever else a job may have had
    /// (sockets, locks, timers) went with its processes.
    fn verify(&self) -> Result<(), Failed> {
        if sys::signal_all_others(0).at("look for processes")? {
            return Err(Errno::BUSY).at("see that no process is left");
        }
        for staged in &self.staged {
            staged.verify(&self.scratch[0].dir)?;
        }
        let staged: Vec<&CStr> = self.staged.iter().map(|staged| &*staged.name).collect();
        for (scratch, own) in self.scratch.iter().zip([&*staged, &[], &[]]) {
            scratch.verify(own)?;
        }
        if sys::ipc_objects().at("count what is left of IPC")? != 0 {
            return Err(Errno::BUSY).at("see that no System V object is left");
        }
        // A limit of zero bytes forbids message queues; terminals go with whoever opened them.
        for (path, own) in [("/dev/mqueue", &[] as &[&CStr]), ("/dev/pts", &[c"ptmx"])] {
            match open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
                Ok(dir) if holds_nothing_but(own, dir.as_fd())? => {}
                Ok(_) => return Err(Errno::NOTEMPTY).at(format!("see that nothing is left in {path}")),
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e).at(format!("open {path}")),
            }
        }
        Ok(())
    }
}

impl Staged {
    fn is(&self, file: &OrderFile) -> bool {
        let (OrderContent::Keep { number, .. } | OrderContent::Kept(number)) = file.content else { return false };
        number == self.number && file.path.as_bytes() == self.name.to_bytes() && file.executable == self.executable
    }

    fn verify(&self, work: &OwnedFd) -> Result<(), Failed> {
        let found = statat(work, &*self.name, AtFlags::SYMLINK_NOFOLLOW).at("look at a program in /box")?;
        if is_unchanged(&self.was, &found) { Ok(()) } else { Err(Errno::PERM).at("see that a program is as it was") }
    }
}

/// Nothing was done to a file but reading it. The clock of its times stands still for some milliseconds, so
/// that they alone do not tell.
fn is_unchanged(was: &Stat, is: &Stat) -> bool {
    let ids = |file: &Stat| (file.st_ino, file.st_mode, file.st_uid, file.st_gid, file.st_nlink, file.st_size);
    let times = |file: &Stat| (file.st_mtime, file.st_mtime_nsec, file.st_ctime, file.st_ctime_nsec);
    ids(was) == ids(is) && times(was) == times(is)
}

impl Scratch {
    fn open(path: &'static str) -> Result<Self, Failed> {
        let found = stat(path).at(format!("look at {path}"))?;
        // Some runtimes take the mode of the image's directory below, whatever mode was asked for.
        if found.st_mode & 0o7777 != OPEN_TO_ALL {
            chmod(path, Mode::from_raw_mode(OPEN_TO_ALL)).at(format!("open {path} to all"))?;
        }
        let dir = open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let dir = dir.at(format!("open {path}"))?;
        if !holds_nothing_but(&[], dir.as_fd())? {
            return Err(Errno::NOTEMPTY).at(format!("see that {path} is empty"));
        }
        let idle = used(&dir).at(format!("look at {path}"))?;
        Ok(Self { path, dir, idle })
    }

    fn verify(&self, own: &[&CStr]) -> Result<(), Failed> {
        let path = self.path;
        let found = fstat(&self.dir).at(format!("look at {path}"))?;
        if found.st_mode & 0o7777 != OPEN_TO_ALL || found.st_uid != 0 {
            return Err(Errno::PERM).at(format!("see that {path} is as it was"));
        }
        if !holds_nothing_but(own, self.dir.as_fd())? {
            return Err(Errno::NOTEMPTY).at(format!("see that nothing is left in {path}"));
        }
        let until = Instant::now() + SETTLING;
        while used(&self.dir).at(format!("look at {path}"))? != self.idle {
            if Instant::now() > until {
                return Err(Errno::BUSY).at(format!("see that no nameless file is left in {path}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Inodes and blocks in use. Without a limit the kernel does not count them, and says zero each time.
fn used(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let found = fstatvfs(dir)?;
    Ok((found.f_files.saturating_sub(found.f_ffree), found.f_blocks.saturating_sub(found.f_bfree)))
}

/// A place that jobs can write to and that is not known here, such as a volume that the image asks for, would
/// keep what one job leaves for the next, on the host's disk and without a limit.
fn refuse_writable(mounts: &str) -> Result<(), Failed> {
    for path in writable_mounts(mounts) {
        // The kernel writes odd characters as numbers.
        if path.contains('\\') {
            return Err(Errno::ILSEQ).at("read the mounts");
        }
        // Not there: something else is mounted over it, or above it.
        let Ok(found) = stat(path) else { continue };
        // Runtimes hide files of /proc behind a /dev/null.
        let keeps = matches!(FileType::from_raw_mode(found.st_mode), FileType::Directory | FileType::RegularFile);
        if keeps && (found.st_mode & 0o002 != 0 || found.st_uid != 0) {
            return Err(Errno::PERM).at(format!("see that {path} is read-only"));
        }
    }
    Ok(())
}

/// Mount points that are neither read-only nor ours, of /proc/PID/mountinfo: proc(5).
fn writable_mounts(mounts: &str) -> impl Iterator<Item = &str> {
    mounts.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (path, options) = (fields.next()?, fields.next()?);
        let (kind, superblock) = (filesystem.split(' ').next()?, filesystem.rsplit(' ').next()?);
        let read_only = [options, superblock].iter().any(|options| options.split(',').any(|option| option == "ro"));
        // Message queues are forbidden by a limit of zero bytes.
        (!read_only && kind != "mqueue" && !SCRATCH.contains(&path)).then_some(path)
    })
}

/// Kills everything else in the container and waits for it.
pub fn kill_the_rest() -> Result<Orphans, Failed> {
    let mut orphans = Orphans::default();
    let until = Instant::now() + DYING;
    let mut pause = Duration::from_micros(50);
    loop {
        match sys::ended_child() {
            Ok(Some(waited)) => {
                orphans.cpu += waited.cpu;
                orphans.max_rss = orphans.max_rss.max(waited.max_rss);
            }
            // Whoever loses its parent becomes our child, so that without one there is nobody.
            Err(Errno::CHILD) => return Ok(orphans),
            Err(e) => return Err(e).at("wait for what the command left"),
            Ok(None) if Instant::now() > until => return Err(Errno::BUSY).at("end what the command left"),
            Ok(None) => {
                sys::signal_all_others(libc::SIGKILL).at("kill what the command left")?;
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(5));
            }
        }
    }
}

/// Touches files as this user does.
pub fn as_user<T>(uid: u32, gid: u32, act: impl FnOnce() -> T) -> T {
    sys::set_fs_user(uid, gid);
    let done = act();
    sys::set_fs_user(0, 0);
    done
}

struct Patience {
    until: Instant,
    entries: u32,
}

impl Patience {
    fn spend(&mut self) -> Result<(), Failed> {
        self.entries = self.entries.checked_sub(1).ok_or(Errno::OVERFLOW).at("remove that many files")?;
        if Instant::now() > self.until { Err(Errno::TIMEDOUT).at("remove all files in time") } else { Ok(()) }
    }
}

/// Removes everything below a directory but these entries of it. A tree may be deeper than a path can be long and than any stack: so
/// one directory is open at a time, and the way back is "..". Nothing of the job is alive, so that nothing
/// is moved or replaced meanwhile.
fn empty(top: BorrowedFd, own: &[&CStr], patience: &mut Patience) -> Result<(), Failed> {
    let open = |at: BorrowedFd, name: &CStr| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(at, name, flags, Mode::empty()).at("open a directory")
    };
    let mut current = open(top, c".")?;
    let mut depth = 0u32;
    loop {
        let own = if depth == 0 { own } else { &[] };
        match remove_entries(current.as_fd(), own, patience)? {
            Removed::All if depth == 0 => return Ok(()),
            // It is empty now, and goes with the next look at its parent.
            Removed::All => {
                current = open(current.as_fd(), c"..")?;
                depth -= 1;
            }
            Removed::AllBut(full) => {
                // The job may have taken its own right to enter it.
                chmodat(&current, full.as_c_str(), Mode::from_raw_mode(0o700), AtFlags::empty())
                    .at("unlock a directory")?;
                current = open(current.as_fd(), &full)?;
                depth += 1;
            }
        }
    }
}

enum Removed {
    All,
    /// Up to this directory, which is not empty.
    AllBut(CString),
}

fn remove_entries(dir: BorrowedFd, own: &[&CStr], patience: &mut Patience) -> Result<Removed, Failed> {
    // What is removed while it is read may hide something else from this reading.
    loop {
        let mut found = false;
        for entry in Dir::read_from(dir).at("read a directory")? {
            let entry = entry.at("read a directory")?;
            let name = entry.file_name();
            if name == c"." || name == c".." || own.contains(&name) {
                continue;
            }
            found = true;
            patience.spend()?;
            let is_directory = entry.file_type() == FileType::Directory;
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match unlinkat(dir, name, flags) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY) if is_directory => return Ok(Removed::AllBut(name.to_owned())),
                Err(e) => return Err(e).at("remove a file"),
            }
        }
        if !found {
            return Ok(Removed::All);
        }
    }
}

fn holds_nothing_but(own: &[&CStr], dir: BorrowedFd) -> Result<bool, Failed> {
    for entry in Dir::read_from(dir).at("read a directory")? {
        let entry = entry.at("read a directory")?;
        let name = entry.file_name();
        if name != c"." && name != c".." && !own.contains(&name) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};

    #[test]
    fn only_unknown_writable_mounts_are_named() {
        let mounts = "\
1 0 0:50 / / ro,relatime - overlay overlay rw,lowerdir=x
2 1 0:51 / /proc rw,nosuid - proc proc rw
3 1 0:52 / /box rw,nosuid,nodev - tmpfs tmpfs rw,size=1k
4 1 0:53 / /dev/mqueue rw - mqueue mqueue rw
5 1 8:1 /volumes/x/_data /data rw,relatime master:1 - ext4 /dev/vda rw
6 1 8:1 /agent /gavel rw,relatime - ext4 /dev/vda ro
";
        assert_eq!(writable_mounts(mounts).collect::<Vec<_>>(), ["/proc", "/data"]);
    }

    #[test]
    fn a_directory_is_emptied_whatever_is_in_it() {
        let top = std::env::temp_dir().join(format!("gavel-empty-{}", std::process::id()));
        let outside = top.with_extension("outside");
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        symlink(&outside, top.join("a/link")).unwrap();
        fs::write(top.join("a/b/-rf \n\\"), "x").unwrap();
        for n in 0..300 {
            fs::create_dir_all(top.join(format!("many/{n}/x"))).unwrap();
        }
        fs::DirBuilder::new().mode(0o000).create(top.join("locked")).unwrap();
        fs::create_dir(top.join("half")).unwrap();
        fs::write(top.join("half/file"), "x").unwrap();
        fs::set_permissions(top.join("half"), fs::Permissions::from_mode(0o000)).unwrap();
        // Deeper than a path can be long.
        let mut deep = open(&top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..2500 {
            rustix::fs::mkdirat(&deep, "d", Mode::from_raw_mode(0o700)).unwrap();
            deep = openat(&deep, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let dir = open(&top, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let mut few = Patience { until: Instant::now() + EMPTYING, entries: 10 };
        assert_eq!(empty(dir.as_fd(), &[], &mut few).unwrap_err().errno, Errno::OVERFLOW);
        let mut patience = Patience { until: Instant::now() + EMPTYING, entries: ENTRIES };
        fs::write(top.join("program"), "x").unwrap();
        fs::create_dir(top.join("below")).unwrap();
        fs::write(top.join("below/program"), "x").unwrap();
        empty(dir.as_fd(), &[c"program"], &mut patience).unwrap();
        assert!(holds_nothing_but(&[c"program"], dir.as_fd()).unwrap());
        empty(dir.as_fd(), &[], &mut patience).unwrap();
        assert!(holds_nothing_but(&[], dir.as_fd()).unwrap());
        fs::remove_dir(&top).unwrap();
        assert_eq!(fs::read(outside.join("kept")).unwrap(), b"x");
        fs::remove_dir_all(&outside).unwrap();
    }
}
