//! The JSON columns: what a job carries that no query filters by. Unknown members are ignored, so that
//! an older Gavel can read what a newer one wrote.

use gavel_core::check::Comparison;
use gavel_core::job::{Callback, CallbackForm, Interactive, Tty};
use gavel_core::verdict::Evidence;
use gavel_core::{Bytes, Job, Limits};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Serialize, Deserialize)]
pub(super) struct Request<'a> {
    limits: StoredLimits,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    args: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    compiler_options: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: Cow<'a, BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "is_false")]
    stderr_to_stdout: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    network: bool,
    runs: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    interactive: Option<StoredInteractive>,
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    collect: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    callback: Option<StoredCallback<'a>>,
    #[serde(default, skip_serializing_if = "is_false")]
    compare_as_judge0: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: Cow<'a, BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
struct StoredLimits {
    cpu_us: u64,
    wall_us: u64,
    memory: u64,
    stack: u64,
    processes: u32,
    output: u64,
    file_size: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredInteractive {
    /// Rows and columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tty: Option<(u16, u16)>,
}

#[derive(Serialize, Deserialize)]
struct StoredCallback<'a> {
    url: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "is_false")]
    judge0: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl<'a> Request<'a> {
    pub fn of(job: &'a Job) -> Self {
        let limits = &job.limits;
        Self {
            limits: StoredLimits {
                cpu_us: micros(limits.cpu_time),
                wall_us: micros(limits.wall_time),
                memory: limits.memory.0,
                stack: limits.stack.0,
                processes: limits.processes,
                output: limits.output.0,
                file_size: limits.file_size.0,
            },
            args: Cow::Borrowed(&job.args),
            compiler_options: Cow::Borrowed(&job.compiler_options),
            env: Cow::Borrowed(&job.env),
            stderr_to_stdout: job.stderr_to_stdout,
            network: job.network,
            runs: job.runs,
            interactive: job
                .interactive
                .map(|interactive| StoredInteractive { tty: interactive.tty.map(|tty| (tty.rows, tty.cols)) }),
            collect: Cow::Borrowed(&job.collect),
            callback: job.callback.as_ref().map(|callback| StoredCallback {
                url: Cow::Borrowed(&callback.url),
                judge0: callback.form == CallbackForm::Judge0,
            }),
            compare_as_judge0: job.comparison == Comparison::Judge0,
            metadata: Cow::Borrowed(&job.metadata),
        }
    }

    /// Puts the members where they belong in a job.
    pub fn fill(self, job: &mut Job) {
        let limits = self.limits;
        job.limits = Limits {
            cpu_time: Duration::from_micros(limits.cpu_us),
            wall_time: Duration::from_micros(limits.wall_us),
            memory: Bytes(limits.memory),
            stack: Bytes(limits.stack),
            processes: limits.processes,
            output: Bytes(limits.output),
            file_size: Bytes(limits.file_size),
        };
        job.args = self.args.into_owned();
        job.compiler_options = self.compiler_options.into_owned();
        job.env = self.env.into_owned();
        job.stderr_to_stdout = self.stderr_to_stdout;
        job.network = self.network;
        job.runs = self.runs;
        job.interactive =
            self.interactive.map(|stored| Interactive { tty: stored.tty.map(|(rows, cols)| Tty { rows, cols }) });
        job.collect = self.collect.into_owned();
        job.callback = self.callback.map(|stored| Callback {
            url: stored.url.into_owned(),
            form: if stored.judge0 { CallbackForm::Judge0 } else { CallbackForm::Native },
        });
        job.comparison = if self.compare_as_judge0 { Comparison::Judge0 } else { Comparison::Native };
        job.metadata = self.metadata.into_owned();
    }
}

/// JSON has no infinity: a number that is none is left out rather than making the row unreadable.
pub(super) fn evidence_to_json(evidence: &Evidence) -> Result<String, serde_json::Error> {
    let finite: BTreeMap<&str, f64> =
        evidence.iter().filter(|(_, value)| value.is_finite()).map(|(name, value)| (name.as_str(), *value)).collect();
    serde_json::to_string(&finite)
}

pub(super) fn evidence_from_json(text: &str) -> Result<Evidence, serde_json::Error> {
    serde_json::from_str(text)
}
