//! The inside of a sandbox: an init that builds the place, starts the program and sees it end.
//!
//! Both run in fresh pid, mount and uts namespaces. The init is PID 1, root of nothing but this
//! place, and the program's only superior: when the program ends it leaves, and the kernel kills
//! whatever the program left running. The program is not PID 1, because the kernel protects PID 1
//! from the default action of signals and `abort()` would not work.
//!
//! In a container all that is there already, for all its commands: then the init has no namespaces, only
//! brings the files and starts the program, and whatever outlives it is the agent's to end
//! ([`crate::container`]).
//!
//! The init may share its memory with the agent, which goes on meanwhile ([`sys::Memory`]). So nothing
//! in [`init`] and below allocates: the agent prepares everything in a [`Plan`], and every failure is
//! named by a text that is there from the start.

use crate::container::Container;
use crate::failed::{At, Failed};
use crate::root::{PROC_DATA, tmpfs_data};
use crate::supervise::Kept;
use crate::sys;
use gavel_agent::wire::{Order, OrderContent, OrderFile, OrderLimits};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, getrlimit, ioctl_tiocsctty, set_child_subreaper,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering::SeqCst};

/// Everything a new process needs to know; prepared before it is born.
pub struct Plan<'a> {
    argv: sys::CStrings,
    env: sys::CStrings,
    path: CString,
    files: Vec<Input<'a>>,
    limits: OrderLimits,
    /// Mount data of /box, /tmp and /dev/shm.
    tmpfs: [CString; 3],
    around: Surroundings<'a>,
}

/// What a plan takes from the agent.
pub struct Surroundings<'a> {
    pub uid: u32,
    pub gid: u32,
    /// Empty where the agent itself is under everything that a job is.
    pub filter: &'a [sys::Instruction],
    /// Numbers in the table that the init gets a copy of; the agent closes its own meanwhile.
    pub stdio: [RawFd; 3],
    /// The streams are a terminal, which is to be the program's.
    pub terminal: bool,
    /// An ordinary user's process that hides itself may not change its own score any more; there the
    /// agent has the highest one itself, and everything inherits it.
    pub score_is_set: bool,
    pub walls: Walls<'a>,
}

/// Where a command runs.
pub enum Walls<'a> {
    /// In what the init builds for it.
    Own(Enclosure<'a>),
    /// In what is there for all commands.
    Container(&'a Container),
}

impl Surroundings<'_> {
    fn enclosure(&self) -> Option<&Enclosure<'_>> {
        match &self.walls {
            Walls::Own(enclosure) => Some(enclosure),
            Walls::Container(_) => None,
        }
    }
}

/// What the init builds around itself in its new namespaces.
pub struct Enclosure<'a> {
    /// A working directory made beforehand, where its files are wanted afterwards.
    pub work: Option<BorrowedFd<'a>>,
    /// The host's network, where the job may have it.
    pub network: Option<BorrowedFd<'a>>,
    /// The file system of the job's terminal.
    pub pts: Option<BorrowedFd<'a>>,
    /// The init has a memory of its own ([`sys::Memory::Copied`]).
    pub own_memory: bool,
}

/// A file that is there when the program starts.
struct Input<'a> {
    path: CString,
    /// Directories that it needs, the outer ones first.
    parents: Vec<CString>,
    mode: u32,
    content: Content<'a>,
}

enum Content<'a> {
    Bytes(sys::Once<'a>),
    Kept(&'a [u8]),
    /// Path below the directory of shared files.
    Shared(CString),
}

impl<'a> Plan<'a> {
    /// `inline` holds the bytes of the order's inline files, in order.
    pub fn new(
        order: &Order<'a>,
        inline: Vec<sys::Once<'a>>,
        kept: &'a Kept,
        around: Surroundings<'a>,
    ) -> Result<Self, Failed> {
        let path = *order.argv.first().ok_or(Errno::INVAL).at("find the program")?;
        let mut inline = inline.into_iter();
        let is_there = |file: &&OrderFile| matches!(around.walls, Walls::Container(place) if place.stages(file));
        let files = order.files.iter().filter(|file| !is_there(file)).map(|file| {
            let content = match file.content {
                OrderContent::Inline(_) => {
                    Content::Bytes(inline.next().ok_or(Errno::INVAL).at("find a file's content")?)
                }
                OrderContent::Keep { number, .. } | OrderContent::Kept(number) => {
                    Content::Kept(kept.get(&number).ok_or(Errno::PROTO).at("find a kept file")?)
                }
                OrderContent::Shared(_) if around.enclosure().is_none() => {
                    return Err(Errno::PROTO).at("share a file with a container");
                }
                OrderContent::Shared(from) => Content::Shared(c_string(from)?),
            };
            let parents = file.path.match_indices('/').map(|(at, _)| c_string(&file.path[..at]));
            Ok(Input {
                path: c_string(file.path)?,
                parents: parents.collect::<Result<_, _>>()?,
                mode: if file.executable { 0o755 } else { 0o644 },
                content,
            })
        });
        let (limits, user) = (order.limits, (around.uid, around.gid));
        Ok(Self {
            argv: sys::CStrings::new(order.argv.iter().map(|s| (*s).to_owned())).at("read argv")?,
            env: sys::CStrings::new(order.env.iter().map(|(k, v)| format!("{k}={v}"))).at("read env")?,
            path: c_string(path)?,
            files: files.collect::<Result<_, Failed>>()?,
            limits,
            tmpfs: [
                tmpfs_data(limits.work, inodes(order), "755", user),
                tmpfs_data(limits.tmp, limits.inodes, "1777", user),
                tmpfs_data(limits.shm, limits.inodes, "1777", user),
            ],
            around,
        })
    }
}

/// Inodes of /box: what the order brings does not count against what the command may make.
pub fn inodes(order: &Order) -> u32 {
    // Each file and each directory above it. Directories that files share are counted again, which costs nothing.
    let brought: usize = order.files.iter().map(|file| 1 + file.path.matches('/').count()).sum();
    order.limits.inodes.saturating_add(u32::try_from(brought).unwrap_or(u32::MAX))
}

fn c_string(text: &str) -> Result<CString, Failed> {
    CString::new(text).map_err(|_| Errno::INVAL).at("read a path")
}

/// The last step. What the kernel refuses here may be the job's own doing.
pub const EXECUTE: &str = "execute the program";

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
            errno: AtomicI32::new(0),
            step: [const { AtomicU8::new(0) }; STEP],
        }
    }
}

impl Record {
    pub fn reset(&self) {
        for number in [&self.started, &self.ended, &self.own_cpu] {
            number.store(0, SeqCst);
        }
        self.status.store(0, SeqCst);
        self.errno.store(0, SeqCst);
        self.step[0].store(0, SeqCst);
    }

    fn fail(&self, failed: &Failed) {
        let bytes = failed.step.bytes().take(STEP - 1).chain([0]);
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

/// The life of the init; the value is its exit status.
pub fn init(plan: &Plan, record: &Record) -> i32 {
    let lived = prepare(plan).and_then(|()| start(plan, record)).and_then(|program| watch(program, record));
    if let Err(failed) = &lived {
        record.fail(failed);
    }
    i32::from(lived.is_err())
}

fn prepare(plan: &Plan) -> Result<(), Failed> {
    set_parent_process_death_signal(Some(Signal::KILL)).at("tie the init to the agent")?;
    close_the_agents(plan)?;
    let shared = match plan.around.enclosure() {
        Some(enclosure) => build(plan, enclosure)?,
        None => {
            // Only PID 1 gets orphans by itself.
            set_child_subreaper(Some(Pid::INIT)).at("adopt orphans")?;
            None
        }
    };
    stage(plan, shared.as_ref())?;
    rustix::process::chdir(c"/box").at("enter the working directory")
}

/// Closes the agent's ends of pipes: a stdin that the init could still write to would never end.
fn close_the_agents(plan: &Plan) -> Result<(), Failed> {
    let fd = |fd: Option<BorrowedFd>| fd.map_or(-1, |fd| fd.as_raw_fd());
    let [stdin, stdout, stderr] = plan.around.stdio;
    let (work, network, pts) =
        plan.around.enclosure().map_or((None, None, None), |own| (own.work, own.network, own.pts));
    sys::close_all_but(&mut [stdin, stdout, stderr, fd(work), fd(network), fd(pts)]).at("close the agent's descriptors")
}

/// Returns the directory of shared files, if the job wants any.
fn build(plan: &Plan, enclosure: &Enclosure) -> Result<Option<OwnedFd>, Failed> {
    if enclosure.own_memory {
        // Born inside its own group, which is all that it gets to see.
        sys::unshare(libc::CLONE_NEWCGROUP).at("hide the other cgroups")?;
    }
    if let Some(network) = enclosure.network {
        sys::join_network(network).at("join the host's network")?;
    }
    let shared = mount_all(plan, enclosure)?;
    if enclosure.own_memory && !plan.around.score_is_set {
        // Otherwise the score would be the agent's, too.
        prefer_as_victim()?;
    }
    Ok(shared)
}

/// Mounts what is this job's own. Returns the directory of shared files, which its working directory
/// now hides from everybody else.
fn mount_all(plan: &Plan, enclosure: &Enclosure) -> Result<Option<OwnedFd>, Failed> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // The agent's /proc belongs to another pid namespace; this one shows the job's processes only.
    mount(c"proc", c"/proc", c"proc", flags | MountFlags::NOEXEC, Some(PROC_DATA)).at("mount /proc")?;
    let wants_shared = plan.files.iter().any(|file| matches!(file.content, Content::Shared(_)));
    let shared =
        wants_shared.then(|| open(c"/box", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open the shared files"));
    let shared = shared.transpose()?;
    let [work, tmp, shm] = plan.tmpfs.each_ref().map(|data| Some(data.as_c_str()));
    match enclosure.work {
        Some(work) => move_mount(work, c"", CWD, c"/box", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("move /box")?,
        None => mount(c"box", c"/box", c"tmpfs", flags, work).at("mount /box")?,
    }
    mount(c"tmp", c"/tmp", c"tmpfs", flags, tmp).at("mount /tmp")?;
    mount(c"shm", c"/dev/shm", c"tmpfs", flags | MountFlags::NOEXEC, shm).at("mount /dev/shm")?;
    if let Some(pts) = enclosure.pts {
        move_mount(pts, c"", CWD, c"/dev/pts", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("mount /dev/pts")?;
    }
    Ok(shared)
}

fn stage(plan: &Plan, shared: Option<&OwnedFd>) -> Result<(), Failed> {
    if plan.files.is_empty() {
        return Ok(());
    }
    let work = open(c"/box", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open /box")?;
    // What the job brings belongs to it. Nothing of it runs yet, so paths mean what they say.
    sys::set_fs_user(plan.around.uid, plan.around.gid);
    for file in &plan.files {
        make_parents(&work, file)?;
        match &file.content {
            Content::Bytes(content) => write_new(plan, &work, file, content)?,
            Content::Kept(content) => write_all(&create(&work, &file.path, file.mode)?, content)?,
            Content::Shared(_) => drop(create(&work, &file.path, 0o555)?),
        }
    }
    sys::set_fs_user(0, 0);
    for file in &plan.files {
        if let (Content::Shared(from), Some(shared)) = (&file.content, shared) {
            share(shared, from, &work, &file.path)?;
        }
    }
    Ok(())
}

/// Mounts one shared file, read-only, over the empty one that waits for it.
fn share(shared: &OwnedFd, from: &CStr, work: &OwnedFd, to: &CStr) -> Result<(), Failed> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(shared, from, flags).at("take a shared file")?;
    move_mount(&tree, c"", work, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).at("mount a shared file")
}

fn make_parents(work: &OwnedFd, file: &Input) -> Result<(), Failed> {
    for parent in &file.parents {
        match mkdirat(work, parent.as_c_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).at("make a directory in /box"),
        }
    }
    Ok(())
}

pub fn create(work: &OwnedFd, path: &CStr, mode: u32) -> Result<OwnedFd, Failed> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(work, path, flags, Mode::from_raw_mode(mode), resolve).at("make a file in /box")
}

fn write_new(plan: &Plan, work: &OwnedFd, file: &Input, content: &sys::Once) -> Result<(), Failed> {
    let target = create(work, &file.path, file.mode)?;
    // The job's limit is the container's: there is no room for everything twice.
    let give_back = plan.around.enclosure().is_none();
    content.read(give_back, |piece| rustix::io::write(&target, piece)).at("write a file in /box")
}

pub fn write_all(target: &OwnedFd, mut content: &[u8]) -> Result<(), Failed> {
    while !content.is_empty() {
        let written = rustix::io::write(target, content).at("write a file in /box")?;
        content = &content[written..];
    }
    Ok(())
}

/// Starts the program. The child shares this memory until it is the program.
fn start(plan: &Plan, record: &Record) -> Result<i32, Failed> {
    let body = || match become_program(plan, record) {
        Ok(never) => match never {},
        Err(failed) => {
            record.fail(&failed);
            127
        }
    };
    record.own_cpu.store(sys::own_cpu(), SeqCst);
    record.started.store(sys::monotonic_now(), SeqCst);
    sys::vfork(&body).at("start the program's process")
}

/// From the init's child to the program: the order is what keeps it inside.
fn become_program(plan: &Plan, record: &Record) -> Result<std::convert::Infallible, Failed> {
    if !plan.around.score_is_set {
        prefer_as_victim()?;
    }
    setsid().at("setsid")?;
    for (number, stream) in plan.around.stdio.into_iter().enumerate() {
        sys::dup_onto(stream, number as RawFd).at("set up stdin, stdout and stderr")?;
    }
    sys::close_all_but(&mut []).at("close descriptors")?;
    if plan.around.terminal {
        // From here on Ctrl-C is its signal. Nobody else is in the session, or can join it.
        ioctl_tiocsctty(rustix::stdio::stdin()).at("take the terminal")?;
    }
    sys::default_action(libc::SIGPIPE).at("reset SIGPIPE")?;
    limit_resources(&plan.limits)?;
    drop_rights(plan.around.uid, plan.around.gid)?;
    if !plan.around.filter.is_empty() {
        // Last, because it forbids what the lines above need.
        sys::install_seccomp(plan.around.filter).at("install the seccomp filter")?;
    }
    record.own_cpu.fetch_add(sys::thread_cpu(), SeqCst);
    Err(Failed { step: Cow::Borrowed(EXECUTE), errno: sys::execve(&plan.path, &plan.argv, &plan.env) })
}

/// When memory runs out, the program goes, and never the agent. The kernel gives all that share a memory
/// the same score, except a child of vfork.
fn prefer_as_victim() -> Result<(), Failed> {
    let file =
        open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).at("open oom_score_adj")?;
    rustix::io::write(&file, b"1000").map(drop).at("raise oom_score_adj")
}

fn limit_resources(limits: &OrderLimits) -> Result<(), Failed> {
    let seconds = limits.cpu.div_ceil(1_000_000_000);
    limit(Resource::Stack, limits.stack, limits.stack).at("limit the stack")?;
    limit(Resource::Fsize, limits.file_size, limits.file_size).at("limit the size of files")?;
    // Only a second net: the agent counts all processes together and acts first.
    limit(Resource::Cpu, seconds + 1, seconds + 2).at("limit CPU time")
}

/// Sets a limit for good; where the host's own is lower, that one stands.
pub fn limit(resource: Resource, current: u64, maximum: u64) -> rustix::io::Result<()> {
    let new = |current, maximum| Rlimit { current: Some(current), maximum: Some(maximum) };
    match setrlimit(resource, new(current, maximum)) {
        Err(Errno::PERM) => {
            let host = getrlimit(resource).maximum.unwrap_or(u64::MAX);
            setrlimit(resource, new(current.min(host), maximum.min(host)))
        }
        other => other,
    }
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
        let waited = sys::wait(-1).at("wait for the program")?;
        if waited.pid == program {
            record.status.store(waited.status, SeqCst);
            record.ended.store(sys::monotonic_now(), SeqCst);
            return Ok(());
        }
    }
}
