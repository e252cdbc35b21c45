//! The Docker daemon of the tests, which `scripts/dockerd` starts, and images for some languages on it.

use crate::harness::gavel;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Those that the corpus and the samples need.
const LANGUAGES: [&str; 8] = ["bash", "c", "cpp", "executable", "java", "javascript", "multi-file", "python3"];

pub const BASE: &str = "gavel-base:bookworm";

/// Makes a server use the docker backend; the harness gives such a server this daemon.
pub const ON_DOCKER: &str = "sandbox.backend=docker";

/// What becomes of a container after a job.
pub const FRESH: &str = "sandbox.pool_policy=fresh";
pub const REUSE: &str = "sandbox.pool_policy=reuse";

/// What every container of ours carries.
const OURS: &str = "label=gavel.node";

#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    socket: PathBuf,
}

/// The daemon, with its images built. Asked for the first time it may take minutes: no image is there yet.
pub fn daemon() -> &'static Daemon {
    static DAEMON: OnceLock<Daemon> = OnceLock::new();
    DAEMON.get_or_init(|| {
        let daemon = Daemon::find();
        daemon.build_images();
        daemon
    })
}

impl Daemon {
    fn find() -> Self {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().expect("the repository");
        // As scripts/dockerd finds it.
        let cache = std::env::var_os("GAVEL_TEST_CACHE").map_or(root.join("target"), |dir| root.join(dir));
        let dir = cache.join("docker");
        let daemon = Self { socket: dir.join("run/docker.sock"), dir };
        let answer = daemon.docker().arg("version").output();
        assert!(
            answer.as_ref().is_ok_and(|answer| answer.status.success()),
            "the tests' Docker daemon does not answer on {}: start it as root with `scripts/dockerd start` (it needs \
             `scripts/provision`), and end it with `scripts/dockerd stop`; `scripts/test` does both: {answer:?}",
            daemon.socket.display()
        );
        daemon
    }

    /// Through the program itself. The daemon keeps the images, so that the next run finds them.
    fn build_images(&self) {
        let began = Instant::now();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = self.gavel(dir.path());
        command.args(["languages", "build", "--base", BASE, "--network", "host"]).args(LANGUAGES);
        let output = command.output().expect("gavel starts");
        assert!(output.status.success(), "the images cannot be built: {output:?}");
        println!("images for {} languages after {:.1} s", LANGUAGES.len(), began.elapsed().as_secs_f64());
    }

    /// The CLI. A lone one elsewhere in PATH may have no daemon beside it.
    pub fn cli() -> &'static str {
        if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" }
    }

    /// `docker`, with the daemon to speak to.
    pub fn docker(&self) -> Command {
        let mut command = Command::new(Self::cli());
        self.reach_from(&mut command);
        command
    }

    /// Our program, with the daemon to speak to.
    pub fn gavel(&self, dir: &Path) -> Command {
        let mut command = gavel(dir);
        self.reach_from(&mut command);
        command.args(["--set", &format!("sandbox.docker_cli={}", Self::cli())]);
        command
    }

    /// A developer's own contexts and settings have no part in tests.
    pub fn reach_from(&self, command: &mut Command) {
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.env("DOCKER_CONFIG", self.dir.join("run/config"));
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(name);
        }
    }

    /// Ends the daemon and starts it again, as an upgrade would.
    pub fn restart(&self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/dockerd");
        let output = Command::new(script).arg("restart").arg(&self.dir).output().expect("the script starts");
        assert!(output.status.success(), "{output:?}");
    }

    /// What `docker` prints, line by line; fails when it fails.
    pub fn lines(&self, args: &[&str]) -> Vec<String> {
        let output = self.docker().args(args).output().expect("docker starts");
        assert!(output.status.success(), "docker {args:?}: {output:?}");
        lines(&output)
    }

    /// The same, or nothing while there is no daemon.
    pub fn lines_if_it_answers(&self, args: &[&str]) -> Vec<String> {
        lines(&self.docker().args(args).output().expect("docker starts"))
    }

    /// Names of our containers, whatever their state.
    pub fn containers(&self) -> Vec<String> {
        self.lines(&["ps", "--all", "--filter", OURS, "--format", "{{.Names}}"])
    }

    pub fn running_containers(&self) -> Vec<String> {
        self.lines_if_it_answers(&["ps", "--filter", OURS, "--format", "{{.Names}}"])
    }

    /// What a stopped server may leave: the volume with the agent, which the next one uses.
    pub fn assert_clean(&self) {
        assert_eq!(self.containers(), [""; 0], "containers were left");
        let volumes = self.lines(&["volume", "ls", "--quiet"]);
        let odd: Vec<_> = volumes.iter().filter(|name| !name.starts_with("gavel-agent-")).collect();
        assert!(odd.is_empty() && volumes.len() <= 1, "volumes were left: {volumes:?}");
    }

    /// With their server killed, nobody removes containers: they must end by themselves. One that was only
    /// created, and never ran, waits for the next server.
    pub fn none_runs_within(&self, limit: Duration) {
        let began = Instant::now();
        loop {
            let left = self.lines(&["ps", "--filter", OURS, "--format", "{{.Names}}"]);
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < limit, "after {limit:?} there are still {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A container that has nothing to do with us, though its name looks like it.
    pub fn stranger(&self, name: &str) -> Stranger<'_> {
        _ = self.docker().args(["rm", "--force", name]).output();
        // After a restart of the daemon it runs again.
        let args = ["run", "--detach", "--restart", "always", "--network", "none", "--name", name];
        let id = self.lines(&[&args[..], &[BASE, "sleep", "infinity"]].concat()).remove(0);
        Stranger { daemon: self, id }
    }
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Removed when it is dropped.
#[derive(Debug)]
pub struct Stranger<'a> {
    daemon: &'a Daemon,
    id: String,
}

impl Stranger<'_> {
    pub fn is_running(&self) -> bool {
        let state = self.daemon.lines_if_it_answers(&["inspect", "--format", "{{.State.Running}}", &self.id]);
        state == ["true"]
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        _ = self.daemon.docker().args(["rm", "--force", &self.id]).output();
    }
}
