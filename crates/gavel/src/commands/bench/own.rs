//! A server of the bench's own: started on a free port with a fresh data directory, stopped at the end.

use crate::config::value::Kind;
use crate::config::{KEYS, Origin, Settings};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(40);

pub struct OwnServer {
    child: Child,
    pub url: String,
    // Removed after the server has ended.
    _dir: tempfile::TempDir,
}

impl OwnServer {
    /// `more` are settings as in `key=value`, which win over those that were given.
    pub fn start(settings: &Settings, more: &[&str]) -> Result<Self> {
        let dir = fresh_dir(settings)?;
        let ready = dir.path().join("url");
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
        // Behind the command's name: what stands before it counts for nothing as soon as there is one behind.
        command.arg("serve");
        for key in KEYS.iter().filter(|key| key.kind != Kind::Secrets) {
            let setting = settings.setting(&key.path());
            if matches!(setting.origin, Origin::Flag(_)) {
                command.arg("--set").arg(format!("{}={}", key.path(), setting.text));
            }
        }
        for setting in more {
            command.args(["--set", setting]);
        }
        // Later ones win: the port and the directory are the bench's.
        let place = format!("data_dir={}", dir.path().join("data").display());
        command.args(["--set", "server.bind=127.0.0.1:0", "--set", &place, "--set", "telemetry.log=warn"]);
        // It serves nobody but the bench, which shows no token and speaks plain HTTP.
        for open in ["auth.required=false", "server.tls_cert=", "server.tls_key=", "server.cors_origins="] {
            command.args(["--set", open]);
        }
        command.arg("--ready-file").arg(&ready).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("cannot start a server")?;
        let mut server = Self { child, url: String::new(), _dir: dir };
        server.url = server.wait_until_ready(&ready)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, ready: &Path) -> Result<String> {
        let began = Instant::now();
        loop {
            if let Ok(url) = std::fs::read_to_string(ready) {
                return Ok(url.trim().to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended before it was ready: {status}");
            }
            if began.elapsed() > START {
                bail!("the server was not ready after {} s", START.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && began.elapsed() < STOP {
            std::thread::sleep(Duration::from_millis(5));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// On a disk, where a commit costs what it costs: /tmp is often memory. A data directory that was
/// named says where that disk is.
fn fresh_dir(settings: &Settings) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("gavel-bench-");
    let setting = settings.setting("data_dir");
    if setting.origin != Origin::Default {
        crate::data_dir::create(Path::new(&setting.text))?;
        return builder.tempdir_in(&setting.text).with_context(|| format!("cannot write to {}", setting.text));
    }
    builder.tempdir_in("/var/tmp").or_else(|_| builder.tempdir()).context("cannot make a temporary directory")
}
