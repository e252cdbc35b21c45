//! The compile step: once per (toolchain, options, sources), then out of the cache.

use super::{Judged, OnOutput, environment, sent_files};
use crate::cache::{Cache, Entry, Found, Key, Lookup};
use gavel_core::facts::Exit;
use gavel_core::language::{Compile, Scratch};
use gavel_core::verdict::{self, Evidence, Finding};
use gavel_core::{Bytes, CollectedFile, Facts, Job, Language, Outcome, Stop, Verdict};
use gavel_sandbox::{Cancel, Collect, Command, Fault, OnOutputLimit, Sandbox, Stream as Pipe};
use gavel_store::Stream;
use std::sync::Arc;
use std::time::Duration;

/// How much may leave the compile sandbox.
const MAX_FILES: u32 = 2000;
const MAX_TOTAL: Bytes = Bytes::mib(128);
/// The same where the whole directory is kept: it must fit into that of the run, and leave room there.
const MAX_DIRECTORY: Bytes = Bytes::mib(32);

pub enum Built {
    Program(Program),
    Refused(Refusal),
    Cancelled,
}

/// What the run step starts.
pub struct Program {
    pub entry: Arc<Entry>,
    pub compile_time: Duration,
    pub cached: bool,
}

/// The compiler said no.
pub struct Refusal {
    finding: Finding,
    evidence: Evidence,
    output: Vec<u8>,
    compile_time: Duration,
}

impl From<Refusal> for Judged {
    fn from(refusal: Refusal) -> Self {
        Self::Outcome(Box::new(Outcome {
            verdict: refusal.finding.verdict,
            reason: refusal.finding.reason,
            evidence: refusal.evidence,
            stdout: Vec::new(),
            stderr: Vec::new(),
            compile_output: refusal.output,
            stdout_truncated: false,
            stderr_truncated: false,
            files: Vec::new(),
            exit_code: None,
            signal: None,
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            memory: Bytes(0),
            compile_time: refusal.compile_time,
            compile_cached: false,
        }))
    }
}

pub fn build(
    sandbox: &mut dyn Sandbox,
    language: &Language,
    compile: &Compile,
    job: &Job,
    cache: &Cache,
    cancel: &Cancel,
    on_output: OnOutput,
) -> Result<Built, Fault> {
    let argv = compile.argv(&job.compiler_options);
    let key = key(language, compile, &argv, job, cache);
    let lookup = match cache.look_up(&key) {
        Found::Entry(entry) => return Ok(program(entry, Duration::ZERO, true, on_output)),
        Found::Missing(lookup) => lookup,
    };
    let facts = run_compiler(sandbox, language, compile, argv, job, cancel, on_output)?;
    if facts.stopped == Some(Stop::Cancelled) {
        return Ok(Built::Cancelled);
    }
    if let Some(finding) = find_fault(compile, &facts) {
        let evidence = verdict::evidence(&compile.limits, &facts);
        return Ok(Built::Refused(Refusal { finding, evidence, output: facts.stdout, compile_time: facts.cpu }));
    }
    let entry = keep(lookup, facts.stdout, facts.files)?;
    Ok(program(entry, facts.cpu, false, &mut |_, _| {}))
}

fn keep(lookup: Lookup, output: Vec<u8>, files: Vec<CollectedFile>) -> Result<Arc<Entry>, Fault> {
    lookup.store(output, files).map_err(|e| Fault::new("keep the compiled program", e))
}

fn program(entry: Arc<Entry>, compile_time: Duration, cached: bool, on_output: OnOutput) -> Built {
    if cached && !entry.output.is_empty() {
        on_output(Stream::CompileOutput, &entry.output);
    }
    Built::Program(Program { entry, compile_time, cached })
}

/// Everything that can change what comes out, and nothing else.
fn key(language: &Language, compile: &Compile, argv: &[String], job: &Job, cache: &Cache) -> Key {
    let mut key = Key::new();
    key.add(language.id.as_bytes());
    key.add(&cache.toolchain(language));
    key.add_list(argv.iter().map(String::as_bytes));
    key.add_list(compile.artifacts.iter().map(String::as_bytes));
    key.add_list(language.env.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]));
    key.add(language.source_file.as_deref().unwrap_or_default().as_bytes());
    key.add(&job.source);
    key.add_list(job.files.iter().flat_map(|file| [file.path.as_bytes(), &file.content]));
    key
}

fn run_compiler(
    sandbox: &mut dyn Sandbox,
    language: &Language,
    compile: &Compile,
    argv: Vec<String>,
    job: &Job,
    cancel: &Cancel,
    on_output: OnOutput,
) -> Result<Facts, Fault> {
    let max_total = if compile.keeps_everything() { MAX_DIRECTORY } else { MAX_TOTAL };
    let command = Command {
        image: language.image.as_deref(),
        root: language.rootfs.as_deref(),
        argv,
        // The client's variables are for its program; the compiler's work depends on its options only.
        env: environment(language, None),
        stdin: &[],
        live: None,
        files: sent_files(language, job),
        limits: compile.limits.clone(),
        scratch: Scratch::for_compile(),
        stderr_to_stdout: true,
        network: false,
        on_output_limit: OnOutputLimit::Discard,
        collect: Collect { patterns: compile.artifacts.clone(), max_files: MAX_FILES, max_total },
    };
    sandbox.run(&command, cancel, &mut |_: Pipe, bytes| on_output(Stream::CompileOutput, bytes))
}

fn find_fault(compile: &Compile, facts: &Facts) -> Option<Finding> {
    if let Some(finding) = verdict::classify_compile(&compile.limits, facts) {
        return Some(finding);
    }
    debug_assert_eq!(facts.exit, Exit::Code(0));
    if compile.keeps_everything() {
        // A directory with holes would fail later, and nobody would see why.
        let why = facts.files_left_out.first()?;
        return Some(Finding::new(Verdict::CompileError, format!("a file of the compile step cannot be kept: {why}")));
    }
    if facts.files.is_empty() {
        let why = facts.files_left_out.first().map_or_else(String::new, |why| format!(" ({why})"));
        let wanted = compile.artifacts.join(", ");
        return Some(Finding::new(Verdict::CompileError, format!("the compiler left no {wanted}{why}")));
    }
    None
}
