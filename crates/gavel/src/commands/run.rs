//! `gavel run FILE`: one job in a sandbox, without a server. Its exit status tells how it went.

use super::keyboard::{self, Keyboard};
use crate::catalogue;
use crate::cli::Run;
use crate::config::Config;
use crate::exit::{ExitCode, coded};
use crate::ui::{self, Paint, say_line};
use crate::wiring::{self, Isolation, Purpose};
use anyhow::Result;
use gavel_core::job::Interactive;
use gavel_core::units::thousands;
use gavel_core::validate::validate;
use gavel_core::{Bytes, Catalogue, Draft, Job, Language, LimitsRequest, Outcome, Verdict};
use gavel_judge::{Cache, Judged};
use gavel_sandbox::{Backend, Cancel, Live};
use gavel_store::Stream;
use serde_json::json;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// Slots from here on are those of programs that run without a server, each with a number of its own,
/// so that they share no user id with a server's.
const FIRST_SLOT: u32 = 1 << 20;

/// Where a compiled program lies until it has been run.
const CACHE: Bytes = Bytes::mib(1024);

pub fn run(command: &Run, config: &Config, json: bool) -> Result<ExitCode> {
    let catalogue = wiring::catalogue(config)?;
    // Nothing is left behind, and no server's cache is touched.
    let dir = tempfile::tempdir().map_err(fault)?;
    let cache = Cache::open(dir.path(), CACHE.0).map_err(fault)?;
    let purpose = Purpose { shared_dir: Some(cache.directory()), server: false };
    let isolation = wiring::isolation(config, &catalogue, &purpose)?;
    let language = language_of(command, &isolation)?;
    let job = job(command, language, &isolation.catalogue, config)?;
    let outcome = judge(&*isolation.backend, language, &job, &cache, config, json);
    isolation.backend.close();
    let outcome = outcome?;
    match json {
        true => say_line!("{:#}", as_json(&outcome)),
        false if !command.quiet => eprintln!("{}", summary(&outcome)),
        false => {}
    }
    Ok(exit_code(&outcome))
}

fn fault(error: impl std::fmt::Display) -> anyhow::Error {
    coded(ExitCode::Fault, format!("the job could not be run: {error}"))
}

fn language_of<'a>(command: &Run, isolation: &'a Isolation) -> Result<&'a Language> {
    let catalogue = &isolation.catalogue;
    let language = match &command.language {
        Some(id) => catalogue.get(id).map(|language| &**language).ok_or_else(|| {
            let hint = catalogue.similar(id).map(|near| format!("did you mean {near}?"));
            format!("there is no language {id}: {}", hint.unwrap_or("`gavel languages list` shows them".to_owned()))
        }),
        None => catalogue::for_file(catalogue, &command.file, |language| isolation.is_available(language)).ok_or_else(
            || format!("{}: no language has this extension; name one with --language", command.file.display()),
        ),
    };
    let language = language.map_err(|message| coded(ExitCode::Usage, message))?;
    match isolation.state(language).unavailable {
        Some(reason) => Err(coded(ExitCode::Machine, format!("{} {reason}", language.name))),
        None => Ok(language),
    }
}

fn job(command: &Run, language: &Language, catalogue: &Catalogue, config: &Config) -> Result<Job> {
    let rules = config.rules();
    let expected = command.expected.as_deref().map(|path| read(path, rules.max_stdin)).transpose()?;
    let draft = Draft {
        language: language.id.clone(),
        source: read(&command.file, rules.max_source)?,
        stdin: command.stdin.as_deref().map(|path| read(path, rules.max_stdin)).transpose()?.unwrap_or_default(),
        args: command.more_args.iter().chain(&command.args).cloned().collect(),
        limits: limits(&command.limits).map_err(|message| coded(ExitCode::Usage, message))?,
        expected_output: expected,
        interactive: command.interactive.then(|| Interactive { tty: command.tty.then(keyboard::size) }),
        ..Draft::default()
    };
    validate(draft, catalogue, &rules).map_err(|rejection| {
        let lines: Vec<String> = rejection.problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
        coded(ExitCode::Usage, lines.join("\n  "))
    })
}

/// Reads a file, or our own stdin for "-", up to one byte more than is allowed: the rules say no then.
fn read(path: &Path, max: Bytes) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().take(max.0 + 1).read_to_end(&mut content)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(max.0 + 1).read_to_end(&mut content))
    };
    match result {
        Ok(_) => Ok(content),
        Err(error) => Err(coded(ExitCode::Usage, format!("cannot read {}: {error}", path.display()))),
    }
}

/// Limits as they are typed: `cpu_time_ms=1000`, with the names of the API.
fn limits(pairs: &[String]) -> Result<LimitsRequest, String> {
    let mut request = LimitsRequest::default();
    for pair in pairs {
        let (name, number) = pair.split_once('=').ok_or(format!("--limit {pair}: write NAME=NUMBER"))?;
        let number: u64 = number.parse().map_err(|_| format!("--limit {pair}: {number:?} is no whole number"))?;
        match name {
            "cpu_time_ms" => request.cpu_time = Some(Duration::from_millis(number)),
            "wall_time_ms" => request.wall_time = Some(Duration::from_millis(number)),
            "memory_kb" => request.memory = Some(Bytes::kib(number)),
            "stack_kb" => request.stack = Some(Bytes::kib(number)),
            "processes" => request.processes = Some(u32::try_from(number).unwrap_or(u32::MAX)),
            "output_kb" => request.output = Some(Bytes::kib(number)),
            "file_size_kb" => request.file_size = Some(Bytes::kib(number)),
            _ => {
                let names = "cpu_time_ms, wall_time_ms, memory_kb, stack_kb, processes, output_kb, file_size_kb";
                return Err(format!("--limit {pair}: there is no limit {name}; use one of {names}"));
            }
        }
    }
    Ok(request)
}

/// The slot of this process.
pub fn slot() -> u32 {
    // Process ids stay below 2^22; together with the base they stay below the ids of others.
    FIRST_SLOT + std::process::id() % (1 << 22)
}

fn judge(
    backend: &dyn Backend,
    language: &Language,
    job: &Job,
    cache: &Cache,
    config: &Config,
    json: bool,
) -> Result<Outcome> {
    let mut sandbox = backend.open(slot()).map_err(fault)?;
    let cancel = Cancel::new().map_err(fault)?;
    cancel_on_interrupt(cancel.clone());
    let mut show = |stream: Stream, bytes: &[u8]| {
        if json {
            return;
        }
        // A reader that went away is no reason to stop the program: its verdict still counts.
        _ = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
            Stream::Stderr | Stream::CompileOutput => std::io::stderr().write_all(bytes),
        };
    };
    let tty = job.interactive.and_then(|interactive| interactive.tty);
    let keyboard = job.interactive.map(|_| Keyboard::open(tty.is_some())).transpose().map_err(fault)?;
    let idle = config.limits.interactive_idle;
    let live = keyboard.as_ref().map(|keyboard| Live { input: &keyboard.input, tty, idle });
    match gavel_judge::judge(&mut *sandbox, language, job, cache, live, &cancel, &mut show) {
        Ok(Judged::Outcome(outcome)) => Ok(*outcome),
        Ok(Judged::Cancelled) => Err(coded(ExitCode::Program(130), "interrupted")),
        Err(error) => Err(fault(error)),
    }
}

/// Ctrl-C stops the program and lets us clean up; the second one ends us at once.
fn cancel_on_interrupt(cancel: Cancel) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                cancel.cancel();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    });
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome.verdict {
        Verdict::CompileError => ExitCode::CompileError,
        Verdict::TimeLimitExceeded => ExitCode::TimeLimit,
        Verdict::MemoryLimitExceeded => ExitCode::MemoryLimit,
        Verdict::OutputLimitExceeded => ExitCode::OutputLimit,
        Verdict::WrongAnswer => ExitCode::WrongAnswer,
        Verdict::Accepted | Verdict::RuntimeError => match (outcome.exit_code, outcome.signal) {
            (Some(code), _) => ExitCode::Program(code as u8),
            (None, Some(signal)) => ExitCode::Program(128u8.saturating_add(signal as u8)),
            (None, None) => ExitCode::Fault,
        },
    }
}

fn summary(outcome: &Outcome) -> String {
    let paint = Paint::for_stream(&std::io::stderr());
    let verdict = outcome.verdict.as_str().replace('_', " ");
    let verdict = if outcome.verdict == Verdict::Accepted { paint.green(&verdict) } else { paint.red(&verdict) };
    let reason = if outcome.verdict == Verdict::Accepted { String::new() } else { format!(": {}", outcome.reason) };
    let numbers = format!(
        "CPU {}, wall {}, memory {} KiB",
        ui::time(outcome.cpu.as_secs_f64()),
        ui::time(outcome.wall.as_secs_f64()),
        thousands(outcome.memory.as_kib())
    );
    format!("{} {verdict}{reason} {}", paint.bold("gavel:"), paint.dim(&format!("({numbers})")))
}

fn as_json(outcome: &Outcome) -> serde_json::Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "verdict": outcome.verdict.as_str(), "reason": outcome.reason, "evidence": outcome.evidence,
        "stdout": text(&outcome.stdout), "stderr": text(&outcome.stderr),
        "compile_output": text(&outcome.compile_output),
        "stdout_truncated": outcome.stdout_truncated, "stderr_truncated": outcome.stderr_truncated,
        "exit_code": outcome.exit_code, "signal": outcome.signal,
        "execution_time_ms": ms(outcome.cpu), "wall_time_ms": ms(outcome.wall),
        "memory_usage_kb": outcome.memory.as_kib(), "compile_time_ms": ms(outcome.compile_time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_names_of_the_api() {
        let request = limits(&["cpu_time_ms=1500".into(), "memory_kb=2048".into()]).unwrap();
        assert_eq!(request.cpu_time, Some(Duration::from_millis(1500)));
        assert_eq!(request.memory, Some(Bytes::mib(2)));
        for (wrong, expected) in
            [("cpu=1", "there is no limit cpu"), ("memory_kb", "NAME=NUMBER"), ("stack_kb=x", "\"x\"")]
        {
            let error = limits(&[wrong.to_owned()]).unwrap_err();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
    }
}
