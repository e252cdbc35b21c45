//! The native Linux backend: namespaces, cgroups, seccomp, and one agent per worker.

mod agent;
mod cgroup;
mod host;
mod probe;
mod sys;

pub use probe::{Check, Grade, probe};

use crate::{Backend, Cancel, Command, Fault, OnOutput, Sandbox, seccomp};
use agent::Agent;
use cgroup::Hierarchy;
use gavel_agent::wire::{Host, Place, Setup};
use gavel_core::Facts;
use rustix::fs::StatVfsMountFlags;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// First host user id of sandboxes: slot n runs its jobs as this plus n. The range from 0x70000000 is
/// used by no system component (systemd's list of user and group ids).
pub const UID_BASE: u32 = 0x7000_0000;

#[derive(Debug, Clone)]
pub struct NativeOptions {
    pub uid_base: u32,
    /// Run even where memory and processes of a job cannot be limited together.
    pub allow_weak_isolation: bool,
    pub allow_network: bool,
    /// Directory whose files commands may get as [`crate::Content::Shared`]; it must exist.
    pub shared_dir: Option<PathBuf>,
}

impl Default for NativeOptions {
    fn default() -> Self {
        Self { uid_base: UID_BASE, allow_weak_isolation: false, allow_network: false, shared_dir: None }
    }
}

/// Roots that one worker keeps an agent for; for another one it ends the agent that it needed least lately.
const ROOTS: usize = 8;

/// Opens native sandboxes.
#[derive(Debug, Clone)]
pub struct Native(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: NativeOptions,
    hierarchy: Arc<Hierarchy>,
    program: OwnedFd,
    filters: seccomp::Filters,
}

impl Native {
    pub fn new(mut options: NativeOptions) -> Result<Self, Fault> {
        // Programs cannot be executed from such a directory, however it is mounted again.
        if options.shared_dir.as_deref().is_some_and(is_noexec) {
            options.shared_dir = None;
        }
        sys::seccomp_works().map_err(|e| Fault::new("use seccomp filters", e))?;
        let hierarchy = Hierarchy::find();
        if let (Hierarchy::Weak { why }, false) = (&hierarchy, options.allow_weak_isolation) {
            return Err(Fault::new(
                "find a writable cgroup",
                format!(
                    "{why}; run as root, or in a cgroup delegated to this user (systemd-run --user --scope -p Delegate=yes), or accept weak isolation"
                ),
            ));
        }
        if let Err(e) = hierarchy.remove_orphans() {
            tracing::warn!(error = %e, "cannot remove cgroups of servers that are gone");
        }
        Ok(Self(Arc::new(Inner {
            hierarchy: Arc::new(hierarchy),
            program: crate::agent::in_memory()?,
            filters: seccomp::filters()?,
            options,
        })))
    }

    /// How resources are limited here, for people.
    pub fn describe(&self) -> String {
        self.0.hierarchy.describe()
    }
}

impl Inner {
    /// Starts an agent whose jobs see this root; without one, the host's directories.
    fn start(&self, slot: u32, root: Option<&Path>) -> Result<Agent, Fault> {
        Agent::start(&self.program, &self.setup(slot, root)?, Arc::clone(&self.hierarchy), slot)
    }

    fn setup(&self, slot: u32, root: Option<&Path>) -> Result<Setup, Fault> {
        let rootless = !rustix::process::geteuid().is_root();
        let id =
            self.options.uid_base.checked_add(slot).ok_or_else(|| Fault::new("choose a user id", "too many slots"))?;
        let mut host = Host {
            root: String::new(),
            binds: Vec::new(),
            links: Vec::new(),
            copies: Vec::new(),
            files: Vec::new(),
            shared: self.options.shared_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
            hostname: String::new(),
            rootless,
            cgroup: self.hierarchy.plan(slot),
            allow_network: self.options.allow_network,
        };
        host::describe(&mut host, id, root).map_err(|e| Fault::new("read an unpacked image", e))?;
        Ok(Setup {
            place: Place::Host(Box::new(host)),
            uid: id,
            gid: id,
            own_filter: self.filters.early.clone(),
            job_filter: self.filters.late.clone(),
        })
    }
}

fn is_noexec(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

impl Backend for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn check(&self) -> Result<(), Fault> {
        self.0.hierarchy.check().map_err(|cause| Fault::new("make cgroups", cause))
    }

    fn open(&self, slot: u32) -> Result<Box<dyn Sandbox>, Fault> {
        let mut sandbox = NativeSandbox { native: Arc::clone(&self.0), slot, agents: Vec::new() };
        // What cannot work should say so now, and not when the first job is there.
        sandbox.agent(None)?;
        Ok(Box::new(sandbox))
    }
}

struct NativeSandbox {
    native: Arc<Inner>,
    slot: u32,
    /// The one that was used last in front.
    agents: Vec<Rooted>,
}

/// An agent and the root that it was made for.
struct Rooted {
    root: Option<PathBuf>,
    /// Which of this worker's it is: each has groups and a user of its own.
    place: u32,
    agent: Agent,
}

/// Distance between the slots of one worker's agents: more workers there are not.
const PLACE: u32 = 1 << 16;

impl NativeSandbox {
    fn agent(&mut self, root: Option<&Path>) -> Result<&mut Agent, Fault> {
        match self.agents.iter().position(|rooted| rooted.root.as_deref() == root) {
            Some(0) => {}
            Some(at) => self.agents[..=at].rotate_right(1),
            None => {
                // Dropped first: the new one may get its place.
                self.agents.truncate(ROOTS - 1);
                let place = (0..).find(|place| self.agents.iter().all(|rooted| rooted.place != *place)).unwrap_or(0);
                let agent = self.native.start(self.slot + place * PLACE, root)?;
                self.agents.insert(0, Rooted { root: root.map(Path::to_owned), place, agent });
            }
        }
        Ok(&mut self.agents[0].agent)
    }
}

impl Sandbox for NativeSandbox {
    fn shares_files(&self, _image: Option<&str>) -> bool {
        self.native.options.shared_dir.is_some()
    }

    fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        if let Some(facts) = crate::agent::too_large(command) {
            return Ok(facts);
        }
        self.agent(command.root)?.run(command, cancel, on_output)
    }
}
