//! What happened to one command. A backend reports facts; it never judges.

use crate::units::Bytes;
use std::time::Duration;

/// How the main process ended, as the kernel says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

/// Why *we* stopped the command. Recorded by the supervisor when it acts, never guessed from an
/// exit status: a program may kill itself with any signal it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    CpuTime,
    WallTime,
    Output,
    /// An interactive command had neither input nor output for so long.
    Idle(Duration),
    Cancelled,
}

/// A file that was collected from the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedFile {
    pub path: String,
    pub executable: bool,
    pub content: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub exit: Exit,
    pub stopped: Option<Stop>,
    /// CPU time of every process of the command.
    pub cpu: Duration,
    pub wall: Duration,
    /// Highest memory use of all processes together.
    pub peak_memory: Bytes,
    /// Processes of the command that the kernel killed because the memory limit was reached.
    pub oom_kills: u64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// More was written than was kept.
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    pub files: Vec<CollectedFile>,
    /// Files that matched but were left out, with the reason.
    pub files_left_out: Vec<String>,
}

/// The name of a signal, as people know it.
pub fn signal_name(signal: i32) -> String {
    // Numbers of x86-64 and arm64 Linux, signal(7).
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        16 => "SIGSTKFLT",
        17 => "SIGCHLD",
        18 => "SIGCONT",
        19 => "SIGSTOP",
        20 => "SIGTSTP",
        21 => "SIGTTIN",
        22 => "SIGTTOU",
        23 => "SIGURG",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        26 => "SIGVTALRM",
        27 => "SIGPROF",
        28 => "SIGWINCH",
        29 => "SIGIO",
        30 => "SIGPWR",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

pub const SIGXCPU: i32 = 24;
pub const SIGXFSZ: i32 = 25;
pub const SIGSYS: i32 = 31;
