//! The inside of a sandbox: an init that builds the place, starts the program and sees it end.
//!
//! Both run in fresh pid, mount, ipc and uts namespaces. The init is PID 1, root of nothing but this
//! place, and the program's only superior: when the program ends it leaves, and the kernel kills
//! whatever the program left running. The program is not PID 1, because the kernel protects PID 1
//! from the default action of signals and `abort()` would not work.

use crate::failed::{At, Failed};
use crate::root::{PROC_DATA, WORK, tmpfs_data};
use crate::sys;
use gavel_agent::wire::{Order, OrderContent, OrderLimits};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit, setsid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering::SeqCst};

/// Everything a new process needs to know; prepared before it is born.
pub struct Plan<'a> {
    pub order: &'a Order<'a>,
    /// The bytes of the inline files, in order.
    pub inline: Vec<&'a [u8]>,
    pub path: CString,
    pub argv: sys::CStrings,
    pub env: sys::CStrings,
    pub uid: u32,
    pub gid: u32,
    pub filter: &'a [sys::Instruction],
    /// A working directory made beforehand, where its files are wanted afterwards.
    pub work: Option<BorrowedFd<'a>>,
    /// The host's network, where the job may have it.
    pub network: Option<BorrowedFd<'a>>,
    pub stdio: [BorrowedFd<'a>; 3],
}

const STEP: usize = 96;

/// What the inside tells the agent, through memory that both see.
pub struct Record {
    /// Nanoseconds, monotonic; 0: not yet.
    pub started: AtomicU64,
    pub ended: AtomicU64,
    /// Wait status of the program; meaningful once `ended` is set.
    pub status: AtomicI32,
    /// CPU time that is ours: the init's, and the program's process before it became the program.
    pub own_cpu: AtomicU64,
    /// Largest resident set of the program or a process that it waited for, bytes.
    pub max_rss: AtomicU64,
    errno: AtomicI32,
    step: [AtomicU8; STEP],
}

impl Default for Record {
    fn default() -> Self {
        Self {
            started: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            status: AtomicI32::new(0),
            own_cpu: AtomicU64::new(0),
            max_rss: AtomicU64::new(0),
            errno: AtomicI32::new(0),
            step: [const { AtomicU8::new(0) }; STEP],
        }
    }
}

impl Record {
    pub fn reset(&self) {
        for number in [&self.started, &self.ended, &self.own_cpu, &self.max_rss] {
            number.store(0, SeqCst);
        }
        self.status.store(0, SeqCst);
        self.errno.store(0, SeqCst);
        self.step[0].store(0, SeqCst);
    }

    fn fail(&self, failed: &Failed) {
        let bytes = failed.step.bytes().filter(|b| *b != 0).take(STEP - 1).chain([0]);
        for (slot, byte) in self.step.iter().zip(bytes) {
            slot.store(byte, SeqCst);
        }
        self.errno.store(failed.errno.raw_os_error(), SeqCst);
    }

    /// The step that failed inside, if one did.
    pub fn failure(&self) -> Option<Failed> {
        let bytes: Vec<u8> = self.step.iter().map(|b| b.load(SeqCst)).take_while(|b| *b != 0).collect();
        if bytes.is_empty() {
            return None;
        }
        let errno = Errno::from_raw_os_error(self.errno.load(SeqCst).max(1));
        Some(Failed { step: String::from_utf8_lossy(&bytes).into_owned().into(), errno })
    }
}

/// The life of the init. Never returns.
pub fn init(plan: &Plan, record: &Record) -> ! {
    let failed = prepare(plan).and_then(|()| start(plan, record)).and_then(|program| watch(program, record));
    if let Err(failed) = &failed {
        record.fail(failed);
    }
    sys::exit_now(i32::from(failed.is_err()))
}

fn prepare(plan: &Plan) -> Result<(), Failed> {
    sys::die_with_parent().at("tie the init to the agent")?;
    close_the_agents(plan)?;
    mount_proc()?;
    prefer_as_victim()?;
    if let Some(network) = plan.network {
        sys::join_network(network).at("join the host's network")?;
    }
    let shared = mount_all(plan)?;
    stage(plan, shared.as_ref())?;
    std::env::set_current_dir(WORK).at("enter the working directory")
}

/// Closes the agent's ends of pipes: a stdin that the init could still write to would never end.
fn close_the_agents(plan: &Plan) -> Result<(), Failed> {
    let others = [plan.work, plan.network].into_iter().flatten();
    let mut keep: Vec<i32> = plan.stdio.iter().copied().chain(others).map(|fd| fd.as_raw_fd()).collect();
    sys::close_all_but(&mut keep).at("close the agent's descriptors")
}

/// Mounts what is this job's own. Returns the directory of shared files, which its working directory
/// now hides from everybody else.
fn mount_all(plan: &Plan) -> Result<Option<OwnedFd>, Failed> {
    let limits = &plan.order.limits;
    let wants_shared = plan.order.files.iter().any(|f| matches!(f.content, OrderContent::Shared(_)));
    let shared =
        wants_shared.then(|| open(WORK, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open the shared files"));
    let shared = shared.transpose()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    match plan.work {
        Some(work) => move_mount(work, "", CWD, WORK, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("move /box")?,
        None => {
            let data = tmpfs_data(limits.work, limits.inodes, "755", plan.uid, plan.gid);
            mount("box", WORK, "tmpfs", flags, Some(data.as_c_str())).at("mount /box")?;
        }
    }
    let data = tmpfs_data(limits.tmp, limits.inodes, "1777", 0, 0);
    mount("tmp", "/tmp", "tmpfs", flags, Some(data.as_c_str())).at("mount /tmp")?;
    let data = tmpfs_data(limits.shm, limits.inodes, "1777", 0, 0);
    mount("shm", "/dev/shm", "tmpfs", flags | MountFlags::NOEXEC, Some(data.as_c_str())).at("mount /dev/shm")?;
    Ok(shared)
}

fn stage(plan: &Plan, shared: Option<&OwnedFd>) -> Result<(), Failed> {
    if plan.order.files.is_empty() {
        return Ok(());
    }
    let work = open(WORK, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open /box")?;
    // What the job brings belongs to it. Nothing of it runs yet, so paths mean what they say.
    sys::set_fs_user(plan.uid, plan.gid);
    let mut inline = plan.inline.iter();
    for file in &plan.order.files {
        make_parents(&work, file.path)?;
        match file.content {
            OrderContent::Inline(_) => {
                let content = inline.next().ok_or(Errno::INVAL).at("find the content of a file")?;
                let mode = if file.executable { 0o755 } else { 0o644 };
                write_new(&work, file.path, content, mode)?;
            }
            OrderContent::Shared(_) => drop(create(&work, file.path, 0o555)?),
        }
    }
    sys::set_fs_user(0, 0);
    for file in &plan.order.files {
        if let (OrderContent::Shared(from), Some(shared)) = (file.content.clone(), shared) {
            share(shared, from, &work, file.path)?;
        }
    }
    Ok(())
}

/// Mounts one shared file, read-only, over the empty one that waits for it.
fn share(shared: &OwnedFd, from: &str, work: &OwnedFd, to: &str) -> Result<(), Failed> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(shared, from, flags).at("take a shared file")?;
    move_mount(&tree, "", work, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("mount a shared file")
}

fn make_parents(work: &OwnedFd, path: &str) -> Result<(), Failed> {
    for (at, _) in path.match_indices('/') {
        match mkdirat(work, &path[..at], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).at("make a directory in /box"),
        }
    }
    Ok(())
}

fn create(work: &OwnedFd, path: &str, mode: u32) -> Result<OwnedFd, Failed> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(work, path, flags, Mode::from_raw_mode(mode), resolve).at("make a file in /box")
}

fn write_new(work: &OwnedFd, path: &str, mut content: &[u8], mode: u32) -> Result<(), Failed> {
    let file = create(work, path, mode)?;
    while !content.is_empty() {
        let written = rustix::io::write(&file, content).at("write a file in /box")?;
        content = &content[written..];
    }
    Ok(())
}

/// The agent's /proc belongs to another pid namespace; this one shows the job's processes only.
fn mount_proc() -> Result<(), Failed> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, Some(PROC_DATA)).at("mount /proc")
}

/// When memory runs out, the init or the program goes, never the agent: the job is over either way.
fn prefer_as_victim() -> Result<(), Failed> {
    let file =
        open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at("open oom_score_adj")?;
    rustix::io::write(&file, b"1000").map(drop).at("raise oom_score_adj")
}

/// Starts the program. The child shares this memory until it is the program.
fn start(plan: &Plan, record: &Record) -> Result<i32, Failed> {
    let mut body = || match become_program(plan, record) {
        Ok(never) => match never {},
        Err(failed) => {
            record.fail(&failed);
            127
        }
    };
    record.own_cpu.store(sys::own_cpu(), SeqCst);
    record.started.store(sys::monotonic_now(), SeqCst);
    sys::vfork(&mut body).at("start the program's process")
}

/// From the init's child to the program: the order is what keeps it inside.
fn become_program(plan: &Plan, record: &Record) -> Result<std::convert::Infallible, Failed> {
    setsid().at("setsid")?;
    for (number, stream) in plan.stdio.iter().enumerate() {
        sys::dup_onto(stream.as_fd(), number as i32).at("set up stdin, stdout and stderr")?;
    }
    sys::close_all_but(&mut []).at("close descriptors")?;
    sys::default_sigpipe();
    limit_resources(&plan.order.limits)?;
    drop_rights(plan.uid, plan.gid)?;
    // Last, because it forbids what the lines above need.
    sys::install_seccomp(plan.filter).at("install the seccomp filter")?;
    record.own_cpu.fetch_add(sys::thread_cpu(), SeqCst);
    let errno = sys::execve(&plan.path, &plan.argv, &plan.env);
    Err(Failed { step: format!("execute {}", plan.path.to_string_lossy()).into(), errno })
}

fn limit_resources(limits: &OrderLimits) -> Result<(), Failed> {
    let seconds = limits.cpu.div_ceil(1_000_000_000);
    limit(Resource::Stack, limits.stack, limits.stack).at("limit the stack")?;
    limit(Resource::Fsize, limits.file_size, limits.file_size).at("limit the size of files")?;
    limit(Resource::Nofile, limits.open_files, limits.open_files).at("limit open files")?;
    // Only a second net: the agent counts all processes together and acts first.
    limit(Resource::Cpu, seconds + 1, seconds + 2).at("limit CPU time")
}

/// Sets a limit for good; where the host's own is lower, that one stands.
pub fn limit(resource: Resource, current: u64, maximum: u64) -> rustix::io::Result<()> {
    let host = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    setrlimit(resource, Rlimit { current: Some(current.min(host)), maximum: Some(maximum.min(host)) })
}

fn drop_rights(uid: u32, gid: u32) -> Result<(), Failed> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    match set_thread_groups(&[]) {
        // In a user namespace without a group map there are none to drop, and the kernel says so.
        Ok(()) | Err(Errno::PERM) => {}
        Err(e) => return Err(e).at("drop groups"),
    }
    set_thread_res_gid(gid, gid, gid).at("change group")?;
    set_thread_res_uid(uid, uid, uid).at("change user")?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .at("drop capabilities")
}

/// Reaps whatever ends until the program does.
fn watch(program: i32, record: &Record) -> Result<(), Failed> {
    loop {
        let waited = sys::wait(-1, 0).at("wait for the program")?;
        if waited.pid == program {
            record.status.store(waited.status, SeqCst);
            record.max_rss.store(waited.max_rss, SeqCst);
            record.ended.store(sys::monotonic_now(), SeqCst);
            return Ok(());
        }
    }
}
