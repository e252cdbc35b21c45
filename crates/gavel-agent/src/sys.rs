//! The unsafe corner: system calls that no safe wrapper offers.

#![allow(unsafe_code)]

use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Errno::from_raw_os_error(errno())) } else { Ok(result) }
}

fn errno() -> i32 {
    // SAFETY: the location is this thread's own and always valid.
    unsafe { *libc::__errno_location() }
}

/// Which side of a [`fork`] this is.
pub enum Fork {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// clone3(2); the constant of the same name in libc does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `clone3` without shared memory: like fork, with namespaces, a pidfd, and on version 2 hosts the
/// child born inside its cgroup.
pub fn fork(namespaces: libc::c_int, cgroup: Option<BorrowedFd>) -> Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is the documented empty state of this plain struct.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(group) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = group.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack are given, so the child continues on its own copy of this
    // stack. The agent has one thread, so no lock can be held by a thread that the child lacks.
    // `pidfd` outlives the call, and the kernel writes it only in the parent.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Fork::Child);
    }
    // SAFETY: the call succeeded, so the kernel has put a new descriptor here that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent { pid: pid as i32, pidfd })
}

const CHILD_STACK: usize = 128 << 10;

#[repr(align(64))]
struct Stack(std::cell::UnsafeCell<[u8; CHILD_STACK]>);

// SAFETY: the agent has one thread; the only other user is the suspended-parent child below.
unsafe impl Sync for Stack {}

static STACK: Stack = Stack(std::cell::UnsafeCell::new([0; CHILD_STACK]));

/// Runs `body` in a child that shares this memory while the caller is suspended, until the child
/// executes a program or exits: no page table is copied. `body` returns only if it failed; its value
/// becomes the exit status, so it must report by other means first.
pub fn vfork<F: FnMut() -> i32>(body: &mut F) -> Result<i32> {
    extern "C" fn enter<F: FnMut() -> i32>(body: *mut c_void) -> libc::c_int {
        // SAFETY: `body` is the pointer given to clone below; the caller is suspended and keeps it alive.
        let body = unsafe { &mut *body.cast::<F>() };
        let status = body();
        // SAFETY: leaves at once, running no destructors or exit handlers of the shared memory.
        unsafe { libc::_exit(status) }
    }
    // SAFETY: the top of a static, 64-byte aligned array; the stack grows down into it. Only one such
    // child exists at a time because CLONE_VFORK suspends the caller.
    let top = unsafe { STACK.0.get().cast::<u8>().add(CHILD_STACK) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `enter` matches the type behind `body`, and CLONE_VFORK keeps this frame alive for as
    // long as the child uses it.
    let pid = unsafe { libc::clone(enter::<F>, top.cast(), flags, ptr::from_mut(body).cast()) };
    check(pid.into()).map(|pid| pid as i32)
}

/// Argument or environment list as `execve` wants it.
pub struct CStrings {
    // Owns what the pointers point to; a moved CString keeps its heap address.
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    pub fn new(strings: impl Iterator<Item = String>) -> Result<Self> {
        let owned = strings.map(|s| CString::new(s).map_err(|_| Errno::INVAL)).collect::<Result<Vec<_>>>()?;
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { _owned: owned, pointers })
    }
}

/// Replaces this process; returns only an error.
pub fn execve(path: &CStr, argv: &CStrings, env: &CStrings) -> Errno {
    // SAFETY: three valid NUL-terminated arguments; both lists end with a null pointer.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    Errno::from_raw_os_error(errno())
}

pub fn exit_now(status: i32) -> ! {
    // SAFETY: always sound; skips exit handlers, which belong to the process that was copied.
    unsafe { libc::_exit(status) }
}

/// Closes every descriptor from 3 on but these.
pub fn close_all_but(keep: &mut [i32]) -> Result<()> {
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.iter().copied().filter(|fd| *fd >= 3) {
        close_range(first, fd - 1)?;
        first = fd + 1;
    }
    close_range(first, i32::MAX)
}

fn close_range(first: i32, last: i32) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes descriptors that this process, a fresh copy of the agent, does not use; their
    // owners are never dropped in it, because it ends by exec or exit.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Whatever this process inherited: every signal gets its default action, and none is blocked. Both
/// would survive exec. Only SIGPIPE stays ignored: the agent writes to pipes that jobs close.
pub fn reset_signals() -> Result<()> {
    // The kernel's own structs: the C library keeps two real-time signals to itself.
    const SET: usize = 8;
    let default = [0u64; 4];
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE].contains(signal)) {
        // SAFETY: all-zero is the default action with no flags; the old one is not asked for.
        check(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), SET) })?;
    }
    let none = 0u64;
    // SAFETY: an empty set of the size given; the old one is not asked for.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, ptr::null::<u64>(), SET) };
    check(result).map(drop)
}

/// Makes `to` a copy of `from`, inherited by programs, even where both are the same number.
pub fn dup_onto(from: BorrowedFd, to: i32) -> Result<()> {
    // SAFETY: both are plain numbers for the kernel; `to` is 0, 1 or 2 of a process about to execute.
    let result = unsafe {
        if from.as_raw_fd() == to { libc::fcntl(to, libc::F_SETFD, 0) } else { libc::dup2(from.as_raw_fd(), to) }
    };
    check(result.into()).map(drop)
}

/// One instruction of classic BPF.
pub type Instruction = libc::sock_filter;

/// Binds the filter to this process and all that come from it.
pub fn install_seccomp(filter: &[Instruction]) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions; the kernel copies and verifies them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// Default action for the signal that Rust ignores; ignored signals survive exec.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// The kernel kills this process when its parent ends.
pub fn die_with_parent() -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into()).map(drop)
}

/// Nobody may trace this process or read its memory through /proc.
pub fn not_dumpable() -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }.into()).map(drop)
}

/// The user whose rights count when files are made; capabilities over files go with it.
pub fn set_fs_user(uid: u32, gid: u32) {
    // SAFETY: plain numbers. Both calls return the old value and cannot report an error.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// What a finished child used, as the kernel counts it for the parent: itself and all it waited for.
pub struct Waited {
    pub pid: i32,
    pub status: i32,
    /// User and system time, nanoseconds.
    pub cpu: u64,
    /// Largest resident set of one of these processes, bytes.
    pub max_rss: u64,
}

/// Waits for one child (-1: any).
pub fn wait(pid: i32, flags: libc::c_int) -> Result<Waited> {
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both out-pointers are valid for the call.
        match check(unsafe { libc::wait4(pid, &raw mut status, flags, &raw mut usage) }.into()) {
            Ok(pid) => {
                let micros = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
                let cpu = (micros(usage.ru_utime) + micros(usage.ru_stime)) * 1000;
                return Ok(Waited { pid: pid as i32, status, cpu, max_rss: usage.ru_maxrss as u64 * 1024 });
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// A record that a process and its forked children both see.
pub struct Shared<T: 'static>(&'static T);

impl<T: Sync + Default> Shared<T> {
    pub fn new() -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping, large enough and page aligned; never unmapped.
        let at = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::from_raw_os_error(errno()));
        }
        // SAFETY: as above; initialised before a reference is made.
        unsafe {
            at.cast::<T>().write(T::default());
            Ok(Self(&*at.cast::<T>()))
        }
    }
}

impl<T> std::ops::Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

/// Sets the loopback interface of this network namespace up.
pub fn loopback_up() -> Result<()> {
    // SAFETY: a plain socket; the request struct is zeroed, then named "lo"; the ioctl reads it and
    // keeps no pointer.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0).into())? as i32;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request).into()).map(drop)
    }
}

/// Makes a mount read-only, without set-user-ID programs and, unless wanted, without devices.
pub fn lock_mount(path: &CStr, devices: bool, with_submounts: bool) -> Result<()> {
    // SAFETY: all-zero is the documented empty state of this plain struct.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    if !devices {
        attr.attr_set |= libc::MOUNT_ATTR_NODEV;
    }
    // SAFETY: a NUL-terminated path and a struct with its size; the kernel keeps neither.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            if with_submounts { libc::AT_RECURSIVE } else { 0 },
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Joins the network namespace behind `fd`.
pub fn join_network(fd: BorrowedFd) -> Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) }.into()).map(drop)
}

pub fn unshare(flags: libc::c_int) -> Result<()> {
    // SAFETY: no CLONE_FILES or CLONE_VM among the flags: memory and descriptors stay as they are.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

pub fn device_number(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

pub fn monotonic_now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// CPU time of this process.
pub fn own_cpu() -> u64 {
    clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of this thread; in a [`vfork`] child that is the child alone.
pub fn thread_cpu() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid out-pointer; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A second owner of the same open file.
pub fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}
