//! Whose containers are whose, and which ones belong to nobody any more.
//!
//! A server that is killed takes its containers along: their agents end when nobody holds their stdin.
//! What that leaves, because the daemon was down say, is found by labels and removed by the next server
//! that sees it. A container is an orphan if its server is provably dead, and never on suspicion.

use super::cli::{Cli, CliError, args};
use crate::Fault;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::collections::HashSet;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Who made a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of a data directory, or of this process alone where it has none. Of one name only one server runs.
    pub node: String,
    /// Of this run of it.
    pub instance: String,
    pub process: Process,
}

/// A process that can be told from every other one that ever ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Of the machine, as long as it is up.
    boot: String,
    /// Numbers mean something in their namespace only.
    namespace: String,
    pid: u32,
    /// Numbers come again; in ticks since the boot.
    started: u64,
}

impl Identity {
    pub fn of_this_process(node: Option<&str>) -> Self {
        let process = Process::this();
        let seed = format!("{} {:?}", process.label(), std::time::SystemTime::now());
        let instance = blake3::hash(seed.as_bytes()).to_hex()[..8].to_owned();
        Self { node: node.unwrap_or(&instance).to_owned(), instance, process }
    }

    /// For names: one that no other run has.
    pub fn name(&self) -> String {
        let node: String =
            self.node.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        if self.node == self.instance { node } else { format!("{node}-{}", self.instance) }
    }

    pub fn labels(&self) -> Vec<(&'static str, String)> {
        vec![
            ("gavel.node", self.node.clone()),
            ("gavel.instance", self.instance.clone()),
            ("gavel.process", self.process.label()),
        ]
    }
}

impl Process {
    fn this() -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let pid = std::process::id();
        Self {
            boot: text("/proc/sys/kernel/random/boot_id"),
            namespace: namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect(),
            pid,
            started: started(pid).unwrap_or_default(),
        }
    }

    fn label(&self) -> String {
        format!("{}/{}/{}/{}", self.boot, self.namespace, self.pid, self.started)
    }

    fn parse(label: &str) -> Option<Self> {
        let mut parts = label.split('/');
        let (boot, namespace) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { boot, namespace, pid, started })
    }

    /// For certain, which needs that we would see it if it lived.
    fn is_dead(&self) -> bool {
        let here = Self::this();
        if self.boot.is_empty() || (&self.boot, &self.namespace) != (&here.boot, &here.namespace) {
            return false;
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return false };
        match test_kill_process(pid) {
            Err(Errno::SRCH) => true,
            // Somebody else's process may hide its times.
            _ => started(self.pid).is_some_and(|started| started != self.started),
        }
    }
}

/// When a process was started: the 22nd field, counted behind the name, which may hold anything.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A container with our labels.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    node: String,
    instance: String,
    process: Option<Process>,
}

fn parse(listing: &str) -> Vec<Found> {
    let one = |line: &str| {
        let mut parts = line.split('\t').map(str::trim);
        let found = Found {
            name: parts.next()?.to_owned(),
            node: parts.next()?.to_owned(),
            instance: parts.next()?.to_owned(),
            process: parts.next().and_then(Process::parse),
        };
        let complete = [&found.name, &found.node, &found.instance].iter().all(|part| !part.is_empty());
        complete.then_some(found)
    };
    listing.lines().filter_map(one).collect()
}

/// The names of those that nobody will ever use or remove. `known` are the ones that this process has.
fn choose(
    found: Vec<Found>,
    own: &Identity,
    known: &HashSet<String>,
    is_dead: impl Fn(&Process) -> bool,
) -> Vec<String> {
    let orphaned = |found: &Found| match () {
        () if found.instance == own.instance => {
            // The one at the volume comes and goes without being known.
            !known.contains(&found.name) && !found.name.ends_with("-volume")
        }
        // An earlier run of this very server: there is one at a time.
        () if found.node == own.node => true,
        () => found.process.as_ref().is_some_and(&is_dead),
    };
    found.into_iter().filter(orphaned).map(|found| found.name).collect()
}

/// Removes what belongs to nobody; the number of containers that were.
pub fn remove(cli: &Cli, own: &Identity, known: &HashSet<String>) -> Result<usize, Fault> {
    let fault = |error: CliError| Fault::new("remove the containers of servers that are gone", error);
    let format = "{{.Names}}\t{{.Label \"gavel.node\"}}\t{{.Label \"gavel.instance\"}}\t{{.Label \"gavel.process\"}}";
    let list = args(&["ps", "--all", "--no-trunc", "--filter", "label=gavel.node", "--format", format]);
    let listing = cli.call(&list, LIMIT).map_err(fault)?;
    let names = choose(parse(&String::from_utf8_lossy(&listing)), own, known, Process::is_dead);
    if names.is_empty() {
        return Ok(0);
    }
    let mut remove = args(&["rm", "--force"]);
    remove.extend(names.iter().cloned());
    let (removed, _) = cli.call_for_each(&remove, LIMIT).map_err(fault)?;
    Ok(removed.lines().count())
}

/// The names of all containers of this run.
pub fn own(cli: &Cli, own: &Identity) -> Result<Vec<String>, CliError> {
    let filter = format!("label=gavel.instance={}", own.instance);
    let list = args(&["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
    let listing = cli.call(&list, LIMIT)?;
    Ok(String::from_utf8_lossy(&listing).lines().map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32) -> Process {
        Process { boot: "b".to_owned(), namespace: "1".to_owned(), pid, started: 7 }
    }

    #[test]
    fn only_what_certainly_belongs_to_nobody_is_chosen() {
        let own = Identity { node: "here".to_owned(), instance: "now".to_owned(), process: process(1) };
        let listing = "known\there\tnow\tb/1/1/7\n\
                       forgotten\there\tnow\tb/1/1/7\n\
                       gavel-here-now-volume\there\tnow\tb/1/1/7\n\
                       earlier\there\tthen\tb/1/2/7\n\
                       others\tthere\tnow2\tb/1/2/7\n\
                       dead\tthere\tnow3\tb/1/3/7\n\
                       unsure\tthere\tnow4\todd\n\
                       foreign\t\t\t\n\
                       \n";
        let known = HashSet::from(["known".to_owned()]);
        let chosen = choose(parse(listing), &own, &known, |process| process.pid == 3);
        assert_eq!(chosen, ["forgotten", "earlier", "dead"]);
    }

    #[test]
    fn names_are_what_the_daemon_takes() {
        let identity =
            Identity { node: "büro.example:1".to_owned(), instance: "3fa2".to_owned(), process: process(1) };
        assert_eq!(identity.name(), "b-ro-example-1-3fa2");
        assert_eq!(Identity { node: "3fa2".to_owned(), ..identity }.name(), "3fa2");
    }

    #[test]
    fn a_process_is_dead_only_if_we_would_see_it() {
        let this = Process::this();
        assert_eq!(Process::parse(&this.label()), Some(this.clone()));
        assert!(!this.is_dead());
        assert!(!Process { pid: 1, started: 0, boot: "other".to_owned(), ..this.clone() }.is_dead());
        assert!(!Process { namespace: "1".to_owned(), started: 0, ..this.clone() }.is_dead());
        assert!(Process { started: this.started + 1, ..this.clone() }.is_dead(), "its number came again");
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let gone = Process { pid: child.id(), started: started(child.id()).unwrap_or(1), ..this };
        child.wait().unwrap();
        assert!(gone.is_dead());
    }
}
