//! Verdicts as Judge0's statuses, with the exit data and the message that go with each.

use gavel_core::facts::SIGXFSZ;
use gavel_core::{Outcome, Status as JobStatus, Verdict};
use gavel_store::JobRecord;
use serde::Serialize;
use utoipa::ToSchema;

/// A status by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Status(pub u8);

pub const IN_QUEUE: Status = Status(1);
pub const PROCESSING: Status = Status(2);
pub const ACCEPTED: Status = Status(3);
pub const WRONG_ANSWER: Status = Status(4);
pub const TIME_LIMIT: Status = Status(5);
pub const COMPILATION_ERROR: Status = Status(6);
pub const SIGSEGV: Status = Status(7);
pub const FILE_SIZE: Status = Status(8);
pub const SIGFPE: Status = Status(9);
pub const SIGABRT: Status = Status(10);
pub const NZEC: Status = Status(11);
pub const OTHER_SIGNAL: Status = Status(12);
pub const INTERNAL_ERROR: Status = Status(13);

const DESCRIPTIONS: [&str; 14] = [
    "In Queue",
    "Processing",
    "Accepted",
    "Wrong Answer",
    "Time Limit Exceeded",
    "Compilation Error",
    "Runtime Error (SIGSEGV)",
    "Runtime Error (SIGXFSZ)",
    "Runtime Error (SIGFPE)",
    "Runtime Error (SIGABRT)",
    "Runtime Error (NZEC)",
    "Runtime Error (Other)",
    "Internal Error",
    "Exec Format Error",
];

/// A status as it is answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Judge0Status)]
pub struct Shown {
    pub id: u8,
    pub description: &'static str,
}

impl Status {
    pub fn all() -> impl Iterator<Item = Self> {
        (1..).take(DESCRIPTIONS.len()).map(Self)
    }

    pub fn description(self) -> &'static str {
        DESCRIPTIONS[usize::from(self.0) - 1]
    }

    pub fn shown(self) -> Shown {
        Shown { id: self.0, description: self.description() }
    }

    /// What a program that this signal ended is shown as.
    fn of_signal(signal: i32) -> Self {
        match signal {
            11 => SIGSEGV,
            SIGXFSZ => FILE_SIZE,
            8 => SIGFPE,
            6 => SIGABRT,
            _ => OTHER_SIGNAL,
        }
    }
}

/// How a submission stands, in Judge0's words.
#[derive(Debug, PartialEq)]
pub struct Ending<'a> {
    pub status: Status,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    pub message: Option<String>,
    /// Only where the program was run: then it has times and output.
    pub run: Option<&'a Outcome>,
    pub compile_output: &'a [u8],
}

/// The status of counted jobs that have this much in common.
pub fn of_kind(pending: bool, verdict: Option<Verdict>, signal: Option<i32>, as_exit_codes: bool) -> Status {
    match verdict {
        _ if pending => IN_QUEUE,
        None => INTERNAL_ERROR,
        Some(Verdict::Accepted) => ACCEPTED,
        Some(Verdict::WrongAnswer) => WRONG_ANSWER,
        Some(Verdict::CompileError) => COMPILATION_ERROR,
        Some(Verdict::TimeLimitExceeded) => TIME_LIMIT,
        Some(Verdict::MemoryLimitExceeded) => NZEC,
        Some(Verdict::OutputLimitExceeded | Verdict::RuntimeError) if as_exit_codes => NZEC,
        Some(Verdict::OutputLimitExceeded) => FILE_SIZE,
        Some(Verdict::RuntimeError) => signal.map_or(NZEC, Status::of_signal),
    }
}

const COMPILE_TIMEOUT: &[u8] = b"Compilation time limit exceeded.";

pub fn ending(record: &JobRecord, signals_as_exit_codes: bool) -> Ending<'_> {
    let plain = |status, message: Option<String>| Ending {
        status,
        exit_code: None,
        exit_signal: None,
        message,
        run: None,
        compile_output: &[],
    };
    match (record.status, record.outcome.as_deref()) {
        (JobStatus::Pending, _) => plain(IN_QUEUE, None),
        (JobStatus::Running, _) => plain(PROCESSING, None),
        (JobStatus::Cancelled, _) => plain(INTERNAL_ERROR, Some("The submission was cancelled.".to_owned())),
        (JobStatus::Completed, Some(outcome)) => ended(outcome, signals_as_exit_codes),
        (JobStatus::Failed | JobStatus::Completed, _) => plain(INTERNAL_ERROR, record.error_message.clone()),
    }
}

/// What the compiler wrote; where it was stopped before it wrote anything, why.
fn compiler_says(outcome: &Outcome) -> &[u8] {
    let exceeded = |used: &str, limit: &str| matches!((outcome.evidence.get(used), outcome.evidence.get(limit)), (Some(used), Some(limit)) if used >= limit);
    if exceeded("cpu_time_ms", "cpu_time_limit_ms") || exceeded("wall_time_ms", "wall_time_limit_ms") {
        return COMPILE_TIMEOUT;
    }
    if outcome.compile_output.is_empty() { outcome.reason.as_bytes() } else { &outcome.compile_output }
}

fn ended(outcome: &Outcome, signals_as_exit_codes: bool) -> Ending<'_> {
    let ending = |status, exit_code, exit_signal, message| Ending {
        status,
        exit_code: Some(exit_code),
        exit_signal,
        message,
        run: Some(outcome),
        compile_output: &outcome.compile_output,
    };
    let exited = |code: i32, why: Option<&str>| {
        let why = why.filter(|_| !signals_as_exit_codes).map(|why| format!(": {why}")).unwrap_or_default();
        ending(NZEC, code, None, Some(format!("Exited with error status {code}{why}")))
    };
    let killed = |signal: i32, why: Option<&str>| {
        if signals_as_exit_codes {
            return exited(128 + signal, None);
        }
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        ending(Status::of_signal(signal), 0, Some(signal), Some(format!("Caught fatal signal {signal}{why}")))
    };
    match outcome.verdict {
        Verdict::Accepted => ending(ACCEPTED, 0, None, None),
        Verdict::WrongAnswer => ending(WRONG_ANSWER, 0, None, None),
        Verdict::TimeLimitExceeded => ending(TIME_LIMIT, 0, None, Some(time_message(outcome).to_owned())),
        // The shell that starts programs in Judge0 says 137 of one that the kernel killed, and clients that
        // want to know of memory look for that number.
        Verdict::MemoryLimitExceeded => {
            let code = outcome.exit_code.filter(|code| *code != 0).unwrap_or(137);
            exited(code, Some(&format!("memory limit exceeded, {}", outcome.reason)))
        }
        Verdict::OutputLimitExceeded => killed(SIGXFSZ, Some(&outcome.reason)),
        Verdict::RuntimeError => match (outcome.signal, outcome.exit_code) {
            (Some(signal), _) => killed(signal, None),
            (None, code) => exited(code.unwrap_or(1), None),
        },
        // The program was never run.
        Verdict::CompileError => Ending {
            status: COMPILATION_ERROR,
            exit_code: None,
            exit_signal: None,
            message: None,
            run: None,
            compile_output: compiler_says(outcome),
        },
    }
}

/// Which clock ran out.
fn time_message(outcome: &Outcome) -> &'static str {
    let number = |name: &str| outcome.evidence.get(name).copied().unwrap_or(0.0);
    if number("cpu_time_ms") >= number("cpu_time_limit_ms") {
        "Time limit exceeded"
    } else {
        "Time limit exceeded (wall clock)"
    }
}
