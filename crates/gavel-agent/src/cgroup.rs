//! Limits and counters of one worker, on both versions of control groups.
//!
//! Version 1: the agent itself lives in the groups, so that what it forks is born inside; moving a
//! process into a group takes 7–16 ms on an otherwise quiet machine. Peaks are reset and counters
//! compared between commands. Version 2: each command gets a group of its own, entered at birth.
//! In a container the groups are somebody else's, on either version ([`crate::counters`]).

use crate::counters::{self, Counters};
use crate::failed::{At, Failed};
use crate::sys;
use gavel_agent::wire::{Cgroup as Plan, OrderLimits};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::{Errno, pread, pwrite, write};
use std::borrow::Cow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The agent and the job's init, which count towards the limit on processes.
const OWN_PROCESSES_V1: u32 = 2;
const OWN_PROCESSES_V2: u32 = 1;

/// When so much is charged to the group before a command starts, it is page cache of runtimes that
/// earlier commands were the first to read, and the group is replaced by a fresh one. Dropping the
/// cache instead would make the next start of that runtime read the disk.
const STALE: u64 = 8 << 20;

/// The limit follows what is charged beforehand in such steps, so that it is seldom written.
const STEP: u64 = 1 << 20;

/// What the agent may need on its own while it reads what a command has left, or the next order.
const READING: u64 = 32 << 20;

/// Messages up to this fit into what the agent has beside any limit.
const UNNOTICED: u64 = 64 << 10;

pub enum Cgroup {
    V1(V1),
    V2(V2),
    Container(Counters),
    Weak,
}

/// Counters at the start of a command.
#[derive(Default)]
pub struct Start {
    /// What is charged already, and the highest that ever was.
    pub baseline: u64,
    pub peak: u64,
    pub oom_kills: u64,
    pub cpu: u64,
    pub own_cpu: u64,
}

#[derive(Default, Clone, Copy)]
pub struct Usage {
    pub peak_memory: u64,
    pub oom_kills: u64,
    /// Nanoseconds, the agent's own share taken off.
    pub cpu: u64,
}

impl Cgroup {
    pub fn open(plan: &Plan) -> Result<Self, Failed> {
        match plan {
            Plan::V1 { memory, pids, cpuacct, cpu, name } => {
                Ok(Self::V1(V1::open(memory, pids, cpuacct, cpu.as_deref(), name)?))
            }
            Plan::V2 { base, name } => Ok(Self::V2(V2::open(base, name)?)),
            Plan::Weak => Ok(Self::Weak),
        }
    }

    /// Sets the limits and remembers the counters. In a container the agent gives some memory back for what
    /// it writes for the command.
    pub fn begin(&mut self, limits: &OrderLimits, given_back: u64) -> Result<Start, Failed> {
        match self {
            Self::V1(v1) => v1.begin(limits),
            Self::V2(v2) => v2.begin(limits),
            Self::Container(counters) => counters.begin(given_back),
            Self::Weak => Ok(Start::default()),
        }
    }

    /// The group that the command must be born into.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::V2(v2) => v2.current.as_ref().map(|group| group.dir.as_fd()),
            _ => None,
        }
    }

    /// Do commands live in the agent's own groups?
    pub fn birthplace_is_own(&self) -> bool {
        !matches!(self, Self::V2(_))
    }

    /// CPU time of the command so far. 0 where only the end can tell.
    pub fn cpu(&self, start: &Start) -> Result<u64, Failed> {
        match self {
            Self::V1(v1) => {
                let own = sys::own_cpu() - start.own_cpu;
                Ok(v1.cpu_usage()?.saturating_sub(start.cpu).saturating_sub(own))
            }
            Self::V2(v2) => v2.cpu_usage(),
            Self::Container(counters) => counters.cpu_since(start),
            Self::Weak => Ok(0),
        }
    }

    /// Readable when the memory limit killed somebody; only where the kernel does not end the rest.
    pub fn oom_bell(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::V1(v1) => Some(v1.memory.bell.as_fd()),
            _ => None,
        }
    }

    /// Has the kernel killed a process of the command? Silences the bell.
    pub fn saw_oom(&self, start: &Start) -> Result<bool, Failed> {
        match self {
            Self::V1(v1) => {
                let mut count = [0u8; 8];
                // Not readable: it was rung for an earlier command.
                let _ = rustix::io::read(&v1.memory.bell, &mut count);
                Ok(v1.memory.oom_kills()? > start.oom_kills)
            }
            Self::Container(counters) => Ok(counters.oom_kills()? > start.oom_kills),
            _ => Ok(false),
        }
    }

    /// How long a command of this age may go on until somebody must [`Cgroup::look`] at it. `None` where the
    /// kernel keeps the peak, and ends the rest itself or rings a bell when memory runs out.
    pub fn unseen(&self, age: u64) -> Option<u64> {
        match self {
            Self::Container(_) => Some(age.clamp(counters::OFTEN, counters::SELDOM)),
            _ => None,
        }
    }

    /// Notes what is used now, where the kernel may not have kept it.
    pub fn look(&self) -> Result<(), Failed> {
        match self {
            Self::Container(counters) => counters.look(),
            _ => Ok(()),
        }
    }

    /// The command is dead, but its files are still charged: room for reading them.
    pub fn make_room(&mut self) -> Result<(), Failed> {
        match self {
            Self::V1(v1) => v1.memory.set_limit(v1.memory.limit + READING),
            _ => Ok(()),
        }
    }

    /// A message of this length is about to come, while the limit is still that of the command before.
    pub fn make_room_for(&mut self, length: u64) -> Result<(), Failed> {
        match self {
            // No limit at all yet: then there is room.
            Self::V1(v1) if length > UNNOTICED && v1.memory.limit != 0 && v1.memory.limit < length + READING => {
                v1.memory.set_limit(length + READING)
            }
            _ => Ok(()),
        }
    }

    /// What the command used, once all of it is dead.
    pub fn end(&mut self, start: &Start) -> Result<Usage, Failed> {
        match self {
            Self::V1(v1) => {
                let own = sys::own_cpu() - start.own_cpu;
                Ok(Usage {
                    peak_memory: v1.memory.peak()?.saturating_sub(start.baseline),
                    oom_kills: v1.memory.oom_kills()? - start.oom_kills,
                    cpu: v1.cpu_usage()?.saturating_sub(start.cpu).saturating_sub(own),
                })
            }
            Self::V2(v2) => v2.end(),
            Self::Container(counters) => counters.end(start),
            Self::Weak => Ok(Usage::default()),
        }
    }
}

pub struct V1 {
    memory: MemoryV1,
    pids_max: OwnedFd,
    cpu_usage: OwnedFd,
    processes: u32,
}

struct MemoryV1 {
    parent: OwnedFd,
    name: String,
    generation: u32,
    limit_file: OwnedFd,
    /// Absent where the kernel does not account swap.
    swap_limit_file: Option<OwnedFd>,
    usage_file: OwnedFd,
    peak_file: OwnedFd,
    oom_file: OwnedFd,
    bell: OwnedFd,
    /// The limit that is set, 0 for none yet.
    limit: u64,
}

impl V1 {
    fn open(memory: &str, pids: &str, cpuacct: &str, cpu: Option<&str>, name: &str) -> Result<Self, Failed> {
        let pids = enter_group(&open_dir(CWD, pids)?, name)?;
        let cpuacct_group = enter_group(&open_dir(CWD, cpuacct)?, name)?;
        // Mounted together or apart; joining twice does no harm. Its default weight is what makes
        // workers share the machine evenly, however many threads their jobs have.
        if let Some(cpu) = cpu {
            enter_group(&open_dir(CWD, cpu)?, name)?;
        }
        let parent = open_dir(CWD, memory)?;
        Ok(Self {
            memory: MemoryV1::enter(parent, name.to_owned(), 0)?,
            pids_max: open_file(&pids, "pids.max")?,
            cpu_usage: open_file(&cpuacct_group, "cpuacct.usage")?,
            processes: 0,
        })
    }

    fn begin(&mut self, limits: &OrderLimits) -> Result<Start, Failed> {
        let mut baseline = self.memory.usage()?;
        if baseline > STALE {
            self.memory.replace()?;
            baseline = self.memory.usage()?;
        }
        self.memory.set_limit(limits.memory + baseline.next_multiple_of(STEP))?;
        write_number(&self.memory.peak_file, 0, "reset memory.max_usage_in_bytes")?;
        if self.processes != limits.processes {
            write_number(&self.pids_max, (limits.processes + OWN_PROCESSES_V1).into(), "write pids.max")?;
            self.processes = limits.processes;
        }
        let oom_kills = self.memory.oom_kills()?;
        Ok(Start { baseline, peak: 0, oom_kills, cpu: self.cpu_usage()?, own_cpu: sys::own_cpu() })
    }

    fn cpu_usage(&self) -> Result<u64, Failed> {
        read_number(&self.cpu_usage, "read cpuacct.usage")
    }
}

impl MemoryV1 {
    fn enter(parent: OwnedFd, name: String, generation: u32) -> Result<Self, Failed> {
        let dir = enter_group(&parent, &generation_name(&name, generation))?;
        let oom_file = open_file(&dir, "memory.oom_control")?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).at("eventfd")?;
        let control = open_file(&dir, "cgroup.event_control")?;
        let registration = format!("{} {}", bell.as_raw_fd(), oom_file.as_raw_fd());
        write(&control, registration.as_bytes()).at("register for memory events")?;
        Ok(Self {
            limit_file: open_file(&dir, "memory.limit_in_bytes")?,
            swap_limit_file: open_file(&dir, "memory.memsw.limit_in_bytes").ok(),
            usage_file: open_file(&dir, "memory.usage_in_bytes")?,
            peak_file: open_file(&dir, "memory.max_usage_in_bytes")?,
            oom_file,
            bell,
            limit: 0,
            parent,
            name,
            generation,
        })
    }

    /// Moves to a fresh group. What was charged to the old one stays where it is, in memory.
    fn replace(&mut self) -> Result<(), Failed> {
        let parent = sys::duplicate(&self.parent).at("duplicate a directory")?;
        let old = generation_name(&self.name, self.generation);
        *self = Self::enter(parent, self.name.clone(), self.generation + 1)?;
        remove_group(&self.parent, &old)
    }

    fn usage(&self) -> Result<u64, Failed> {
        read_number(&self.usage_file, "read memory.usage_in_bytes")
    }

    fn peak(&self) -> Result<u64, Failed> {
        read_number(&self.peak_file, "read memory.max_usage_in_bytes")
    }

    fn oom_kills(&self) -> Result<u64, Failed> {
        let mut buffer = [0u8; 256];
        let text = read_text(&self.oom_file, &mut buffer, "read memory.oom_control")?;
        Ok(keyed(text, "oom_kill"))
    }

    /// Memory and memory with swap get the same limit: swap would hide use and ruin timing. The
    /// kernel refuses a memory limit above the one with swap, so the order depends on the direction.
    fn set_limit(&mut self, limit: u64) -> Result<(), Failed> {
        if limit == self.limit {
            return Ok(());
        }
        let raise = self.limit == 0 || limit > self.limit;
        let memory = (Some(&self.limit_file), "write memory.limit_in_bytes");
        let with_swap = (self.swap_limit_file.as_ref(), "write memory.memsw.limit_in_bytes");
        // A fresh group has no limit at all, so there the memory limit comes first.
        let order = if raise && self.limit != 0 { [with_swap, memory] } else { [memory, with_swap] };
        for (file, step) in order {
            if let Some(file) = file {
                write_number(file, limit, step)?;
            }
        }
        self.limit = limit;
        Ok(())
    }
}

fn generation_name(name: &str, generation: u32) -> String {
    if generation == 0 { name.to_owned() } else { format!("{name}.{generation}") }
}

pub struct V2 {
    base: OwnedFd,
    name: String,
    counter: u64,
    current: Option<GroupV2>,
}

struct GroupV2 {
    name: String,
    dir: OwnedFd,
    cpu_stat: OwnedFd,
}

impl V2 {
    fn open(base: &str, name: &str) -> Result<Self, Failed> {
        Ok(Self { base: open_dir(CWD, base)?, name: name.to_owned(), counter: 0, current: None })
    }

    fn begin(&mut self, limits: &OrderLimits) -> Result<Start, Failed> {
        self.discard()?;
        self.counter += 1;
        let name = format!("{}.{}", self.name, self.counter);
        mkdirat(&self.base, name.as_str(), Mode::from_raw_mode(0o755)).at("make a cgroup")?;
        let dir = open_dir(&self.base, &name)?;
        let cpu_stat = open_file(&dir, "cpu.stat")?;
        write_number(&open_file(&dir, "memory.max")?, limits.memory, "write memory.max")?;
        // Absent where the kernel has no swap: then there is nothing to forbid.
        if let Ok(swap) = open_file(&dir, "memory.swap.max") {
            write_number(&swap, 0, "write memory.swap.max")?;
        }
        write_number(&open_file(&dir, "memory.oom.group")?, 1, "write memory.oom.group")?;
        let processes = limits.processes + OWN_PROCESSES_V2;
        write_number(&open_file(&dir, "pids.max")?, processes.into(), "write pids.max")?;
        self.current = Some(GroupV2 { name, dir, cpu_stat });
        Ok(Start::default())
    }

    fn group(&self) -> Result<&GroupV2, Failed> {
        self.current.as_ref().ok_or(Failed { step: Cow::Borrowed("use a cgroup"), errno: Errno::NOENT })
    }

    fn cpu_usage(&self) -> Result<u64, Failed> {
        let mut buffer = [0u8; 1024];
        let text = read_text(&self.group()?.cpu_stat, &mut buffer, "read cpu.stat")?;
        Ok(keyed(text, "usage_usec") * 1000)
    }

    fn end(&mut self) -> Result<Usage, Failed> {
        let cpu = self.cpu_usage()?;
        let dir = &self.group()?.dir;
        let mut buffer = [0u8; 1024];
        // Before Linux 5.19 there is no peak; what is charged at the end is the best there is.
        let peak = open_file(dir, "memory.peak").or_else(|_| open_file(dir, "memory.current"))?;
        let peak_memory = read_number(&peak, "read memory.peak")?;
        let events = open_file(dir, "memory.events")?;
        let oom_kills = keyed(read_text(&events, &mut buffer, "read memory.events")?, "oom_kill");
        self.discard()?;
        Ok(Usage { peak_memory, oom_kills, cpu })
    }

    fn discard(&mut self) -> Result<(), Failed> {
        match self.current.take() {
            Some(group) => remove_group(&self.base, &group.name),
            None => Ok(()),
        }
    }
}

/// Makes a group (or takes over one that is left) and moves this process into it.
fn enter_group(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Failed> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(e).at(format!("make the cgroup {name}")),
    }
    let dir = open_dir(parent, name)?;
    write(&open_file(&dir, "cgroup.procs")?, b"0").at(format!("enter the cgroup {name}"))?;
    Ok(dir)
}

/// Removes an empty group. The kernel says busy for a moment after the last process is gone.
fn remove_group(parent: &OwnedFd, name: &str) -> Result<(), Failed> {
    for _ in 0..200 {
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::BUSY) => std::thread::sleep(std::time::Duration::from_micros(500)),
            other => return other.at(format!("remove the cgroup {name}")),
        }
    }
    Err(Failed { step: Cow::Owned(format!("remove the cgroup {name}")), errno: Errno::BUSY })
}

fn open_dir(at: impl AsFd, path: &str) -> Result<OwnedFd, Failed> {
    openat(at, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(format!("open {path}"))
}

fn open_file(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Failed> {
    // Some files are write-only, some read-only.
    let open = |flags| openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty());
    open(OFlags::RDWR).or_else(|_| open(OFlags::WRONLY)).or_else(|_| open(OFlags::RDONLY)).at(format!("open {name}"))
}

fn write_number(file: &OwnedFd, number: u64, step: &'static str) -> Result<(), Failed> {
    pwrite(file, number.to_string().as_bytes(), 0).map(drop).at(step)
}

pub fn read_text<'a>(file: &OwnedFd, buffer: &'a mut [u8], step: &'static str) -> Result<&'a str, Failed> {
    let length = pread(file, &mut *buffer, 0).at(step)?;
    std::str::from_utf8(&buffer[..length]).map_err(|_| Errno::ILSEQ).at(step)
}

pub fn read_number(file: &OwnedFd, step: &'static str) -> Result<u64, Failed> {
    let mut buffer = [0u8; 32];
    read_text(file, &mut buffer, step)?.trim().parse().map_err(|_| Errno::ILSEQ).at(step)
}

/// The number behind a key in the kernel's "key value" lines; 0 where it is absent.
pub fn keyed(text: &str, key: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn keys_are_whole_words() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!((keyed(text, "oom_kill"), keyed(text, "oom_kill_disable"), keyed(text, "usage_usec")), (3, 0, 0));
    }
}
