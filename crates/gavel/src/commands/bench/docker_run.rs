//! What a script around Docker would do: one hardened `docker run --rm` for each job.

use super::bare::Program;
use gavel_core::Language;
use std::process::Command;

/// The command line that runs a compiled program in a container of its own. The program comes in by a bind
/// mount, so the daemon must be on this machine.
pub fn command(cli: &str, language: &Language, program: &Program) -> Command {
    let limits = &language.limits;
    let memory = limits.memory.0.to_string();
    let mut command = Command::new(cli);
    command.args(["run", "--rm", "-i", "--pull", "never", "--network", "none", "--read-only", "--init"]);
    command.args(["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", "65534:65534"]);
    command.args(["--memory", &memory, "--memory-swap", &memory, "--cpus", "1"]);
    command.args(["--pids-limit", &limits.processes.to_string(), "--ulimit", "core=0:0"]);
    command.args(["--tmpfs", "/tmp:rw,exec,nosuid,nodev,size=32m", "--log-driver", "none"]);
    command.arg("--volume").arg(format!("{}:/box:ro", program.dir().display()));
    command.args(["--workdir", "/box", language.image.as_deref().unwrap_or_default()]);
    command.args(program.argv());
    command
}
