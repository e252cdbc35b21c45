//! The agent's way into containers: a named volume, because the daemon may be on another machine.
//!
//! A file in it is written once, under a name that nobody else uses, and executed only after it was read
//! back and found to be the agent. So any number of servers may fill the volume at once, and one that is
//! killed in the middle leaves half a file that nobody will ever execute.

use super::cli::{Cli, CliError, Trouble, args};
use super::recipe::AGENT_DIR;
use crate::Fault;
use crate::agent::PROGRAM;
use std::io::Read;
use std::time::Duration;

/// Label of the volumes, so that those of other versions can be found and removed.
pub const LABEL: &str = "gavel.agent";

const LIMIT: Duration = Duration::from_secs(60);

/// An archive with more than some copies of the agent is not looked through.
const MAX_ARCHIVE: usize = 64 << 20;

/// By its content: servers of one version share it.
pub fn name() -> String {
    format!("gavel-agent-{}", &blake3::hash(PROGRAM).to_hex()[..16])
}

/// The name of the agent's file in the volume, which is made and filled if need be. `image` is any that is
/// there: a volume can be reached through a container only, though it never runs. `own` is a name that
/// nobody else uses, for this container and for the file.
pub fn prepare(cli: &Cli, image: &str, own: &str, labels: &[(&'static str, String)]) -> Result<String, CliError> {
    let name = name();
    cli.call(&args(&["volume", "create", "--label", &format!("{LABEL}={}", env!("CARGO_PKG_VERSION")), &name]), LIMIT)?;
    let container = format!("gavel-{own}-volume");
    let mut create = args(&["create", "--pull", "never", "--network", "none", "--name", &container]);
    for (label, value) in labels {
        create.extend(args(&["--label", &format!("{label}={value}")]));
    }
    create.extend(args(&["--volume", &format!("{name}:{AGENT_DIR}"), "--entrypoint", "/none", image]));
    cli.call(&create, LIMIT)?;
    let file = find_or_add(cli, &container, own);
    let removed = cli.call(&args(&["rm", "-f", &container]), LIMIT);
    if let Err(error) = removed {
        // By its labels it goes with the orphans.
        tracing::warn!(%error, container, "cannot remove a container");
    }
    file
}

fn find_or_add(cli: &Cli, container: &str, own: &str) -> Result<String, CliError> {
    if let Some(file) = find(cli, container)? {
        return Ok(file);
    }
    let file = format!("agent-{own}");
    let inside = format!("{container}:{AGENT_DIR}/");
    let archive = archive(&file).map_err(|error| odd(cli, &error.to_string()))?;
    cli.exchange(&args(&["cp", "-", &inside]), &archive, 1 << 16, LIMIT)?;
    find(cli, container)?.ok_or_else(|| odd(cli, "the agent was copied into its volume, but is not there"))
}

fn odd(cli: &Cli, detail: &str) -> CliError {
    CliError::new(cli, "cp", Trouble::Other, detail)
}

/// A file of the volume that is the agent, whoever put it there.
fn find(cli: &Cli, container: &str) -> Result<Option<String>, CliError> {
    let inside = format!("{container}:{AGENT_DIR}/.");
    let archive = cli.exchange(&args(&["cp", &inside, "-"]), &[], MAX_ARCHIVE, LIMIT)?;
    Ok(found_in(&archive))
}

/// An archive that cannot be read holds nothing that could be executed.
fn found_in(archive: &[u8]) -> Option<String> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        if !entry.header().entry_type().is_file() || entry.size() != PROGRAM.len() as u64 {
            continue;
        }
        let name = entry.path().ok()?.file_name()?.to_str()?.to_owned();
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o555 == 0o555);
        let mut content = Vec::with_capacity(PROGRAM.len());
        entry.read_to_end(&mut content).ok()?;
        if executable && content == PROGRAM && is_plain(&name) {
            return Some(name);
        }
    }
    None
}

/// It becomes a part of a command line.
fn is_plain(name: &str) -> bool {
    name.starts_with("agent-") && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn archive(file: &str) -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(PROGRAM.len() as u64);
    header.set_mode(0o755);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::with_capacity(PROGRAM.len() + 4096));
    builder.append_data(&mut header, file, PROGRAM)?;
    builder.into_inner()
}

/// Removes the volumes of other versions that no container uses.
pub fn remove_old(cli: &Cli) -> Result<(), Fault> {
    let fault = |error: CliError| Fault::new("remove old volumes", error);
    let filter = format!("label={LABEL}");
    let listed = cli.call(&args(&["volume", "ls", "--quiet", "--filter", &filter]), LIMIT).map_err(fault)?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let own = name();
    for old in listed.lines().map(str::trim).filter(|name| name.starts_with("gavel-agent-") && *name != own) {
        match cli.call(&args(&["volume", "rm", old]), LIMIT) {
            Ok(_) => tracing::info!(volume = old, "removed the agent of another version"),
            // A server of that version runs; its volume goes when it has gone.
            Err(error) if error.trouble == Trouble::InUse => {}
            Err(error) => return Err(fault(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_found_among_other_files_and_half_ones() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_cksum();
            builder.append_data(&mut header, name, content).unwrap();
        };
        let mut other = PROGRAM.to_vec();
        *other.last_mut().unwrap() ^= 1;
        add("agent-half", 0o755, &PROGRAM[..PROGRAM.len() / 2]);
        add("agent-other", 0o755, &other);
        add("agent-plain", 0o644, PROGRAM);
        add("agent odd", 0o755, PROGRAM);
        add("agent-3fa2", 0o755, PROGRAM);
        let archive = builder.into_inner().unwrap();
        assert_eq!(found_in(&archive).as_deref(), Some("agent-3fa2"));
        assert_eq!(found_in(&archive[..archive.len() - PROGRAM.len()]), None);
        assert_eq!(found_in(b""), None);
    }

    #[test]
    fn what_is_put_in_is_found() {
        assert_eq!(found_in(&archive("agent-1-2").unwrap()).as_deref(), Some("agent-1-2"));
    }
}
