//! The Docker command line: started, given a deadline, and understood. Podman's is the same but for words.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is kept of a client's messages.
const MAX_STDERR: usize = 64 << 10;

/// What is kept of a client's answer, unless more is asked for.
const MAX_STDOUT: usize = 4 << 20;

/// What went wrong, as far as it decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    NoCli,
    NoDaemon,
    Forbidden,
    NoImage,
    NameTaken,
    NoContainer,
    /// Somebody needs it still.
    InUse,
    Memory,
    DiskFull,
    Timeout,
    Other,
}

impl Trouble {
    /// For metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoCli => "no_cli",
            Self::NoDaemon => "no_daemon",
            Self::Forbidden => "forbidden",
            Self::NoImage => "no_image",
            Self::NameTaken => "name_taken",
            Self::NoContainer => "no_container",
            Self::InUse => "in_use",
            Self::Memory => "memory",
            Self::DiskFull => "disk_full",
            Self::Timeout => "timeout",
            Self::Other => "other",
        }
    }

    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoCli => "install the Docker or Podman command line, or name it with sandbox.docker_cli",
            Self::NoDaemon => "start the daemon (systemctl start docker), or point DOCKER_HOST at one that runs",
            Self::Forbidden => {
                "let this user use the daemon (usermod -aG docker USER, then log in again), or run as root"
            }
            Self::NoImage => "build it with `gavel languages build`",
            Self::NameTaken => "remove that container with docker rm -f",
            Self::NoContainer => "it was removed by somebody else; nothing is left to do",
            Self::InUse => "wait until the containers that use it are gone",
            Self::Memory => {
                "the daemon cannot give a container this memory: free some, raise the limit of the job, or boot the \
                 kernel with its memory controller"
            }
            Self::DiskFull => "free space on the daemon's disk: docker system df shows what takes it up",
            Self::Timeout => "the daemon hangs: look at its log (journalctl -u docker), and start it anew",
            Self::Other => "the daemon's log may say more (journalctl -u docker)",
        }
    }

    /// Whether no other container could be started either.
    pub fn is_daemons(self) -> bool {
        matches!(self, Self::NoCli | Self::NoDaemon | Self::Forbidden | Self::DiskFull | Self::Timeout)
    }
}

/// A call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    pub trouble: Trouble,
    /// The program and its subcommand.
    call: String,
    detail: String,
}

impl CliError {
    /// One that the client does not know of.
    pub fn new(cli: &Cli, subcommand: &str, trouble: Trouble, detail: &str) -> Self {
        Self { trouble, call: format!("{} {subcommand}", cli.program), detail: detail.to_owned() }
    }

    /// What happened, without the remedy.
    pub fn cause(&self) -> String {
        format!("{}: {}", self.call, self.detail)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause(), self.trouble.remedy())
    }
}

impl std::error::Error for CliError {}

/// The texts by which the clients and daemons name their troubles, in lower case. The first that is
/// found decides, so what is more special stands above.
const TEXTS: &[(&str, Trouble)] = &[
    ("permission denied while trying to connect", Trouble::Forbidden),
    ("connect: permission denied", Trouble::Forbidden),
    ("cannot connect to the docker daemon", Trouble::NoDaemon),
    ("error during connect", Trouble::NoDaemon),
    ("failed to connect to the docker api", Trouble::NoDaemon),
    ("unable to connect to podman", Trouble::NoDaemon),
    ("cannot connect to podman", Trouble::NoDaemon),
    ("connect: connection refused", Trouble::NoDaemon),
    ("error reading from server: eof", Trouble::NoDaemon),
    ("server is shutting down", Trouble::NoDaemon),
    ("unable to resolve docker endpoint", Trouble::NoDaemon),
    ("no space left on device", Trouble::DiskFull),
    ("no such image", Trouble::NoImage),
    ("image not known", Trouble::NoImage),
    ("unable to find image", Trouble::NoImage),
    ("is already in use by container", Trouble::NameTaken),
    ("name is already in use", Trouble::NameTaken),
    ("is already in use", Trouble::NameTaken),
    ("volume is in use", Trouble::InUse),
    ("is being used by the following container", Trouble::InUse),
    ("no such container", Trouble::NoContainer),
    ("no container with name or id", Trouble::NoContainer),
    ("cannot allocate memory", Trouble::Memory),
    ("minimum memory limit", Trouble::Memory),
    ("container init was oom-killed", Trouble::Memory),
    ("memory.limit_in_bytes", Trouble::Memory),
    ("memory.max", Trouble::Memory),
];

/// What a client that ended this way means.
pub fn classify(stderr: &str) -> Trouble {
    let text = stderr.to_lowercase();
    TEXTS.iter().find(|(words, _)| text.contains(words)).map_or(Trouble::Other, |(_, trouble)| *trouble)
}

/// The line that says most: the first that is neither a warning nor advice.
fn gist(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let noise = |line: &&str| line.starts_with("WARNING") || line.starts_with("Run '") || line.starts_with("See '");
    let line = lines().find(|line| !noise(line)).or_else(|| lines().next()).unwrap_or("it gave no reason");
    let line = line.trim_start_matches("docker: ").trim_start_matches("Error response from daemon: ");
    line.chars().take(400).collect()
}

/// Which program to call, and how to speak of it.
#[derive(Debug, Clone)]
pub struct Cli {
    program: String,
}

impl Cli {
    pub fn new(program: impl Into<String>) -> Self {
        Self { program: program.into() }
    }

    pub fn program(&self) -> &str {
        &self.program
    }

    pub fn is_podman(&self) -> bool {
        Path::new(&self.program).file_name().is_some_and(|name| name.to_string_lossy().starts_with("podman"))
    }

    /// A client whose streams the caller holds.
    pub fn start(&self, args: &[String]) -> Result<Child, CliError> {
        self.start_with(args, Stdio::piped())
    }

    /// The same with another place for its messages.
    pub fn start_with(&self, args: &[String], stderr: Stdio) -> Result<Child, CliError> {
        let started = Command::new(&self.program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C in a terminal is meant for the server, which ends its clients in its own time.
            .process_group(0)
            .spawn();
        started.map_err(|error| {
            let trouble = match error.kind() {
                io::ErrorKind::NotFound => Trouble::NoCli,
                _ => Trouble::Other,
            };
            self.error(args, trouble, error.to_string())
        })
    }

    /// Calls the client and takes its answer, within `limit`.
    pub fn call(&self, args: &[String], limit: Duration) -> Result<Vec<u8>, CliError> {
        self.exchange(args, &[], MAX_STDOUT, limit)
    }

    /// The same with something to read for the client, and with an answer of at most `max` bytes.
    pub fn exchange(&self, args: &[String], stdin: &[u8], max: usize, limit: Duration) -> Result<Vec<u8>, CliError> {
        let ended = self.attend(args, stdin, max, limit)?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        Err(self.failed(args, &ended.stderr, ended.status))
    }

    /// Like [`Cli::call`], for commands that name several things and fail if one of them is not there:
    /// what was done is in the answer, and what was not in the messages.
    pub fn call_for_each(&self, args: &[String], limit: Duration) -> Result<(String, String), CliError> {
        let ended = self.attend(args, &[], MAX_STDOUT, limit)?;
        let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
        let trouble = classify(&ended.stderr);
        if !ended.status.success() && stdout.trim().is_empty() && trouble.is_daemons() {
            return Err(self.failed(args, &ended.stderr, ended.status));
        }
        Ok((stdout, ended.stderr))
    }

    /// What a client that was started with [`Cli::start`] says now that it has failed.
    pub fn failed(&self, args: &[String], stderr: &str, status: ExitStatus) -> CliError {
        let trouble = classify(stderr);
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
        };
        self.error(args, trouble, format!("{} ({how})", gist(stderr)))
    }

    fn error(&self, args: &[String], trouble: Trouble, detail: String) -> CliError {
        // The rest of a command line is long and says nothing new.
        let words = args.iter().take_while(|arg| arg.bytes().all(|byte| byte.is_ascii_lowercase())).take(2);
        let call = std::iter::once(&self.program).chain(words).cloned().collect::<Vec<_>>().join(" ");
        CliError { trouble, call, detail }
    }

    fn attend(&self, args: &[String], stdin: &[u8], max: usize, limit: Duration) -> Result<Ended, CliError> {
        let mut child = self.start(args)?;
        let attended = attend(&mut child, stdin, max, limit);
        if !matches!(attended, Ok(Some(_))) {
            // With what it started itself, an ssh say. That it has ended in this moment is no error.
            _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            _ = child.wait();
        }
        match attended {
            Ok(Some(ended)) => Ok(ended),
            Ok(None) => Err(self.error(args, Trouble::Timeout, format!("no answer within {} s", limit.as_secs_f32()))),
            Err(error) => Err(self.error(args, Trouble::Other, error.to_string())),
        }
    }
}

struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

/// Feeds the client and reads from it until it ends; `None` when the time is up first. Its end counts and
/// not that of its pipes: a grandchild may hold them open.
fn attend(child: &mut Child, mut stdin: &[u8], max: usize, limit: Duration) -> io::Result<Option<Ended>> {
    let deadline = Instant::now() + limit;
    let pid = Pid::from_child(child);
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let (mut to, mut out, mut err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let pipes = [to.as_ref().map(AsFd::as_fd), out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)];
    for pipe in pipes.into_iter().flatten() {
        fcntl_setfl(pipe, OFlags::NONBLOCK)?;
    }
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        if stdin.is_empty() {
            to = None;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
        fds.extend(out.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(err.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(to.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let over = !fds[0].revents().is_empty();
        drop(fds);
        drain(&mut out, &mut stdout, max)?;
        drain(&mut err, &mut stderr, MAX_STDERR)?;
        if let Some(pipe) = &to {
            match rustix::io::write(pipe, stdin) {
                Ok(written) => stdin = &stdin[written..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                // It does not want the rest; its exit status tells whether that was right.
                Err(Errno::PIPE) => to = None,
                Err(error) => return Err(error.into()),
            }
        }
        if over {
            let stderr = String::from_utf8_lossy(&stderr).into_owned();
            return Ok(Some(Ended { status: child.wait()?, stdout, stderr }));
        }
    }
}

/// Takes what is there, and closes the pipe at its end. What is above `max` is read and thrown away, so
/// that the client never waits for us.
fn drain(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, max: usize) -> io::Result<()> {
    let Some(open) = pipe else { return Ok(()) };
    let mut piece = [0u8; 16 << 10];
    loop {
        match open.read(&mut piece) {
            Ok(0) => {
                *pipe = None;
                return Ok(());
            }
            Ok(n) => into.extend_from_slice(&piece[..n.min(max.saturating_sub(into.len()))]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

pub fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

/// Arguments from texts.
pub fn args(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_and_daemons_say_is_understood() {
        let table = [
            (
                "docker: Error response from daemon: No such image: nosuch:1\n\nRun 'docker run --help'",
                Trouble::NoImage,
            ),
            ("Unable to find image 'nosuch:1' locally\n", Trouble::NoImage),
            ("Error: nosuch: image not known", Trouble::NoImage),
            ("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?", Trouble::NoDaemon),
            ("error during connect: Get \"https://10.0.0.1:2376/v1.41/info\": dial tcp: timeout", Trouble::NoDaemon),
            ("Cannot connect to Podman. Please verify your connection to the Linux system", Trouble::NoDaemon),
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: \
                 Get \"http://%2Fvar%2Frun%2Fdocker.sock/v1.24/info\": dial unix /var/run/docker.sock: connect: \
                 permission denied",
                Trouble::Forbidden,
            ),
            (
                "docker: Error response from daemon: Conflict. The container name \"/a\" is already in use by container \
                 \"5\". You have to remove (or rename) that container to be able to reuse that name.",
                Trouble::NameTaken,
            ),
            (
                "Error: creating container storage: the container name \"a\" is already in use by 5: that name is \
                 already in use",
                Trouble::NameTaken,
            ),
            ("Error response from daemon: remove gavel-agent-0: volume is in use - [a2b8]", Trouble::InUse),
            ("Error: volume gavel-agent-0 is being used by the following container(s): a2b8", Trouble::InUse),
            ("Error response from daemon: No such container: gavel-a-1", Trouble::NoContainer),
            ("Error: no container with name or ID \"a\" found: no such container", Trouble::NoContainer),
            ("docker: Error response from daemon: Minimum memory limit allowed is 6MB.", Trouble::Memory),
            (
                "docker: Error response from daemon: failed to create shim: OCI runtime create failed: runc create \
                 failed: unable to start container process: container init was OOM-killed (memory limit too low?)",
                Trouble::Memory,
            ),
            ("Error response from daemon: mkdir /var/lib/docker/x: no space left on device", Trouble::DiskFull),
            ("docker: Error response from daemon: something new", Trouble::Other),
            ("", Trouble::Other),
        ];
        for (stderr, trouble) in table {
            assert_eq!(classify(stderr), trouble, "{stderr}");
        }
    }

    #[test]
    fn of_many_lines_the_one_with_the_reason_is_shown() {
        let stderr = "WARNING: IPv4 forwarding is disabled. Networking will not work.\n\
                      docker: Error response from daemon: No such image: x:1\n\nRun 'docker run --help' for more";
        assert_eq!(gist(stderr), "No such image: x:1");
        assert_eq!(gist("\n"), "it gave no reason");
    }

    fn shell(script: &str, stdin: &[u8], limit: Duration) -> Result<Vec<u8>, CliError> {
        Cli::new("/bin/sh").exchange(&args(&["-c", script]), stdin, 1 << 20, limit)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn answers_are_taken_whole_and_cut_at_their_bound() {
        assert_eq!(shell("cat", &[7; 300_000], LONG).unwrap(), [7; 300_000]);
        assert_eq!(shell("head -c 3000000 /dev/zero", b"", LONG).unwrap().len(), 1 << 20);
        // What nobody reads is no error.
        assert_eq!(shell("echo done", &[7; 300_000], LONG).unwrap(), b"done\n");
    }

    #[test]
    fn a_client_that_hangs_is_given_up() {
        let error = shell("sleep 60", b"", Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.trouble, Trouble::Timeout);
        assert!(error.to_string().contains("the daemon hangs"), "{error}");
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipes_does_not_keep_us() {
        let started = Instant::now();
        assert_eq!(shell("sleep 15 & echo done", b"", LONG).unwrap(), b"done\n");
        assert!(started.elapsed() < LONG / 2);
    }

    #[test]
    fn failures_name_the_call_the_reason_and_the_remedy() {
        let error = Cli::new("no-such-docker").call(&args(&["ps", "-a"]), LONG).unwrap_err();
        assert_eq!(error.trouble, Trouble::NoCli);
        assert!(error.to_string().starts_with("no-such-docker ps: "), "{error}");
        let error = shell("echo Error: x: image not known >&2; exit 125", b"", LONG).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/bin/sh: Error: x: image not known (exit status 125); build it with `gavel languages build`"
        );
    }

    #[test]
    fn podman_is_known_by_its_name() {
        assert!(Cli::new("/usr/bin/podman").is_podman() && Cli::new("podman-remote").is_podman());
        assert!(!Cli::new("docker").is_podman());
    }
}
