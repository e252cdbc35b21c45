//! What this host offers a native sandbox: the preconditions as a list, each with its remedy.

use crate::native::cgroup::Hierarchy;
use crate::native::sys;
use std::fs;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    Ok,
    /// It works, but less well or less safely than it could.
    Warn,
    Fail,
}

#[derive(Debug, Clone)]
pub struct Check {
    pub name: &'static str,
    pub grade: Grade,
    pub found: String,
    /// Empty where nothing needs to be done.
    pub remedy: String,
}

impl Check {
    fn new(name: &'static str, grade: Grade, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            grade,
            found: found.into(),
            remedy: if grade == Grade::Ok { String::new() } else { remedy.into() },
        }
    }
}

pub fn probe() -> Vec<Check> {
    vec![kernel(), privileges(), seccomp(), cgroups(), swap(), core_pattern()]
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let grade = match version {
        v if v < (5, 10) => Grade::Fail,
        v if v < (5, 19) => Grade::Warn,
        _ => Grade::Ok,
    };
    Check::new("kernel", grade, release, "use Linux 5.10 or later; from 5.19 on peak memory is exact on cgroup v2")
}

fn privileges() -> Check {
    if rustix::process::geteuid().is_root() {
        return Check::new("privileges", Grade::Ok, "root", "");
    }
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    let forbidden = limit.trim() == "0"
        || fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").is_ok_and(|value| value.trim() == "0");
    let (grade, found) =
        if forbidden { (Grade::Fail, "user namespaces are forbidden") } else { (Grade::Ok, "user namespaces") };
    Check::new(
        "privileges",
        grade,
        found,
        "run as root, or: sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
    )
}

fn seccomp() -> Check {
    match sys::seccomp_works() {
        Ok(()) => Check::new("seccomp", Grade::Ok, "filters work", ""),
        Err(e) => Check::new("seccomp", Grade::Fail, e.to_string(), "use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn cgroups() -> Check {
    let hierarchy = Hierarchy::look();
    let grade = if matches!(hierarchy, Hierarchy::Weak { .. }) { Grade::Fail } else { Grade::Ok };
    let remedy = "run as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes gavel serve";
    Check::new("cgroups", grade, hierarchy.describe(), remedy)
}

fn swap() -> Check {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let on = swaps.lines().count() > 1;
    let limited = Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()
        || Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let grade = if on && !limited { Grade::Warn } else { Grade::Ok };
    let found = match (on, limited) {
        (false, _) => "off",
        (true, true) => "on, and limited for jobs",
        (true, false) => "on, and not limited for jobs",
    };
    Check::new("swap", grade, found, "swapoff -a, or boot with swapaccount=1: swap hides memory use and ruins timing")
}

fn core_pattern() -> Check {
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let pattern = pattern.trim();
    // Jobs have a core limit of 1 that they cannot change, which keeps the kernel from starting a
    // helper; but whoever runs a pipe as root for every crash should know.
    let grade = if pattern.starts_with('|') { Grade::Warn } else { Grade::Ok };
    Check::new(
        "core dumps",
        grade,
        format!("off for jobs; core_pattern is {pattern:?}"),
        "sysctl kernel.core_pattern=core",
    )
}
