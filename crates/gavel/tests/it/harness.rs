//! Starts and stops servers, and speaks HTTP to them.

use crate::daemon::{ON_DOCKER, daemon};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; no test expects to reach it.
pub const PATIENCE: Duration = Duration::from_secs(60);

static TURN: RwLock<()> = RwLock::new(());

/// For tests that do not mind others beside them. Taken once, at the start of a test.
pub fn among_others() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// For tests that load the machine or count what is on it.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// The program, without the environment of whoever runs the tests.
pub fn gavel(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gavel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GAVEL_") {
            command.env_remove(name);
        }
    }
    // No gavel.toml of the repository is read from there.
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// Polls until `condition` gives something; fails with `what` when it takes too long.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "after {} s still not: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A running server. Dropping it stops it, by its process id, and expects it to end well.
pub struct Server {
    child: Child,
    log: PathBuf,
    pub url: String,
    agent: ureq::Agent,
    // Removed last.
    _dir: Option<tempfile::TempDir>,
}

impl Server {
    /// On a free port, with a data directory of its own.
    pub fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut server = Self::start_in(dir.path(), settings);
        server._dir = Some(dir);
        server
    }

    /// In a directory that outlives it.
    pub fn start_in(dir: &Path, settings: &[&str]) -> Self {
        let (mut child, ready, log) = spawn(dir, settings);
        let url = eventually("the server is ready", || {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                panic!("the server ended with {status} before it was ready:\n{}", read(&log));
            }
            std::fs::read_to_string(&ready).ok().filter(|url| url.ends_with('\n'))
        });
        Self { child, log, url: url.trim().to_owned(), agent: agent(), _dir: None }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        read(&self.log)
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process has an id");
        kill_process(pid, signal).expect("the server can be sent a signal");
    }

    /// What a power cut would do to it.
    pub fn kill(mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child can be waited for");
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    pub fn wait_for_end(&mut self) -> ExitStatus {
        eventually("the server has ended", || self.has_ended())
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    pub fn get(&self, path: &str) -> Answer {
        Answer::read(self.agent.get(self.address(path)).call())
    }

    pub fn delete(&self, path: &str) -> Answer {
        Answer::read(self.agent.delete(self.address(path)).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, "application/json", &body.to_string())
    }

    pub fn post_text(&self, path: &str, content_type: &str, body: &str) -> Answer {
        Answer::read(self.agent.post(self.address(path)).header("content-type", content_type).send(body))
    }

    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.agent.get(self.address(path));
        Answer::read(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call())
    }

    pub fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let request = self.agent.post(self.address(path)).header("content-type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Answer::read(request.send(body.to_string()))
    }

    /// For requests whose connection may break: nothing was acknowledged then.
    pub fn try_post(&self, path: &str, body: &Value) -> Option<Answer> {
        let sent =
            self.agent.post(self.address(path)).header("content-type", "application/json").send(body.to_string());
        Answer::try_read(sent)
    }

    pub fn try_get(&self, path: &str) -> Option<Answer> {
        Answer::try_read(self.agent.get(self.address(path)).call())
    }

    /// Submits a job and waits until it has ended.
    pub fn judge(&self, job: &Value) -> Value {
        let answer = self.post("/api/v1/jobs?wait=true&timeout_ms=120000", job);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Submits a job and returns its id.
    pub fn submit(&self, job: &Value) -> String {
        let answer = self.post("/api/v1/jobs", job);
        assert_eq!(answer.status, 201, "{}", answer.body);
        text(&answer.body, "id")
    }

    pub fn job(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/v1/jobs/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    pub fn wait_for_status(&self, id: &str, wanted: &[&str]) -> Value {
        eventually(&format!("job {id} is {}", wanted.join(" or ")), || {
            let job = self.job(id);
            wanted.contains(&text(&job, "status").as_str()).then_some(job)
        })
    }

    fn address(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("the server's log:\n{}", tail(&self.log()));
        }
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM);
        let began = Instant::now();
        let mut status = None;
        while status.is_none() && began.elapsed() < PATIENCE {
            status = self.child.try_wait().ok().flatten();
            std::thread::sleep(Duration::from_millis(5));
        }
        _ = self.child.kill();
        _ = self.child.wait();
        if !failed {
            assert!(status.is_some_and(|s| s.success()), "the server did not stop well: {status:?}\n{}", self.log());
        }
    }
}

/// Starts `gavel serve`; returns it with the file that it writes when it is ready, and its log.
pub fn spawn(dir: &Path, settings: &[&str]) -> (Child, PathBuf, PathBuf) {
    let (ready, log) = (dir.join("url"), dir.join("server.log"));
    _ = std::fs::remove_file(&ready);
    let out = File::options().create(true).append(true).open(&log).expect("a log file");
    let mut command = match settings.contains(&ON_DOCKER) {
        true => daemon().gavel(dir),
        false => gavel(dir),
    };
    command.args(["serve", "--bind", "127.0.0.1:0", "--data-dir"]).arg(dir.join("data"));
    command.arg("--ready-file").arg(&ready);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdout(out.try_clone().expect("a second handle")).stderr(out);
    (command.spawn().expect("gavel starts"), ready, log)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections_per_host(16)
        .timeout_global(Some(Duration::from_secs(300)));
    config.build().into()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// What the server answered. A body that is no JSON is a JSON string.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Value,
}

type Sent = Result<ureq::http::Response<ureq::Body>, ureq::Error>;

impl Answer {
    fn read(sent: Sent) -> Self {
        Self::receive(sent).expect("the server answers")
    }

    fn try_read(sent: Sent) -> Option<Self> {
        Self::receive(sent).ok()
    }

    fn receive(sent: Sent) -> Result<Self, ureq::Error> {
        let mut response = sent?;
        let header = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = header.unwrap_or_default().to_owned();
        let bytes = response.body_mut().with_config().limit(512 << 20).read_to_vec()?;
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into());
        Ok(Self { status: response.status().as_u16(), content_type, body })
    }
}

/// A text field of a JSON object.
pub fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {value}")).to_owned()
}

/// A language's sample.
pub struct Sample {
    id: String,
    pub source: String,
    pub stdin: String,
    pub expected: String,
}

pub fn sample(id: &str) -> Sample {
    let folder = format!("{}/../../languages/{id}", env!("CARGO_MANIFEST_DIR"));
    let spec = std::fs::read_to_string(format!("{folder}/language.toml")).expect("a language.toml");
    let spec: toml::Table = spec.parse().expect("TOML");
    // Some need no input.
    let field = |name: &str| spec["sample"].get(name).map_or("", |text| text.as_str().expect("a text")).to_owned();
    let source = std::fs::read_to_string(format!("{folder}/{}", field("source"))).expect("a sample");
    Sample { id: id.to_owned(), source, stdin: field("stdin"), expected: field("expected") }
}

impl Sample {
    /// Sends it as a job; every field of the result must be as it has to be. `what` is shown if not.
    pub fn check_exactly(&self, server: &Server, what: &str) {
        let done = server.judge(&json!({
            "language": self.id, "source_code": self.source, "stdin": self.stdin, "expected_output": self.expected,
        }));
        let shown = format!("{what}: {}: {done:#}", self.id);
        assert_eq!((text(&done, "status"), text(&done, "verdict")), ("completed".into(), "accepted".into()), "{shown}");
        assert_eq!((text(&done, "stdout"), text(&done, "stderr")), (self.expected.clone(), String::new()), "{shown}");
        assert_eq!((&done["exit_code"], &done["signal"]), (&json!(0), &Value::Null), "{shown}");
        for measured in ["execution_time_ms", "wall_time_ms", "memory_usage_kb"] {
            assert!(done[measured].as_f64().is_some_and(|n| n > 0.0), "{measured}: {shown}");
        }
    }
}

/// Numbers that look random and can be had again: the seed is printed.
pub struct Dice(u64);

impl Dice {
    pub fn new(what: &str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        let seed = now.as_nanos() as u64 | 1;
        println!("{what}: seed {seed}");
        Self(seed)
    }

    pub fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// xorshift64*
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
