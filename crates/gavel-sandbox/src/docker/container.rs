//! One container: a client that runs it, with the agent at the other end of its pipes.

use super::DockerOptions;
use super::cli::{Cli, CliError, Trouble, timespec};
use super::profile::Profile;
use super::recipe::{Plan, Recipe};
use super::stock::{Failure, Id};
use super::{Policy, orphans, volume};
use crate::Fault;
use crate::agent::Link;
use crate::seccomp::{self, Filters};
use gavel_agent::wire::{Container as Inside, Place, Setup};
use gavel_core::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Jobs of containers run as users from here on. All stay below 65536, the number of ids that a daemon
/// with remapped users has; no system component uses this range in an image.
const FIRST_UID: u32 = 20_000;

/// Users of one container, for its jobs one after the other.
const UIDS: u32 = 100;

/// Containers that may be open at once, each with users of its own: the kernel counts some resources by
/// user, whatever container they are in.
pub const SLOTS: u32 = 400;

/// How long a container may take until its agent takes commands. A third of a second is usual.
const START: Duration = Duration::from_secs(30);

/// What the agent of a container keeps of compiled programs. Together with the agent itself and the largest
/// order that it keeps room for it fits into [`super::OVERHEAD`].
const KEPT: Bytes = Bytes::mib(2);

/// How long a client may take to say why it failed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is kept of them.
const MAX_MESSAGES: usize = 64 << 10;

/// How long the agent may take to end what a job left running and to empty its directories.
const CLEAN: Duration = Duration::from_secs(10);

/// Makes containers.
pub struct Maker {
    pub cli: Cli,
    cpus: f64,
    runtime: Option<String>,
    /// More than one command will run in a container.
    reuse: bool,
    profile: Profile,
    filters: Filters,
    own: String,
    labels: Vec<(&'static str, String)>,
    /// The agent's file in its volume, once that was looked at.
    agent: Mutex<Option<String>>,
    /// What people call the images that are known by their id.
    pub names: Mutex<HashMap<String, String>>,
}

/// Why there is no container.
#[derive(Debug)]
pub struct Unmade {
    pub failure: Failure,
    /// For metrics.
    pub why: &'static str,
    pub fault: Fault,
}

impl Maker {
    pub fn new(cli: Cli, options: &DockerOptions, identity: &orphans::Identity) -> Result<Self, Fault> {
        Ok(Self {
            cli,
            cpus: options.cpus,
            runtime: options.runtime.clone(),
            reuse: matches!(options.policy, Policy::Reuse { .. }),
            profile: Profile::new()?,
            filters: seccomp::filters()?,
            own: identity.name(),
            labels: identity.labels(),
            agent: Mutex::new(None),
            names: Mutex::default(),
        })
    }

    /// The name is known before the container is there, so that whatever comes of it can be removed.
    pub fn name(&self, id: Id) -> String {
        format!("gavel-{}-{id}", self.own)
    }

    pub fn make(&self, id: Id, recipe: &Recipe, slot: u32) -> Result<Container, Unmade> {
        let agent = self.agent(&recipe.image).map_err(unmade)?;
        let name = self.name(id);
        let mut labels = self.labels.clone();
        labels.push(("gavel.image", self.image_name(&recipe.image)));
        let volume = volume::name();
        let argv = Plan {
            name: &name,
            labels: &labels,
            recipe,
            cpus: self.cpus,
            runtime: self.runtime.as_deref(),
            profile: &self.profile.path(),
            volume: &volume,
            agent: &agent,
            podman: self.cli.is_podman(),
        }
        .argv();
        let said = Messages::new()?;
        let child = self.cli.start_with(&argv, said.for_client()?).map_err(unmade)?;
        let link = Link::new(child).map_err(passing)?;
        let mut container = Container { name, link, commands: 0, born: Instant::now() };
        if self.reuse {
            container.link.keep_files(KEPT);
        }
        let greeted = container.link.greet(&self.setup(slot), START);
        let Err(fault) = greeted else { return Ok(container) };
        // Perhaps somebody removed the volume, and the daemon made an empty one in its place.
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Err(self.reason(&argv, container.link.child(), &said, fault))
    }

    fn setup(&self, slot: u32) -> Setup {
        let id = FIRST_UID + slot * UIDS;
        Setup {
            place: Place::Container(Inside { uids: UIDS, reuse: self.reuse }),
            uid: id,
            gid: id,
            own_filter: self.filters.early.clone(),
            job_filter: self.filters.late.clone(),
        }
    }

    fn agent(&self, image: &str) -> Result<String, CliError> {
        // The lock is held meanwhile: others would do the same work.
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*agent {
            return Ok(agent.clone());
        }
        let found = volume::prepare(&self.cli, image, &self.own, &self.labels)?;
        Ok(agent.insert(found).clone())
    }

    fn image_name(&self, id: &str) -> String {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(id).map_or(id, String::as_str).to_owned()
    }

    /// Who is to blame: the client says more than the silence of the agent.
    fn reason(&self, argv: &[String], child: &mut Child, said: &Messages, fault: Fault) -> Unmade {
        if ends_within(child, LAST_WORDS)
            && let Ok(Some(status)) = child.try_wait()
        {
            let mut unmade = unmade(self.cli.failed(argv, &said.read(), status));
            unmade.fault.cause = format!("{}; the agent: {}", unmade.fault.cause, fault.cause);
            return unmade;
        }
        // The client runs, but nobody answers: if not the container then the daemon hangs.
        let why = Trouble::Timeout;
        let fault = Fault::new(fault.step, format!("{}; {}", fault.cause, why.remedy()));
        Unmade { failure: Failure::Daemon, why: why.word(), fault }
    }
}

fn passing(fault: Fault) -> Unmade {
    Unmade { failure: Failure::Passing, why: Trouble::Other.word(), fault }
}

fn unmade(error: CliError) -> Unmade {
    let failure = match error.trouble {
        trouble if trouble.is_daemons() => Failure::Daemon,
        Trouble::NoImage => Failure::Final,
        _ => Failure::Passing,
    };
    Unmade { failure, why: error.trouble.word(), fault: Fault::new("start a container", error) }
}

fn ends_within(child: &Child, limit: Duration) -> bool {
    let Ok(ended) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else { return false };
    let mut fds = [PollFd::new(&ended, PollFlags::IN)];
    // Interrupted is as good as too late: it is about the text of a message only.
    poll(&mut fds, Some(&timespec(limit))).is_ok_and(|ready| ready > 0)
}

/// A running one. Ending its client leaves it to be removed by its name.
pub struct Container {
    pub name: String,
    pub link: Link,
    /// That it has been given.
    pub commands: u32,
    born: Instant,
}

impl Container {
    /// Ended by itself, or by somebody else.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.link.child().try_wait(), Ok(None))
    }

    /// Asks it to end, with everything in it. The client of one that was asked ends when the daemon has removed it.
    pub fn ask_to_end(&mut self) -> std::io::Result<()> {
        self.link.hang_up()
    }

    /// Has it ended as it was asked to, and been removed? A client that lost the daemon says that it failed.
    pub fn is_removed_within(&mut self, limit: Duration) -> bool {
        let child = self.link.child();
        ends_within(child, limit) && matches!(child.try_wait(), Ok(Some(status)) if status.success())
    }

    pub fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Fit for a job, of whoever it is; a fault if anything of the last one may be left.
    pub fn wait_until_clean(&mut self) -> Result<(), Fault> {
        if self.commands == 0 { Ok(()) } else { self.link.wait_until_clean(CLEAN) }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let child = self.link.child();
        // It fails only where the client has ended before.
        _ = child.kill();
        if let Err(error) = child.wait() {
            tracing::warn!(%error, name = self.name, "cannot wait for a client");
        }
    }
}

/// Where a client writes its messages: a file in memory that cannot grow. A pipe would have to be read by
/// somebody, or the client would wait for that, and with it the agent's answers on the same connection.
struct Messages(File);

impl Messages {
    fn new() -> Result<Self, Unmade> {
        let make = || {
            let fd = memfd_create("docker-stderr", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            rustix::fs::ftruncate(&fd, MAX_MESSAGES as u64)?;
            fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK)?;
            Ok::<_, Errno>(Self(File::from(fd)))
        };
        make().map_err(|error| passing(Fault::new("make a file for messages", error)))
    }

    fn for_client(&self) -> Result<Stdio, Unmade> {
        let file = self.0.try_clone();
        file.map(Stdio::from).map_err(|error| passing(Fault::new("make a file for messages", error)))
    }

    fn read(&self) -> String {
        let mut bytes = vec![0; MAX_MESSAGES];
        // A message that cannot be read is a message less; the failure itself is known.
        let length = self.0.read_at(&mut bytes, 0).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).trim_end_matches('\0').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_stay_below_what_a_remapping_daemon_has() {
        const { assert!(FIRST_UID + SLOTS * UIDS < 65_536) }
    }

    #[test]
    fn messages_are_kept_up_to_a_bound() {
        let said = Messages::new().unwrap();
        let speak = |script: &str| {
            let mut child = std::process::Command::new("/bin/sh");
            child.args(["-c", script]).stderr(said.for_client().unwrap()).spawn().unwrap().wait().unwrap()
        };
        assert!(speak("echo no such image >&2").success());
        assert_eq!(said.read(), "no such image\n");
        assert!(!speak("head -c 1000000 /dev/zero >&2").success());
        assert!(said.read().len() <= MAX_MESSAGES);
    }
}
