//! The unsafe corner: system calls that no safe wrapper offers.
//!
//! What runs between the birth of a process and its program may share its memory with the agent, which
//! goes on meanwhile. There nothing may allocate, and `errno` belongs to two: calls made there go
//! straight to the kernel, here by [`raw`] and elsewhere by rustix, which does the same.

#![allow(unsafe_code)]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("the agent's system calls and its seccomp policy are written for x86-64 only");

use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// One system call, without the C library's `errno`.
///
/// # Safety
/// As the call itself demands.
unsafe fn raw(number: libc::c_long, args: [usize; 5]) -> Result<usize> {
    let result: isize;
    // SAFETY: the kernel's calling convention for x86-64: number and result in rax, arguments in rdi,
    // rsi, rdx, r10 and r8; rcx and r11 are overwritten. What the call does is the caller's business.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    if (-4095..0).contains(&result) { Err(Errno::from_raw_os_error(-result as i32)) } else { Ok(result as usize) }
}

/// For calls of the C library, made by the agent when nobody shares its memory.
fn check(result: libc::c_long) -> Result<libc::c_long> {
    if result >= 0 { Ok(result) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A stack for a process that shares this memory.
#[repr(align(64))]
struct Stack(std::cell::UnsafeCell<[u8; STACK]>);

const STACK: usize = 64 << 10;

// SAFETY: the agent has one thread and runs one command at a time, so each stack has one user: the
// init of that command, and the process that becomes its program.
unsafe impl Sync for Stack {}

static INIT_STACK: Stack = Stack(std::cell::UnsafeCell::new([0; STACK]));
static PROGRAM_STACK: Stack = Stack(std::cell::UnsafeCell::new([0; STACK]));

impl Stack {
    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the array, aligned to 64 bytes; a stack grows down from there.
        unsafe { self.0.get().cast::<u8>().add(STACK).cast() }
    }
}

extern "C" fn enter<F: Fn() -> i32>(body: *mut c_void) -> libc::c_int {
    // SAFETY: `body` is the pointer that `Process::start` or `vfork` handed to clone; both see to it
    // that what it points to outlives this process.
    let body = unsafe { &*body.cast::<F>() };
    exit_now(body())
}

/// How a process comes by its memory.
pub enum Memory<'fd> {
    /// It shares the agent's: nothing is copied, which is most of what a fork costs.
    Shared,
    /// It gets a copy, and is born inside a cgroup. Where the kernel ends a whole group when memory
    /// runs out, it ends whoever shares memory with the group, too; that must not be the agent.
    Copied(BorrowedFd<'fd>),
}

/// A child, perhaps in new namespaces. Dropping it kills it and waits for it.
pub struct Process<'a> {
    pid: i32,
    pidfd: OwnedFd,
    reaped: bool,
    // The child may run on what `body` borrows for as long as it lives.
    _body: PhantomData<&'a ()>,
}

/// clone3(2); the constant of the same name in libc does not fit its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl<'a> Process<'a> {
    /// Runs `body` in a new process; what it returns becomes the exit status.
    pub fn start<F: Fn() -> i32>(body: &'a F, namespaces: libc::c_int, memory: Memory) -> Result<Self> {
        let (pid, pidfd) = match memory {
            Memory::Shared => share(body, namespaces)?,
            Memory::Copied(cgroup) => copy(body, namespaces, cgroup)?,
        };
        // SAFETY: the call succeeded, so the kernel has made a new descriptor that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self { pid, pidfd, reaped: false, _body: PhantomData })
    }

    /// Readable when the process has ended.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn kill(&self) {
        // It can only have ended already, which is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
    }

    pub fn wait(&mut self) -> Result<Waited> {
        let waited = wait(self.pid)?;
        self.reaped = true;
        Ok(waited)
    }
}

impl Drop for Process<'_> {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // Only after this is nobody left who uses what the body borrows.
            let _ = self.wait();
        }
    }
}

fn share<F: Fn() -> i32>(body: &F, namespaces: libc::c_int) -> Result<(i32, libc::c_int)> {
    let mut pidfd: libc::c_int = -1;
    let flags = namespaces | libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    let arg = ptr::from_ref(body).cast_mut().cast();
    // SAFETY: `enter` matches the type behind `arg`, which lives until the process is waited for. The
    // stack is the init's own, and the one before it is dead. Without CLONE_VFORK both sides run at
    // once, so the child's code neither allocates nor uses errno; this file's head says so.
    let pid = unsafe { libc::clone(enter::<F>, INIT_STACK.top(), flags, arg, &raw mut pidfd) };
    Ok((check(pid.into())? as i32, pidfd))
}

fn copy<F: Fn() -> i32>(body: &F, namespaces: libc::c_int, cgroup: BorrowedFd) -> Result<(i32, libc::c_int)> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all-zero is the documented empty state of this plain struct.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces as u64 | libc::CLONE_PIDFD as u64 | CLONE_INTO_CGROUP;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: no CLONE_VM and no stack are given, so the child continues on its own copy of this
    // stack. The agent has one thread, so no lock can be held by a thread that the child lacks.
    // `pidfd` outlives the call, and the kernel writes it only in the parent.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        exit_now(body());
    }
    Ok((pid as i32, pidfd))
}

/// Runs `body` in a child that shares this memory while the caller is suspended, until the child
/// executes a program or exits. `body` returns only if it failed; its value becomes the exit status.
pub fn vfork<F: Fn() -> i32>(body: &F) -> Result<i32> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let arg = ptr::from_ref(body).cast_mut().cast();
    // SAFETY: `enter` matches the type behind `arg`, and CLONE_VFORK keeps this frame alive for as long
    // as the child uses it. Its stack has no other user: the program before it was executed long ago.
    let pid = unsafe { libc::clone(enter::<F>, PROGRAM_STACK.top(), flags, arg) };
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
    let args = [path.as_ptr() as usize, argv.pointers.as_ptr() as usize, env.pointers.as_ptr() as usize, 0, 0];
    // SAFETY: three valid NUL-terminated arguments; both lists end with a null pointer.
    match unsafe { raw(libc::SYS_execve, args) } {
        Err(errno) => errno,
        Ok(_) => Errno::IO,
    }
}

/// Bytes that are read once, piece by piece.
pub struct Once<'a> {
    start: *mut u8,
    length: usize,
    _bytes: PhantomData<&'a mut [u8]>,
}

/// What is read and given back at a time.
const GIVE_BACK: usize = 256 << 10;

const PAGE: usize = 4096;

impl<'a> Once<'a> {
    pub fn new(bytes: &'a mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr(), length: bytes.len(), _bytes: PhantomData }
    }

    /// How much memory comes back at most.
    pub fn whole_pages(&self) -> usize {
        self.length / PAGE * PAGE
    }

    /// Hands over everything; `take` says how much of a piece it has taken. With `give_back`, what has been
    /// taken is no longer in memory: it becomes zeros.
    pub fn read<E>(
        &self,
        give_back: bool,
        mut take: impl FnMut(&[u8]) -> std::result::Result<usize, E>,
    ) -> std::result::Result<(), E> {
        let (mut done, mut given) = (0, self.start.addr().next_multiple_of(PAGE) - self.start.addr());
        while done < self.length {
            let piece = (self.length - done).min(if give_back { GIVE_BACK } else { usize::MAX });
            // SAFETY: within the bytes that this value has to itself; the piece is gone before anything of
            // it changes below.
            done += take(unsafe { std::slice::from_raw_parts(self.start.add(done), piece) })?;
            let pages = done.saturating_sub(given) / PAGE * PAGE;
            if give_back && pages > 0 {
                let args = [self.start.addr() + given, pages, libc::MADV_DONTNEED as usize, 0, 0];
                // SAFETY: whole pages inside those bytes, which nobody refers to. They read as zeros from here on.
                // The kernel can only refuse, and then they stay.
                let _ = unsafe { raw(libc::SYS_madvise, args) };
                given += pages;
            }
        }
        Ok(())
    }
}

/// Large buffers go back to the kernel when they are freed. By default the C library keeps more and more
/// of them.
pub fn keep_no_freed_memory() {
    const LARGE: libc::c_int = 256 << 10;
    // SAFETY: plain numbers; a C library that cannot do this ignores it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
    }
}

pub fn exit_now(status: i32) -> ! {
    // SAFETY: always sound; skips exit handlers, which belong to the agent.
    unsafe { libc::_exit(status) }
}

/// Closes every descriptor from 3 on but these, which are sorted here.
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
    // SAFETY: closes descriptors of a process whose table is its own copy; their owners are never
    // dropped in it, because it ends by exec or exit.
    unsafe { raw(libc::SYS_close_range, [first as usize, last as usize, 0, 0, 0]) }.map(drop)
}

/// Makes `to`, one of 0, 1 and 2, the same open file as `from`, kept across exec.
pub fn dup_onto(from: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: plain numbers of a process that is about to execute; nobody owns its 0, 1 and 2.
    unsafe { raw(libc::SYS_dup2, [from as usize, to as usize, 0, 0, 0]) }.map(drop)
}

/// Size of the kernel's signal set.
const SIGNAL_SET: usize = 8;

/// Whatever this process inherited: every signal gets its default action, and none is blocked. Both
/// would survive exec. Only SIGPIPE stays ignored: the agent writes to pipes that jobs close.
pub fn reset_signals() -> Result<()> {
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGPIPE].contains(signal)) {
        default_action(signal)?;
    }
    let none = 0u64;
    let args = [libc::SIG_SETMASK as usize, &raw const none as usize, 0, SIGNAL_SET, 0];
    // SAFETY: an empty set of the size given; the old one is not asked for.
    unsafe { raw(libc::SYS_rt_sigprocmask, args) }.map(drop)
}

/// By the kernel's own struct: the C library keeps two real-time signals to itself.
pub fn default_action(signal: i32) -> Result<()> {
    let default = [0u64; 4];
    let args = [signal as usize, default.as_ptr() as usize, 0, SIGNAL_SET, 0];
    // SAFETY: all-zero is the default action with no flags; the old one is not asked for.
    unsafe { raw(libc::SYS_rt_sigaction, args) }.map(drop)
}

/// One instruction of classic BPF.
pub type Instruction = libc::sock_filter;

/// A filter as it came over the wire.
pub fn program(filter: &[(u16, u8, u8, u32)]) -> Vec<Instruction> {
    filter.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect()
}

/// Binds the filter to this process and all that come from it.
pub fn install_seccomp(filter: &[Instruction]) -> Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let args = [libc::SECCOMP_SET_MODE_FILTER as usize, 0, &raw const program as usize, 0, 0];
    // SAFETY: `program` points to `len` instructions; the kernel copies and verifies them.
    unsafe { raw(libc::SYS_seccomp, args) }.map(drop)
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
        let _ = raw(libc::SYS_setfsgid, [gid as usize, 0, 0, 0, 0]);
        let _ = raw(libc::SYS_setfsuid, [uid as usize, 0, 0, 0, 0]);
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
pub fn wait(pid: i32) -> Result<Waited> {
    wait4(pid, 0)
}

/// A child that has ended, if there is one. Without any child at all it says so as an error.
pub fn ended_child() -> Result<Option<Waited>> {
    wait4(-1, libc::WNOHANG).map(|waited| Some(waited).filter(|waited| waited.pid != 0))
}

fn wait4(pid: i32, options: i32) -> Result<Waited> {
    let mut status = 0i32;
    // SAFETY: all-zero is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let args = [pid as usize, &raw mut status as usize, options as usize, &raw mut usage as usize, 0];
    loop {
        // SAFETY: both out-pointers are valid for the call.
        match unsafe { raw(libc::SYS_wait4, args) } {
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

/// Sends a signal to every other process of this pid namespace (0: to nobody, it only asks). False: there
/// is no other. Nothing can be born meanwhile and be missed: the kernel signals them all under the lock
/// that a fork needs, and a fork that is about to get a signal begins again.
pub fn signal_all_others(signal: i32) -> Result<bool> {
    // Whoever is not the first of its namespace would reach its ancestors, on a host everybody.
    if !rustix::process::getpid().is_init() {
        return Err(Errno::PERM);
    }
    // SAFETY: plain numbers; the first process of a namespace is spared, and nobody else comes here.
    match unsafe { raw(libc::SYS_kill, [-1isize as usize, signal as usize, 0, 0, 0]) } {
        Ok(_) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A record that the agent and its children both see, copied memory or not.
pub struct Shared<T: 'static>(&'static T);

impl<T: Sync + Default> Shared<T> {
    pub fn new() -> Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping, large enough and page aligned; never unmapped.
        let at = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(last_errno());
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

/// How many System V objects this IPC namespace holds: shared memory, semaphores, message queues.
pub fn ipc_objects() -> Result<u64> {
    /// shmctl(2); the libc crate lacks it.
    const SHM_INFO: libc::c_int = 14;
    // For all three structs that the kernel fills; the largest has 48 bytes.
    let mut info = [0i32; 32];
    let buffer = info.as_mut_ptr() as usize;
    let mut objects = 0;
    // Where in its struct each call leaves the number of objects: used_ids, semusz and msgpool.
    for (number, args, place) in [
        (libc::SYS_shmctl, [0, SHM_INFO as usize, buffer, 0, 0], 0),
        (libc::SYS_semctl, [0, 0, libc::SEM_INFO as usize, buffer, 0], 7),
        (libc::SYS_msgctl, [0, libc::MSG_INFO as usize, buffer, 0, 0], 0),
    ] {
        // SAFETY: each call writes one struct into the buffer, which is large enough and outlives it.
        unsafe { raw(number, args) }?;
        objects += u64::from(info[place].unsigned_abs());
    }
    Ok(objects)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_once_arrives_whole_and_leaves_memory() {
        for length in [0, 1, PAGE - 1, 3 * PAGE + 17, 2 * GIVE_BACK + 5] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251 + 1) as u8).collect();
            // One page before and behind, which belong to others.
            let mut around = [vec![7; PAGE], bytes.clone(), vec![7; PAGE]].concat();
            let mut got = Vec::new();
            let once = Once::new(&mut around[PAGE..PAGE + length]);
            let read = once.read(true, |piece| {
                let taken = piece.len().min(10_000);
                got.extend_from_slice(&piece[..taken]);
                Ok::<_, Errno>(taken)
            });
            assert!(read.is_ok() && got == bytes, "{length}");
            assert!(around[..PAGE].iter().chain(&around[PAGE + length..]).all(|byte| *byte == 7), "{length}");
            let left = around[PAGE..PAGE + length].iter().filter(|byte| **byte != 0).count();
            assert!(left < 2 * PAGE, "{left} of {length}");
        }
    }
}
