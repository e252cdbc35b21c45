//! Finds out where this host lets us limit resources.

use crate::native::sys;
use gavel_agent::wire;
use rustix::fs::{Access, access};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Names of all our groups begin so; then come the server's pid and the slot.
const PREFIX: &str = "gavel.";

/// Group of the server itself, on version 2.
const LEAF: &str = "gavel-server";

/// Where groups are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hierarchy {
    V1 {
        memory: PathBuf,
        pids: PathBuf,
        cpuacct: PathBuf,
        cpu: Option<PathBuf>,
    },
    V2 {
        base: PathBuf,
    },
    /// None; the reason is for people.
    Weak {
        why: String,
    },
}

/// What `/proc/self/mountinfo` and `/proc/self/cgroup` say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layout {
    /// (controller, directory of our own group), version 1.
    v1: Vec<(String, PathBuf)>,
    v2: Option<PathBuf>,
}

/// Pure, so that it is tested without a kernel.
fn layout(mountinfo: &str, own: &str) -> Layout {
    // "7:memory:/user.slice" or "0::/user.slice"
    let own_path = |controller: &str| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            names.split(',').any(|name| name == controller).then_some(path)
        })
    };
    let mut out = Layout::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let (Some(root), Some(point), Some(kind)) = (left.get(3), left.get(4), right.first()) else { continue };
        // In a container the mount may show a part of the tree only.
        let inside = |path: &str| {
            let below = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(path);
            Path::new(point).join(below.trim_start_matches('/'))
        };
        match *kind {
            "cgroup2" if out.v2.is_none() => out.v2 = own_path("").map(inside),
            "cgroup" => {
                for option in right.get(2).unwrap_or(&"").split(',') {
                    let known = out.v1.iter().any(|(name, _)| name == option);
                    if let (false, Some(path)) = (known, own_path(option)) {
                        out.v1.push((option.to_owned(), inside(path)));
                    }
                }
            }
            _ => {}
        }
    }
    out
}

impl Hierarchy {
    /// Looks for a place where groups can be made, and prepares it.
    pub fn find() -> Self {
        match Self::look() {
            Self::V2 { base: own } => prepare_v2(&own).map_or_else(|why| Self::Weak { why }, |base| Self::V2 { base }),
            other => other,
        }
    }

    /// The same without preparing anything: a version 2 group is named as it is found.
    pub fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let layout = layout(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let v1 = |name: &str| layout.v1.iter().find(|(known, _)| known == name).map(|(_, path)| path.clone());
        let found = match (v1("memory"), v1("pids"), v1("cpuacct"), layout.v2.clone()) {
            (Some(memory), Some(pids), Some(cpuacct), _) => Self::V1 { memory, pids, cpuacct, cpu: v1("cpu") },
            (_, _, _, Some(base)) => Self::V2 { base },
            _ => return Self::Weak { why: "no cgroup file system is mounted".to_owned() },
        };
        match found.check() {
            Ok(()) => found,
            Err(why) => Self::Weak { why },
        }
    }

    /// Can groups be made here?
    pub fn check(&self) -> Result<(), String> {
        self.directories().into_iter().try_for_each(|dir| {
            access(dir, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|e| format!("cannot make groups below {}: {e}", dir.display()))
        })
    }

    pub fn describe(&self) -> String {
        match self {
            Self::V1 { memory, .. } => format!("cgroup v1 below {}", memory.display()),
            Self::V2 { base } => format!("cgroup v2 below {}", base.display()),
            Self::Weak { why } => format!("no cgroups: {why}"),
        }
    }

    /// What the agent of a slot is told.
    pub fn plan(&self, slot: u32) -> wire::Cgroup {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let name = group_name(slot);
        match self {
            Self::V1 { memory, pids, cpuacct, cpu } => wire::Cgroup::V1 {
                memory: text(memory),
                pids: text(pids),
                cpuacct: text(cpuacct),
                cpu: cpu.as_deref().map(text),
                name,
            },
            Self::V2 { base } => wire::Cgroup::V2 { base: text(base), name },
            Self::Weak { .. } => wire::Cgroup::Weak,
        }
    }

    /// Removes the groups of a slot whose processes are all dead.
    pub fn remove(&self, slot: u32) -> io::Result<()> {
        let name = group_name(slot);
        let with_dot = format!("{name}.");
        self.remove_where(|group| group == name || group.starts_with(&with_dot))
    }

    /// Removes what servers that are gone have left.
    pub fn remove_orphans(&self) -> io::Result<()> {
        self.remove_where(|group| {
            let pid = group.strip_prefix(PREFIX).and_then(|rest| rest.split('.').next()?.parse().ok());
            pid.is_some_and(|pid| !sys::process_exists(pid))
        })
    }

    fn remove_where(&self, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for dir in self.directories() {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(&wanted) && entry.file_type()?.is_dir() {
                    remove_group(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn directories(&self) -> Vec<&Path> {
        match self {
            Self::V1 { memory, pids, cpuacct, cpu } => {
                let mut all: Vec<&Path> = vec![memory, pids, cpuacct];
                all.extend(cpu.as_deref());
                all.dedup();
                all
            }
            Self::V2 { base } => vec![base],
            Self::Weak { .. } => vec![],
        }
    }
}

fn group_name(slot: u32) -> String {
    format!("{PREFIX}{}.{slot}", std::process::id())
}

/// The kernel says busy for a moment after the last process of a group has died.
fn remove_group(path: &Path) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..400 {
        last = match fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(e),
            other => return other,
        };
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    last
}

/// Version 2 lets processes live in leaves only: the server moves into one beside its jobs', in its
/// own (delegated) group; root may use a group at the top instead.
fn prepare_v2(own: &Path) -> Result<PathBuf, String> {
    // Where a server has been before us, or we have before an exec, groups are made beside its leaf.
    let own = own.parent().filter(|_| own.ends_with(LEAF)).unwrap_or(own);
    match delegate(own) {
        Ok(()) => Ok(own.to_owned()),
        Err(why) if rustix::process::geteuid().is_root() => {
            let top = own.ancestors().filter(|dir| dir.join("cgroup.procs").exists()).last().unwrap_or(own);
            let base = top.join("gavel");
            enable(top)
                .and_then(|()| match fs::create_dir(&base) {
                    Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
                    _ => enable(&base),
                })
                .map_err(|e| format!("{why}; cannot use {} either: {e}", base.display()))?;
            Ok(base)
        }
        Err(why) => Err(why),
    }
}

fn delegate(own: &Path) -> Result<(), String> {
    let leaf = own.join(LEAF);
    let moved = match fs::create_dir(&leaf) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => fs::write(leaf.join("cgroup.procs"), "0"),
    };
    moved.and_then(|()| enable(own)).map_err(|e| {
        // Leave the place as it was found.
        let _ = fs::write(own.join("cgroup.procs"), "0").and_then(|()| fs::remove_dir(&leaf));
        format!(
            "cannot use the cgroup {}: {e} (is it delegated to this user, with no other processes in it?)",
            own.display()
        )
    })
}

fn enable(group: &Path) -> io::Result<()> {
    let control = group.join("cgroup.subtree_control");
    fs::write(&control, "+memory +pids")?;
    // It shares processors evenly between jobs; not everybody gets it delegated, and CPU time is counted without it.
    match fs::write(&control, "+cpu") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_is_read_with_controllers_mounted_together() {
        let layout = layout(HYBRID, "5:pids:/\n4:memory:/a/b\n2:cpu,cpuacct:/x\n0::/\n");
        let find = |name: &str| layout.v1.iter().find(|(n, _)| n == name).map(|(_, p)| p.to_str().unwrap());
        assert_eq!(find("memory"), Some("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(find("pids"), Some("/sys/fs/cgroup/pids/"));
        assert_eq!(find("cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct/x"));
        assert_eq!(layout.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified/")));
    }

    #[test]
    fn a_container_that_sees_a_part_of_the_tree_is_read() {
        let mounts = "30 29 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(layout(mounts, "0::/docker/abc/sub").v2.as_deref(), Some(Path::new("/sys/fs/cgroup/sub")));
        let own_namespace = "30 29 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw";
        assert_eq!(layout(own_namespace, "0::/").v2.as_deref(), Some(Path::new("/sys/fs/cgroup/")));
    }
}
