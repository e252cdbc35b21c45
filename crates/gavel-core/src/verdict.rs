//! What the facts mean: one total, pure function, and the order in which it decides.

use crate::facts::{Exit, Facts, SIGSYS, SIGXFSZ, Stop, signal_name};
use crate::limits::Limits;
use crate::units::thousands;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    Accepted,
    WrongAnswer,
    CompileError,
    RuntimeError,
    TimeLimitExceeded,
    MemoryLimitExceeded,
    OutputLimitExceeded,
}

impl Verdict {
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::WrongAnswer,
        Self::CompileError,
        Self::RuntimeError,
        Self::TimeLimitExceeded,
        Self::MemoryLimitExceeded,
        Self::OutputLimitExceeded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::WrongAnswer => "wrong_answer",
            Self::CompileError => "compile_error",
            Self::RuntimeError => "runtime_error",
            Self::TimeLimitExceeded => "time_limit_exceeded",
            Self::MemoryLimitExceeded => "memory_limit_exceeded",
            Self::OutputLimitExceeded => "output_limit_exceeded",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|v| v.as_str()).collect();
            format!("unknown verdict {text:?}: use one of {}", all.join(", "))
        })
    }
}

/// The numbers behind a verdict, by name; the unit is the end of the name.
pub type Evidence = BTreeMap<String, f64>;

/// A verdict with its reason in one English sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub verdict: Verdict,
    pub reason: String,
}

impl Finding {
    pub fn new(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into() }
    }
}

/// Part of the memory limit that must have been in use before the runtime's own report of a failed
/// allocation counts as the memory limit: a small program can also fail to allocate for other reasons.
/// Runtimes with a heap limit of their own get three quarters of the memory limit for it, and report
/// at 75 to 80 % of the limit (measured with OpenJDK 17 and Node.js 20).
const ALLOCATION_FAILURE_SHARE: f64 = 0.7;

/// Judges the run of a program. `None`: it ended well, and only its output is left to judge.
///
/// The order is part of the contract: output limit, memory limit, time limits, then how it ended.
/// A limit is a matter of what was counted or done by the supervisor, never of the exit status alone.
pub fn classify(limits: &Limits, facts: &Facts, oom_markers: &[String]) -> Option<Finding> {
    if facts.stopped == Some(Stop::Output) || facts.stdout_truncated || facts.stderr_truncated {
        let stream = if facts.stdout_truncated { "stdout" } else { "stderr" };
        return Some(Finding::new(
            Verdict::OutputLimitExceeded,
            format!("wrote more than {} to {stream}", limits.output),
        ));
    }
    if facts.exit == Exit::Signal(SIGXFSZ) {
        return Some(Finding::new(
            Verdict::OutputLimitExceeded,
            format!("wrote a file larger than {}", limits.file_size),
        ));
    }
    if let Some(finding) = memory_finding(limits, facts, oom_markers) {
        return Some(finding);
    }
    if facts.stopped == Some(Stop::CpuTime) || facts.cpu > limits.cpu_time {
        return Some(Finding::new(
            Verdict::TimeLimitExceeded,
            format!("CPU time {} over the limit of {}", seconds(facts.cpu), seconds(limits.cpu_time)),
        ));
    }
    if facts.stopped == Some(Stop::WallTime) || facts.wall > limits.wall_time {
        return Some(Finding::new(
            Verdict::TimeLimitExceeded,
            format!(
                "still running after {} (wall time limit; CPU time used {})",
                seconds(limits.wall_time),
                seconds(facts.cpu)
            ),
        ));
    }
    if let Some(Stop::Idle(limit)) = facts.stopped {
        return Some(Finding::new(
            Verdict::TimeLimitExceeded,
            format!("neither read nor wrote anything for {} (idle limit of interactive jobs)", seconds(limit)),
        ));
    }
    match facts.exit {
        Exit::Signal(SIGSYS) => Some(Finding::new(
            Verdict::RuntimeError,
            "killed by SIGSYS: it made a system call of a foreign architecture",
        )),
        Exit::Signal(signal) => Some(Finding::new(Verdict::RuntimeError, format!("killed by {}", signal_name(signal)))),
        Exit::Code(0) => None,
        Exit::Code(code) => Some(Finding::new(Verdict::RuntimeError, format!("exited with code {code}"))),
    }
}

fn memory_finding(limits: &Limits, facts: &Facts, oom_markers: &[String]) -> Option<Finding> {
    let (used, limit) = (facts.peak_memory.as_kib(), limits.memory.as_kib());
    if facts.oom_kills > 0 {
        return Some(Finding::new(
            Verdict::MemoryLimitExceeded,
            format!("used {} KiB of {} KiB and was stopped by the kernel", thousands(used), thousands(limit)),
        ));
    }
    let near_the_limit = facts.peak_memory.0 as f64 >= limits.memory.0 as f64 * ALLOCATION_FAILURE_SHARE;
    let failed = facts.exit != Exit::Code(0);
    if failed && near_the_limit && reports_failed_allocation(&facts.stderr, oom_markers) {
        return Some(Finding::new(
            Verdict::MemoryLimitExceeded,
            format!("used {} KiB of {} KiB and could not allocate more", thousands(used), thousands(limit)),
        ));
    }
    None
}

fn reports_failed_allocation(stderr: &[u8], markers: &[String]) -> bool {
    markers.iter().any(|marker| !marker.is_empty() && stderr.windows(marker.len()).any(|w| w == marker.as_bytes()))
}

/// Judges a compile command; `None`: it worked. Whatever limit the compiler hits, the job's answer
/// is the compiler's: compile_error.
pub fn classify_compile(limits: &Limits, facts: &Facts) -> Option<Finding> {
    let fail = |reason: String| Some(Finding::new(Verdict::CompileError, reason));
    if facts.oom_kills > 0 {
        return fail(format!("the compiler used more than {}", limits.memory));
    }
    match facts.stopped {
        Some(Stop::CpuTime) => {
            return fail(format!("the compiler used more than {} of CPU time", seconds(limits.cpu_time)));
        }
        Some(Stop::WallTime) => {
            return fail(format!("the compiler was still running after {}", seconds(limits.wall_time)));
        }
        _ => {}
    }
    match facts.exit {
        Exit::Code(0) => None,
        Exit::Signal(SIGXFSZ) => fail(format!("the compiler wrote a file larger than {}", limits.file_size)),
        Exit::Signal(signal) => fail(format!("the compiler was killed by {}", signal_name(signal))),
        Exit::Code(code) => fail(format!("the compiler exited with code {code}")),
    }
}

/// The numbers that a reader needs to believe the verdict.
pub fn evidence(limits: &Limits, facts: &Facts) -> Evidence {
    // Rounded to microseconds, as the times beside it are.
    let ms = |d: Duration| ((d.as_nanos() + 500) / 1000) as f64 / 1e3;
    let (how, number) = match facts.exit {
        Exit::Code(code) => ("exit_code", code),
        Exit::Signal(signal) => ("signal", signal),
    };
    [
        ("cpu_time_ms", ms(facts.cpu)),
        ("cpu_time_limit_ms", ms(limits.cpu_time)),
        ("wall_time_ms", ms(facts.wall)),
        ("wall_time_limit_ms", ms(limits.wall_time)),
        ("memory_kb", facts.peak_memory.as_kib() as f64),
        ("memory_limit_kb", limits.memory.as_kib() as f64),
        ("oom_kills", facts.oom_kills as f64),
        ("stdout_bytes", facts.stdout.len() as f64),
        ("stderr_bytes", facts.stderr.len() as f64),
        ("output_limit_kb", limits.output.as_kib() as f64),
        (how, f64::from(number)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

fn seconds(d: Duration) -> String {
    let text = format!("{:.3}", d.as_secs_f64());
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} s")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn well() -> Facts {
        Facts {
            exit: Exit::Code(0),
            stopped: None,
            cpu: Duration::from_millis(10),
            wall: Duration::from_millis(12),
            peak_memory: Bytes::mib(2),
            oom_kills: 0,
            stdout: vec![],
            stderr: vec![],
            stdout_truncated: false,
            stderr_truncated: false,
            files: vec![],
            files_left_out: vec![],
        }
    }

    fn verdict(change: impl FnOnce(&mut Facts)) -> (Option<Verdict>, String) {
        let mut facts = well();
        change(&mut facts);
        match classify(&Limits::standard(), &facts, &["MemoryError".to_owned()]) {
            None => (None, String::new()),
            Some(finding) => (Some(finding.verdict), finding.reason),
        }
    }

    #[test]
    fn each_kind_of_end_has_its_verdict() {
        use Verdict::*;
        type Change = fn(&mut Facts);
        let table: &[(&str, Change, Option<Verdict>)] = &[
            ("a good end", |_| {}, None),
            ("exit code", |f| f.exit = Exit::Code(3), Some(RuntimeError)),
            ("a code that looks like SIGKILL", |f| f.exit = Exit::Code(137), Some(RuntimeError)),
            ("SIGSEGV", |f| f.exit = Exit::Signal(11), Some(RuntimeError)),
            ("SIGKILL by itself", |f| f.exit = Exit::Signal(9), Some(RuntimeError)),
            ("SIGXCPU by itself", |f| f.exit = Exit::Signal(24), Some(RuntimeError)),
            ("SIGXFSZ", |f| f.exit = Exit::Signal(25), Some(OutputLimitExceeded)),
            ("stopped for CPU", |f| f.stopped = Some(Stop::CpuTime), Some(TimeLimitExceeded)),
            ("CPU counted at the end", |f| f.cpu = Duration::from_millis(2001), Some(TimeLimitExceeded)),
            ("stopped for wall", |f| f.stopped = Some(Stop::WallTime), Some(TimeLimitExceeded)),
            ("OOM though it exited 0", |f| f.oom_kills = 1, Some(MemoryLimitExceeded)),
            (
                "OOM beats time",
                |f| {
                    f.oom_kills = 1;
                    f.stopped = Some(Stop::CpuTime)
                },
                Some(MemoryLimitExceeded),
            ),
            (
                "output beats OOM",
                |f| {
                    f.oom_kills = 1;
                    f.stopped = Some(Stop::Output)
                },
                Some(OutputLimitExceeded),
            ),
            (
                "time beats the signal",
                |f| {
                    f.exit = Exit::Signal(9);
                    f.stopped = Some(Stop::WallTime)
                },
                Some(TimeLimitExceeded),
            ),
            ("a high peak alone", |f| f.peak_memory = Bytes::mib(256), None),
            (
                "a high peak and a failure",
                |f| {
                    f.peak_memory = Bytes::mib(256);
                    f.exit = Exit::Code(1)
                },
                Some(RuntimeError),
            ),
            (
                "a reported failed allocation",
                |f| {
                    f.peak_memory = Bytes::mib(250);
                    f.exit = Exit::Code(1);
                    f.stderr = b"x MemoryError y".to_vec()
                },
                Some(MemoryLimitExceeded),
            ),
            (
                "a claim without use",
                |f| {
                    f.exit = Exit::Code(1);
                    f.stderr = b"MemoryError".to_vec()
                },
                Some(RuntimeError),
            ),
            (
                "a claim, but it went well",
                |f| {
                    f.peak_memory = Bytes::mib(250);
                    f.stderr = b"MemoryError".to_vec()
                },
                None,
            ),
        ];
        for (name, change, want) in table {
            assert_eq!(verdict(*change).0, *want, "{name}");
        }
    }

    #[test]
    fn reasons_name_the_numbers() {
        assert_eq!(verdict(|f| f.exit = Exit::Signal(11)).1, "killed by SIGSEGV");
        assert_eq!(verdict(|f| f.exit = Exit::Code(3)).1, "exited with code 3");
        assert_eq!(verdict(|f| f.cpu = Duration::from_millis(2004)).1, "CPU time 2.004 s over the limit of 2 s");
        assert_eq!(
            verdict(|f| {
                f.oom_kills = 1;
                f.peak_memory = Bytes::kib(131_072)
            })
            .1,
            "used 131,072 KiB of 262,144 KiB and was stopped by the kernel"
        );
    }

    #[test]
    fn times_are_rounded_to_microseconds() {
        let cpu = |nanos| {
            let facts = Facts { cpu: Duration::from_nanos(nanos), ..well() };
            evidence(&Limits::standard(), &facts)["cpu_time_ms"]
        };
        assert_eq!((cpu(1_204_499), cpu(1_204_500), cpu(1_999_999)), (1.204, 1.205, 2.0));
    }

    #[test]
    fn the_compilers_limits_are_the_compilers_fault() {
        let limits = Limits::standard_compile();
        let mut facts = well();
        assert_eq!(classify_compile(&limits, &facts), None);
        facts.exit = Exit::Code(1);
        assert_eq!(classify_compile(&limits, &facts).unwrap().verdict, Verdict::CompileError);
        facts.oom_kills = 1;
        assert_eq!(classify_compile(&limits, &facts).unwrap().reason, "the compiler used more than 524,288 KiB");
        facts = well();
        facts.stopped = Some(Stop::CpuTime);
        assert_eq!(classify_compile(&limits, &facts).unwrap().reason, "the compiler used more than 10 s of CPU time");
    }
}
