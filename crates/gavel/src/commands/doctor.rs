//! `gavel doctor`: what this machine can do, as a list of checks with remedies.

use crate::config::Config;
use crate::config::value::BackendChoice;
use crate::exit::ExitCode;
use crate::ui::{Paint, say_line};
use crate::wiring::{self, Isolation, Purpose};
use anyhow::Result;
use gavel_api::Tls;
use gavel_core::Language;
use gavel_core::units::thousands;
use gavel_sandbox::docker;
use gavel_sandbox::native::{self, Grade};
use serde::Serialize;
use std::io::stdout;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, but something is missing or worse than it could be.
    Warn,
    /// The server will not start, or jobs will fail.
    Fail,
}

/// One finding: what was looked at, how it is, and what to do about it.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: String,
    pub state: State,
    pub detail: String,
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Ok, detail: detail.into(), remedy: None }
    }

    fn warn(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Warn, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn fail(name: &str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Fail, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

pub fn run(config: &Config, json: bool) -> Result<ExitCode> {
    let mut checks = backends(config);
    checks.extend(jobs(config));
    checks.extend([data_dir(&config.place.data_dir), disk_space(&config.place.data_dir), open_files()]);
    checks.extend(certificate(config));
    let failed = checks.iter().any(|check| check.state == State::Fail);
    match json {
        true => say_line!("{:#}", serde_json::json!({ "ok": !failed, "checks": checks })),
        false => print(&checks),
    }
    Ok(if failed { ExitCode::Failure } else { ExitCode::Success })
}

fn print(checks: &[Check]) {
    let paint = Paint::for_stream(&stdout());
    for check in checks {
        let mark = match check.state {
            State::Ok => paint.green("ok  "),
            State::Warn => paint.yellow("warn"),
            State::Fail => paint.red("FAIL"),
        };
        say_line!("{mark}  {:<22} {}", check.name, check.detail);
        if let Some(remedy) = &check.remedy {
            say_line!("      {:<22} {}", "", paint.dim(&format!("-> {remedy}")));
        }
    }
}

/// What the backends that the configuration asks for say about this machine.
fn backends(config: &Config) -> Vec<Check> {
    let docker = || docker::probe(&config.sandbox.docker_cli, config.sandbox.docker_runtime.as_deref());
    let found = match config.sandbox.backend {
        BackendChoice::Native => native::probe(),
        BackendChoice::Docker => docker(),
        BackendChoice::Auto => {
            let native = native::probe();
            // Only where the first choice does not work the second matters.
            let fails = native.iter().any(|check| check.grade == Grade::Fail);
            native.into_iter().chain(fails.then(docker).into_iter().flatten()).collect()
        }
    };
    found.into_iter().map(shown).collect()
}

fn shown(check: native::Check) -> Check {
    let (state, remedy) = match check.grade {
        Grade::Ok => (State::Ok, None),
        Grade::Warn => (State::Warn, Some(check.remedy)),
        Grade::Fail => (State::Fail, Some(check.remedy)),
    };
    Check { name: check.name.to_owned(), state, detail: check.found, remedy }
}

/// Whether a sandbox really opens, which does everything that a job needs except the job, and what of the
/// languages is there.
fn jobs(config: &Config) -> Vec<Check> {
    let catalogue = match wiring::catalogue(config) {
        Ok(catalogue) => catalogue,
        Err(error) => return vec![Check::fail("languages", format!("{error:#}"), "correct that file")],
    };
    let isolation = match wiring::isolation(config, &catalogue, &Purpose::default()) {
        Ok(isolation) => isolation,
        Err(error) => return vec![Check::fail("sandbox", format!("{error:#}"), "see the checks above")],
    };
    let opened = isolation.backend.open(super::run::slot());
    let mut checks = vec![match opened {
        Ok(_) => Check::ok("sandbox", format!("the {} backend opens one", isolation.backend.name())),
        Err(fault) => Check::fail("sandbox", fault.to_string(), "see the checks above"),
    }];
    checks.extend(catalogue.iter().map(|language| self::language(language, &isolation)));
    checks
}

fn data_dir(path: &Path) -> Check {
    let name = "data directory";
    let shown = path.display();
    if path.exists() && !path.is_dir() {
        return Check::fail(name, format!("{shown} is no directory"), "name another one with --data-dir");
    }
    let Some(existing) = nearest_existing(path) else {
        return Check::fail(name, format!("{shown} has no parent"), "name another one with --data-dir");
    };
    match tempfile::tempfile_in(&existing) {
        Ok(_) if existing == path => Check::ok(name, format!("{shown} is writable")),
        Ok(_) => Check::ok(name, format!("{shown} does not exist yet and can be made")),
        Err(error) => Check::fail(
            name,
            format!("{}: {error}", existing.display()),
            "make it writable for this user, or name another one with --data-dir",
        ),
    }
}

/// The directory itself, or the nearest one above it that exists.
fn nearest_existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .map(|found| if found == absolute { path.to_owned() } else { found.to_owned() })
}

/// The files of TLS, where there are any.
fn certificate(config: &Config) -> Option<Check> {
    let name = "certificate";
    let (cert, key) = (config.server.tls_cert.as_ref()?, config.server.tls_key.as_ref()?);
    if let Err(error) = Tls::load(cert, key) {
        let remedy =
            "write both in PEM, readable for the user of the server: the chain, and the key that belongs to it";
        return Some(Check::fail(name, error.to_string(), remedy));
    }
    // Whoever reads the key can pass for this server.
    let mode = std::fs::metadata(key).map_or(0, |file| file.mode());
    Some(match mode & 0o007 {
        0 => Check::ok(name, format!("{} and its key can be used", cert.display())),
        _ => Check::warn(name, format!("everybody may read {}", key.display()), "chmod o= on it"),
    })
}

/// Below this, a busy server fills the disk before anybody looks.
const LOW_DISK: u64 = 1 << 30;

fn disk_space(path: &Path) -> Check {
    let free = nearest_existing(path).and_then(|existing| rustix::fs::statvfs(&existing).ok());
    let Some(free) = free.map(|stat| stat.f_bavail * stat.f_frsize) else {
        return Check::warn("disk space", "unknown", "see `df`");
    };
    let detail = format!("{} MiB free", thousands(free >> 20));
    match free < LOW_DISK {
        true => Check::warn("disk space", detail, "free some, or lower store.retention and cache.max_size"),
        false => Check::ok("disk space", detail),
    }
}

/// Connections, pipes and sandboxes together.
const OPEN_FILES: u64 = 4096;

fn open_files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let detail = if limit == u64::MAX { "no limit".to_owned() } else { format!("up to {}", thousands(limit)) };
    match limit < OPEN_FILES {
        true => Check::warn(
            "open files",
            detail,
            format!("raise it to {OPEN_FILES} or more: LimitNOFILE= in systemd, or ulimit -n"),
        ),
        false => Check::ok("open files", detail),
    }
}

fn language(language: &Language, isolation: &Isolation) -> Check {
    let state = isolation.state(language);
    let Some(reason) = state.unavailable else {
        return Check::ok(&language.id, format!("{} is installed", language.name));
    };
    // A reason ends in its remedy where there is one.
    let (reason, remedy) = match reason.rsplit_once(": ") {
        Some((reason, remedy)) => (reason.to_owned(), remedy.to_owned()),
        None => (reason, format!("install {}", language.requires.join(" "))),
    };
    Check::warn(&language.id, format!("{}: {reason}", language.name), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_still_to_be_made_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(data_dir(&dir.path().join("a/b")).state, State::Ok);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(data_dir(&file).state, State::Fail);
    }
}
