//! What containers are made of, and the command line that makes one: data in, arguments out.

use crate::Command;
use gavel_core::language::Scratch;
use gavel_core::{Bytes, Limits};

/// Everything in which containers differ. Commands of one recipe can use each other's containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Recipe {
    /// By its id, so that one that is built anew does not mix with the old one.
    pub image: String,
    /// What the job may use.
    pub memory: Bytes,
    pub processes: u32,
    pub work: Bytes,
    pub tmp: Bytes,
    pub shm: Bytes,
    pub inodes: u32,
    pub network: bool,
}

/// Memory of a container beyond that of the job: the agent, the job's init, and what the kernel accounts to
/// the container for them. Measured: 0.6 MiB at rest, and 2.8 for a moment while runc starts it (Docker
/// 20.10, Linux 6.18, cgroup v1). With it the smallest job has the 6 MiB that the daemon demands at least.
pub const OVERHEAD: Bytes = Bytes::mib(4);

/// Processes of a container beyond those of the job: the agent and the job's init.
const OWN_PROCESSES: u32 = 2;

/// Inodes of /box beyond those that a command may take: for the files that it brings, and the directories above
/// them. A container is made before its commands are known, so this is what they may bring at most: what a
/// compile step can leave (the agent looks at 20,000 entries), and 1,000 files that are 16 deep.
const BROUGHT: u32 = 20_000 + 1_000 * 16;

impl Recipe {
    /// For commands without a network.
    pub fn new(image: &str, limits: &Limits, scratch: &Scratch) -> Self {
        Self {
            image: image.to_owned(),
            memory: limits.memory,
            processes: limits.processes,
            work: scratch.work,
            tmp: scratch.tmp,
            shm: scratch.shm,
            inodes: scratch.inodes,
            network: false,
        }
    }

    pub fn of(command: &Command, image: &str) -> Self {
        Self { network: command.network, ..Self::new(image, &command.limits, &command.scratch) }
    }

    /// Memory that the host must have for one container.
    pub fn footprint(&self) -> Bytes {
        Bytes(self.memory.0.saturating_add(OVERHEAD.0))
    }
}

/// One container to be.
#[derive(Debug)]
pub struct Plan<'a> {
    pub name: &'a str,
    pub labels: &'a [(&'static str, String)],
    pub recipe: &'a Recipe,
    pub cpus: f64,
    /// The OCI runtime; the daemon's own without one.
    pub runtime: Option<&'a str>,
    /// File with the seccomp profile, on this side of the daemon.
    pub profile: &'a str,
    pub volume: &'a str,
    /// The agent's file in the volume.
    pub agent: &'a str,
    pub podman: bool,
}

/// Where the volume with the agent is mounted.
pub const AGENT_DIR: &str = "/gavel";

impl Plan<'_> {
    pub fn argv(&self) -> Vec<String> {
        let recipe = self.recipe;
        let mut argv = Argv::default();
        argv.all(["run", "--interactive", "--rm", "--pull", "never"]);
        argv.pair("--name", self.name);
        for (label, value) in self.labels {
            argv.pair("--label", format!("{label}={value}"));
        }
        if let Some(runtime) = self.runtime {
            argv.pair("--runtime", runtime);
        }
        if !recipe.network {
            argv.pair("--network", "none");
            // A port of the last job would be kept from the next one for a minute.
            argv.pair("--sysctl", "net.ipv4.tcp_max_tw_buckets=0");
        }
        // The agent has nothing to put in order when the daemon asks it to end.
        argv.all(["--stop-timeout", "1"]);
        argv.all(["--read-only", "--user", "0:0", "--workdir", "/", "--hostname", "box", "--no-healthcheck"]);
        // The agent starts jobs as another user and kills them, and that is all it may do.
        argv.all(["--cap-drop", "ALL", "--cap-add", "SETUID", "--cap-add", "SETGID", "--cap-add", "KILL"]);
        argv.all(["--security-opt", "no-new-privileges"]);
        argv.pair("--security-opt", format!("seccomp={}", self.profile));
        argv.all(["--ipc", "private", "--cgroupns", "private"]);
        let memory = recipe.footprint().0.to_string();
        argv.pair("--memory", memory.clone());
        // Memory and swap together: no swap.
        argv.pair("--memory-swap", memory);
        argv.pair("--pids-limit", (recipe.processes.saturating_add(OWN_PROCESSES)).to_string());
        argv.pair("--cpus", self.cpus.to_string());
        // A core limit of 1 and not 0: with 0 the kernel would start a core_pattern helper as root of the host.
        argv.all(["--ulimit", "core=1:1", "--ulimit", "nofile=1024:1024"]);
        argv.all(["--oom-score-adj", "500"]);
        // Otherwise all that passes between agent and server would also go to a file of the daemon's, without end.
        argv.all(["--log-driver", "none"]);
        let exec =
            |size: Bytes, inodes: u32| format!("rw,exec,nosuid,nodev,size={},nr_inodes={inodes},mode=1777", size.0);
        self.tmpfs(&mut argv, "/box", exec(recipe.work, recipe.inodes.saturating_add(BROUGHT)));
        self.tmpfs(&mut argv, "/tmp", exec(recipe.tmp, recipe.inodes));
        // Over those that every container has: without a bound on inodes the first, writable the second.
        let shm = format!("rw,nosuid,nodev,noexec,size={},nr_inodes={},mode=1777", recipe.shm.0, recipe.inodes);
        self.tmpfs(&mut argv, "/dev/shm", shm);
        self.tmpfs(&mut argv, "/dev/mqueue", "ro,size=4k".to_owned());
        argv.pair("--volume", format!("{}:{AGENT_DIR}:ro", self.volume));
        argv.pair("--entrypoint", format!("{AGENT_DIR}/{}", self.agent));
        argv.all([recipe.image.as_str()]);
        argv.0
    }

    fn tmpfs(&self, argv: &mut Argv, at: &str, options: String) {
        // Podman would copy into it what the image has there.
        let copy = if self.podman { ",notmpcopyup" } else { "" };
        argv.pair("--tmpfs", format!("{at}:{options}{copy}"));
    }
}

#[derive(Default)]
struct Argv(Vec<String>);

impl Argv {
    fn all<'a>(&mut self, words: impl IntoIterator<Item = &'a str>) {
        self.0.extend(words.into_iter().map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            image: "sha256:11fad4e2".to_owned(),
            memory: Bytes::mib(256),
            processes: 64,
            work: Bytes::mib(64),
            tmp: Bytes::mib(32),
            shm: Bytes::mib(16),
            inodes: 4096,
            network: false,
        }
    }

    fn plan(recipe: &Recipe) -> Plan<'_> {
        Plan {
            name: "gavel-here-3fa2-1",
            labels: &[],
            recipe,
            cpus: 1.5,
            runtime: None,
            profile: "/proc/7/fd/9",
            volume: "gavel-agent-0123456789abcdef",
            agent: "agent-3fa2",
            podman: false,
        }
    }

    #[test]
    fn the_command_line_of_a_container() {
        let recipe = recipe();
        let labels = [("gavel.node", "here".to_owned()), ("gavel.instance", "3fa2".to_owned())];
        let argv = Plan { labels: &labels, ..plan(&recipe) }.argv();
        let expected = [
            "run --interactive --rm --pull never --name gavel-here-3fa2-1",
            "--label gavel.node=here --label gavel.instance=3fa2",
            "--network none --sysctl net.ipv4.tcp_max_tw_buckets=0 --stop-timeout 1 --read-only --user 0:0 --workdir / --hostname box --no-healthcheck",
            "--cap-drop ALL --cap-add SETUID --cap-add SETGID --cap-add KILL",
            "--security-opt no-new-privileges --security-opt seccomp=/proc/7/fd/9",
            "--ipc private --cgroupns private",
            "--memory 272629760 --memory-swap 272629760 --pids-limit 66 --cpus 1.5",
            "--ulimit core=1:1 --ulimit nofile=1024:1024 --oom-score-adj 500 --log-driver none",
            "--tmpfs /box:rw,exec,nosuid,nodev,size=67108864,nr_inodes=40096,mode=1777",
            "--tmpfs /tmp:rw,exec,nosuid,nodev,size=33554432,nr_inodes=4096,mode=1777",
            "--tmpfs /dev/shm:rw,nosuid,nodev,noexec,size=16777216,nr_inodes=4096,mode=1777",
            "--tmpfs /dev/mqueue:ro,size=4k",
            "--volume gavel-agent-0123456789abcdef:/gavel:ro --entrypoint /gavel/agent-3fa2",
            "sha256:11fad4e2",
        ];
        assert_eq!(argv, expected.join(" ").split(' ').collect::<Vec<_>>());
    }

    /// What one of the two has more than the other.
    fn difference(left: &Plan, right: &Plan) -> (Vec<String>, Vec<String>) {
        let (left, right) = (left.argv(), right.argv());
        let only = |a: &[String], b: &[String]| a.iter().filter(|arg| !b.contains(arg)).cloned().collect();
        (only(&left, &right), only(&right, &left))
    }

    #[test]
    fn a_network_is_the_default_one_of_the_daemon() {
        let (closed, mut open) = (recipe(), recipe());
        open.network = true;
        let (more, less) = difference(&plan(&closed), &plan(&open));
        let closed = ["--network", "--sysctl", "net.ipv4.tcp_max_tw_buckets=0"].map(str::to_owned).to_vec();
        assert_eq!((more, less), (closed, vec![]));
    }

    #[test]
    fn another_runtime_and_podman_change_little() {
        let recipe = recipe();
        let (_, added) = difference(&plan(&recipe), &Plan { runtime: Some("runsc"), ..plan(&recipe) });
        assert_eq!(added, ["--runtime", "runsc"]);
        let (_, added) = difference(&plan(&recipe), &Plan { podman: true, ..plan(&recipe) });
        assert!(added.len() == 4 && added.iter().all(|arg| arg.ends_with(",notmpcopyup")), "{added:?}");
    }
}
