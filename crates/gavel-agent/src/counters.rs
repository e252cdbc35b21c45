//! The control groups of the container that the agent is in: it may read them and do nothing else. Whoever
//! made the container has set its limits.

use crate::cgroup::{Start, Usage, keyed, read_number, read_text};
use crate::failed::{At, Failed};
use crate::sys;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::cell::Cell;
use std::os::fd::OwnedFd;

/// A young command is looked at more often than an old one (nanoseconds): what a short one uses is gone
/// soon, and a look costs some 20 µs.
pub const OFTEN: u64 = 2_000_000;
pub const SELDOM: u64 = 20_000_000;

pub struct Counters {
    usage: OwnedFd,
    /// Absent on version 2 before Linux 5.19.
    peak: Option<OwnedFd>,
    oom: OwnedFd,
    cpu: Cpu,
    /// The highest use that was seen of this command. The kernel's own peak cannot be reset from here, so it
    /// says nothing about a command that used less than an earlier one, or than the container's start.
    seen: Cell<u64>,
}

enum Cpu {
    /// Version 1: one number, nanoseconds.
    Usage(OwnedFd),
    /// Version 2: a line among others, microseconds.
    Stat(OwnedFd),
}

impl Counters {
    /// `root` is where the container sees its groups: /sys/fs/cgroup.
    pub fn open(root: &str) -> Result<Self, Failed> {
        let keep = |name: &str| open(format!("{root}/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let need = |name: &str| keep(name).at(format!("open {name}"));
        let seen = Cell::new(0);
        match keep("memory.current") {
            Ok(usage) => Ok(Self {
                usage,
                peak: keep("memory.peak").ok(),
                oom: need("memory.events")?,
                cpu: Cpu::Stat(need("cpu.stat")?),
                seen,
            }),
            Err(Errno::NOENT) => Ok(Self {
                usage: need("memory/memory.usage_in_bytes")?,
                peak: Some(need("memory/memory.max_usage_in_bytes")?),
                oom: need("memory/memory.oom_control")?,
                // Mounted alone or together with another controller, in either order of names.
                cpu: ["cpuacct", "cpu,cpuacct", "cpuacct,cpu"]
                    .iter()
                    .find_map(|name| keep(&format!("{name}/cpuacct.usage")).ok())
                    .map(Cpu::Usage)
                    .ok_or(Errno::NOENT)
                    .at("open cpuacct.usage")?,
                seen,
            }),
            Err(e) => Err(e).at("open the container's cgroup"),
        }
    }

    pub fn begin(&self, given_back: u64) -> Result<Start, Failed> {
        let usage = self.usage()?;
        self.seen.set(usage);
        Ok(Start {
            baseline: usage.saturating_sub(given_back),
            peak: self.peak()?,
            oom_kills: self.oom_kills()?,
            cpu: self.cpu()?,
            own_cpu: sys::own_cpu(),
        })
    }

    pub fn look(&self) -> Result<(), Failed> {
        self.seen.set(self.seen.get().max(self.usage()?));
        Ok(())
    }

    pub fn cpu_since(&self, start: &Start) -> Result<u64, Failed> {
        let own = sys::own_cpu() - start.own_cpu;
        Ok(self.cpu()?.saturating_sub(start.cpu).saturating_sub(own))
    }

    pub fn oom_kills(&self) -> Result<u64, Failed> {
        let mut buffer = [0u8; 256];
        Ok(keyed(read_text(&self.oom, &mut buffer, "read the count of OOM kills")?, "oom_kill"))
    }

    pub fn end(&self, start: &Start) -> Result<Usage, Failed> {
        // The files that the command leaves are still there.
        self.look()?;
        let peak = self.peak()?;
        let highest = if peak > start.peak { peak } else { self.seen.get() };
        Ok(Usage {
            peak_memory: highest.saturating_sub(start.baseline),
            oom_kills: self.oom_kills()?.saturating_sub(start.oom_kills),
            cpu: self.cpu_since(start)?,
        })
    }

    fn usage(&self) -> Result<u64, Failed> {
        read_number(&self.usage, "read the container's memory use")
    }

    fn peak(&self) -> Result<u64, Failed> {
        self.peak.as_ref().map_or(Ok(0), |file| read_number(file, "read the container's peak memory"))
    }

    fn cpu(&self) -> Result<u64, Failed> {
        match &self.cpu {
            Cpu::Usage(file) => read_number(file, "read cpuacct.usage"),
            Cpu::Stat(file) => {
                let mut buffer = [0u8; 1024];
                Ok(keyed(read_text(file, &mut buffer, "read cpu.stat")?, "usage_usec") * 1000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn groups(name: &str, files: &[(&str, &str)]) -> String {
        let root = std::env::temp_dir().join(format!("gavel-counters-{name}-{}", std::process::id()));
        for (file, text) in files {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), text).unwrap();
        }
        root.to_str().unwrap().to_owned()
    }

    /// A command that uses 300 bytes while somebody looks, and 200 in the end.
    fn measure(root: &str, usage: &str, change: impl FnOnce()) -> Usage {
        let set = |text: &str| fs::write(format!("{root}/{usage}"), text).unwrap();
        let counters = Counters::open(root).unwrap();
        let start = counters.begin(0).unwrap();
        set("400\n");
        counters.look().unwrap();
        set("300\n");
        change();
        let used = counters.end(&start).unwrap();
        fs::remove_dir_all(root).unwrap();
        used
    }

    #[test]
    fn version_1_is_read_wherever_cpu_time_is_counted() {
        let root = groups(
            "v1",
            &[
                ("memory/memory.usage_in_bytes", "100\n"),
                ("memory/memory.max_usage_in_bytes", "9000\n"),
                ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
                ("cpu,cpuacct/cpuacct.usage", "5000000000\n"),
            ],
        );
        let used = measure(&root, "memory/memory.usage_in_bytes", || {
            fs::write(format!("{root}/cpu,cpuacct/cpuacct.usage"), "6000000000\n").unwrap();
            fs::write(format!("{root}/memory/memory.oom_control"), "oom_kill_disable 0\noom_kill 4\n").unwrap();
        });
        // The container's peak is from before this command.
        assert_eq!((used.peak_memory, used.oom_kills), (300, 1));
        assert!((900_000_000..=1_000_000_000).contains(&used.cpu), "{}", used.cpu);
    }

    #[test]
    fn version_2_is_read_and_its_peak_counts_where_it_grew() {
        let files = [
            ("memory.current", "100\n"),
            ("memory.peak", "9000\n"),
            ("memory.events", "low 0\noom 1\noom_kill 3\noom_group_kill 0\n"),
            ("cpu.stat", "usage_usec 5000000\nuser_usec 1\n"),
        ];
        let root = groups("v2", &files);
        let used = measure(&root, "memory.current", || {
            fs::write(format!("{root}/memory.peak"), "9100\n").unwrap();
            fs::write(format!("{root}/cpu.stat"), "usage_usec 6000000\nuser_usec 1\n").unwrap();
        });
        assert_eq!((used.peak_memory, used.oom_kills), (9000, 0));
        assert!((900_000_000..=1_000_000_000).contains(&used.cpu), "{}", used.cpu);
        // Kernels before 5.19 keep none.
        let root = groups(
            "v2-old",
            &files
                .map(|(name, text)| (name.replace("memory.peak", "other"), text))
                .each_ref()
                .map(|(name, text)| (name.as_str(), *text)),
        );
        assert_eq!(measure(&root, "memory.current", || {}).peak_memory, 300);
    }
}
