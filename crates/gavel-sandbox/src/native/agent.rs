//! The agent of one worker: started from memory, and cleaned up after.

use crate::agent::Link;
use crate::native::cgroup::Hierarchy;
use crate::{Cancel, Command, Fault, OnOutput};
use gavel_agent::wire::Setup;
use gavel_core::Facts;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// How long a new agent may take to build its root directory.
const START: Duration = Duration::from_secs(20);

/// One running agent. Dropping it kills it and all it runs, and removes its groups.
pub struct Agent {
    link: Link,
    hierarchy: Arc<Hierarchy>,
    slot: u32,
}

impl Agent {
    pub fn start(program: &OwnedFd, setup: &Setup, hierarchy: Arc<Hierarchy>, slot: u32) -> Result<Self, Fault> {
        let child = std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .arg0("gavel-agent")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| Fault::new("start the agent", e))?;
        let mut agent = Self { link: Link::new(child)?, hierarchy, slot };
        agent.link.greet(setup, START)?;
        Ok(agent)
    }

    pub fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        self.link.run(command, cancel, on_output)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The init of a running command dies with the agent, and all of its processes with the init.
        let child = self.link.child();
        let killed = child.kill().and_then(|()| child.wait());
        if let Err(e) = killed.map(drop).and_then(|()| self.hierarchy.remove(self.slot)) {
            tracing::error!(slot = self.slot, error = %e, "cannot clean up after an agent");
        }
    }
}
