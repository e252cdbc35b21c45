//! The run step: the program, as often as the job asks, each time in a fresh place.

use super::compile::Program;
use super::{Judged, OnOutput, environment};
use gavel_core::facts::Exit;
use gavel_core::language::Scratch;
use gavel_core::verdict::{Finding, classify, evidence};
use gavel_core::{Bytes, Facts, Job, Language, Outcome, Stop, Verdict};
use gavel_sandbox::{Cancel, Collect, Command, Fault, InputFile, Live, OnOutputLimit, Sandbox, Stream as Pipe};
use gavel_store::Stream;
use std::time::Duration;

const MAX_COLLECTED_FILES: u32 = 256;
const MAX_COLLECTED: Bytes = Bytes::mib(16);

/// What is there to be run.
pub struct Ready<'a> {
    pub files: Vec<InputFile<'a>>,
    /// Absent where nothing was compiled.
    pub program: Option<&'a Program>,
}

/// Runs the program until one run ends badly or all are done.
pub fn run(
    sandbox: &mut dyn Sandbox,
    language: &Language,
    job: &Job,
    Ready { files, program }: Ready,
    live: Option<Live>,
    cancel: &Cancel,
    on_output: OnOutput,
) -> Result<Judged, Fault> {
    let command = command(language, job, files, live);
    let (mut cpu, mut wall, mut peak) = (Duration::ZERO, Duration::ZERO, Bytes(0));
    let mut done = 0;
    loop {
        // Listeners see the first run; the others say the same.
        let facts = sandbox.run(&command, cancel, &mut |pipe, bytes| {
            if done == 0 {
                on_output(stream(pipe), bytes);
            }
        })?;
        if facts.stopped == Some(Stop::Cancelled) {
            return Ok(Judged::Cancelled);
        }
        done += 1;
        (cpu, wall, peak) = (cpu + facts.cpu, wall + facts.wall, peak.max(facts.peak_memory));
        let finding = classify(&job.limits, &facts, &language.oom_markers).or_else(|| compare(job, &facts));
        if finding.is_some() || done == job.runs {
            let finding = finding.unwrap_or_else(|| accepted(job));
            let mut outcome = outcome(job, finding, facts, program);
            (outcome.cpu, outcome.wall, outcome.memory) = (cpu / done, wall / done, peak);
            return Ok(Judged::Outcome(Box::new(outcome)));
        }
    }
}

fn command<'a>(language: &'a Language, job: &'a Job, files: Vec<InputFile<'a>>, live: Option<Live<'a>>) -> Command<'a> {
    Command {
        image: language.image.as_deref(),
        root: language.rootfs.as_deref(),
        argv: language.run_argv(&job.args, &job.limits),
        env: environment(language, Some(job)),
        stdin: &job.stdin,
        live,
        files,
        limits: job.limits.clone(),
        scratch: Scratch::for_run(&job.limits),
        stderr_to_stdout: job.stderr_to_stdout,
        network: job.network,
        on_output_limit: OnOutputLimit::Stop,
        collect: Collect { patterns: job.collect.clone(), max_files: MAX_COLLECTED_FILES, max_total: MAX_COLLECTED },
    }
}

fn stream(pipe: Pipe) -> Stream {
    match pipe {
        Pipe::Stdout => Stream::Stdout,
        Pipe::Stderr => Stream::Stderr,
    }
}

fn accepted(job: &Job) -> Finding {
    let reason = if job.expected_output.is_some() { "the output is as expected" } else { "ran and exited with code 0" };
    Finding::new(Verdict::Accepted, reason)
}

fn compare(job: &Job, facts: &Facts) -> Option<Finding> {
    let expected = job.expected_output.as_ref()?;
    let difference = job.comparison.first_difference(&facts.stdout, expected)?;
    let line = difference.line;
    let reason = match (difference.got, difference.expected) {
        (Some(got), Some(want)) => format!("line {line} is {}, expected {}", quote(got), quote(want)),
        (None, Some(want)) => format!("line {line} is missing, expected {}", quote(want)),
        (Some(got), None) => format!("line {line} is {}, expected no more output", quote(got)),
        (None, None) => return None,
    };
    Some(Finding::new(Verdict::WrongAnswer, reason))
}

/// A line for a sentence: short, and readable whatever its bytes are.
fn quote(line: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)]);
    let shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < line.len() { format!("{shown:?}...") } else { format!("{shown:?}") }
}

fn outcome(job: &Job, finding: Finding, facts: Facts, program: Option<&Program>) -> Outcome {
    let evidence = evidence(&job.limits, &facts);
    let (exit_code, signal) = match facts.exit {
        Exit::Code(code) => (Some(code), None),
        Exit::Signal(signal) => (None, Some(signal)),
    };
    Outcome {
        verdict: finding.verdict,
        reason: finding.reason,
        evidence,
        stdout: facts.stdout,
        stderr: facts.stderr,
        compile_output: program.map(|program| program.entry.output.clone()).unwrap_or_default(),
        stdout_truncated: facts.stdout_truncated,
        stderr_truncated: facts.stderr_truncated,
        files: facts.files,
        exit_code,
        signal,
        cpu: facts.cpu,
        wall: facts.wall,
        memory: facts.peak_memory,
        compile_time: program.map(|program| program.compile_time).unwrap_or_default(),
        compile_cached: program.is_some_and(|program| program.cached),
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quoted_lines_are_short_and_say_when_they_are_cut() {
        assert_eq!(quote(b"7"), "\"7\"");
        assert_eq!(quote(b"\xff\t"), "\"\u{fffd}\\t\"");
        assert!(quote(&[b'x'; 1000]).len() < 80);
    }
}
