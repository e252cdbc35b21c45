//! The unsafe corner of the native backend.

#![allow(unsafe_code)]

use rustix::io::{Errno, Result};

/// Is there a process with this id?
pub fn process_exists(pid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || Errno::from_io_error(&std::io::Error::last_os_error()) == Some(Errno::PERM)
}

/// Does the kernel know seccomp filters? Asks with a null program, which a kernel that knows them
/// answers with "bad address".
pub fn seccomp_works() -> Result<()> {
    // SAFETY: the null pointer is never dereferenced by us; the kernel checks it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::null::<libc::sock_fprog>())
    };
    match Errno::from_io_error(&std::io::Error::last_os_error()) {
        Some(Errno::FAULT) => Ok(()),
        _ if result == 0 => Ok(()),
        Some(e) => Err(e),
        None => Err(Errno::NOSYS),
    }
}
