//! The native Linux backend: namespaces, cgroups, seccomp, and one agent per worker.

mod agent;
mod cgroup;
mod host;
mod probe;
mod seccomp;
mod sys;

pub use probe::{Check, Grade, probe};

use crate::{Backend, Cancel, Command, Fault, OnOutput, Sandbox};
use agent::Agent;
use cgroup::Hierarchy;
use gavel_agent::wire::Setup;
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

/// Opens native sandboxes.
#[derive(Debug)]
pub struct Native {
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
        Ok(Self { hierarchy: Arc::new(hierarchy), program: agent::program()?, filters: seccomp::filters()?, options })
    }

    /// How resources are limited here, for people.
    pub fn describe(&self) -> String {
        self.hierarchy.describe()
    }

    fn setup(&self, slot: u32) -> Result<Setup, Fault> {
        let rootless = !rustix::process::geteuid().is_root();
        let id =
            self.options.uid_base.checked_add(slot).ok_or_else(|| Fault::new("choose a user id", "too many slots"))?;
        let mut setup = Setup {
            binds: Vec::new(),
            links: Vec::new(),
            copies: Vec::new(),
            files: Vec::new(),
            shared: self.options.shared_dir.as_ref().map(|dir| dir.to_string_lossy().into_owned()),
            hostname: String::new(),
            uid: id,
            gid: id,
            rootless,
            cgroup: self.hierarchy.plan(slot),
            own_filter: self.filters.early.clone(),
            job_filter: self.filters.late.clone(),
            allow_network: self.options.allow_network,
        };
        host::describe(&mut setup);
        Ok(setup)
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
        self.hierarchy.check().map_err(|cause| Fault::new("make cgroups", cause))
    }

    fn open(&self, slot: u32) -> Result<Box<dyn Sandbox>, Fault> {
        let agent = Agent::start(&self.program, &self.setup(slot)?, Arc::clone(&self.hierarchy), slot)?;
        Ok(Box::new(NativeSandbox { agent, shares_files: self.options.shared_dir.is_some() }))
    }
}

struct NativeSandbox {
    agent: Agent,
    shares_files: bool,
}

impl Sandbox for NativeSandbox {
    fn shares_files(&self) -> bool {
        self.shares_files
    }

    fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        self.agent.run(command, cancel, on_output)
    }
}
