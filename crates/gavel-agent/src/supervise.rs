//! One command, watched from outside: its streams, its deadlines, its end and what it used.

use crate::cgroup::{Cgroup, Start, Usage};
use crate::collect;
use crate::failed::{At, Failed};
use crate::feed::Feeder;
use crate::jail::{self, Record};
use crate::link::{Link, Message};
use crate::root::tmpfs_data;
use crate::sys;
use gavel_agent::wire::{self, Exit, Order, OrderContent, Report, Setup, Stop};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

const NAMESPACES: libc::c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The CPU clock of a command is looked at no more often than this; a command may therefore run over
/// its CPU limit by so much times the number of processors. The verdict uses the exact figure.
const CPU_CHECK: u64 = 2_000_000;

/// What an agent keeps between commands.
pub struct Agent {
    pub link: Link,
    pub cgroup: Cgroup,
    pub record: sys::Shared<Record>,
    pub timer: OwnedFd,
    pub filter: Vec<sys::Instruction>,
    pub uid: u32,
    pub gid: u32,
    /// The host's network namespace, if jobs may be let into it.
    pub network: Option<OwnedFd>,
    pub processors: u64,
}

impl Agent {
    pub fn new(link: Link, setup: &Setup, network: Option<OwnedFd>, cgroup: Cgroup) -> Result<Self, Failed> {
        Ok(Self {
            link,
            cgroup,
            record: sys::Shared::new().at("map the record")?,
            timer: timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
                .at("timerfd")?,
            filter: setup.seccomp.iter().map(|&(code, jt, jf, k)| sys::Instruction { code, jt, jf, k }).collect(),
            uid: setup.uid,
            gid: setup.gid,
            network,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        })
    }

    /// Runs the command of one `RUN` frame and sends everything up to its report.
    pub fn run(&mut self, frame: &[u8]) -> Result<(), Failed> {
        let (order, rest) = postcard::take_from_bytes::<Order>(frame).map_err(|_| Errno::INVAL).at("read the order")?;
        let (inline, stdin) = split(&order, rest)?;
        let feeder = Feeder::new(stdin, order.stdin_total)?;
        let work = if order.collect.is_empty() { None } else { Some(self.make_work(&order)?) };
        let start = self.cgroup.begin(&order.limits)?;
        let (watch, stdio) = Watch::new(feeder, &order)?;
        let init = self.give_birth(&order, inline, work.as_ref(), &stdio)?;
        // Only the job holds its ends now, so their closing can be seen.
        drop(stdio);
        let end = watch.until_the_end(self, &order, &start, &init)?;
        let report = self.report(&order, &start, end)?;
        self.send_files(&order, work, report)
    }

    /// A working directory whose files can be read when its mount is gone.
    fn make_work(&self, order: &Order) -> Result<OwnedFd, Failed> {
        let step = "make /box";
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at(step)?;
        let data = tmpfs_data(order.limits.work, order.limits.inodes, "755", self.uid, self.gid);
        for pair in data.to_string_lossy().split(',') {
            let (key, value) = pair.split_once('=').ok_or(Errno::INVAL).at(step)?;
            fsconfig_set_string(&fs, key, value).at(step)?;
        }
        fsconfig_create(&fs).at(step)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(step)
    }

    fn give_birth(
        &self,
        order: &Order,
        inline: Vec<&[u8]>,
        work: Option<&OwnedFd>,
        stdio: &[OwnedFd; 3],
    ) -> Result<Init, Failed> {
        let path = order.argv.first().ok_or(Errno::INVAL).at("find the program")?;
        let plan = jail::Plan {
            inline,
            path: CString::new(*path).map_err(|_| Errno::INVAL).at("read argv")?,
            argv: sys::CStrings::new(order.argv.iter().map(|s| (*s).to_owned())).at("read argv")?,
            env: sys::CStrings::new(order.env.iter().map(|(k, v)| format!("{k}={v}"))).at("read env")?,
            uid: self.uid,
            gid: self.gid,
            filter: &self.filter,
            work: work.map(AsFd::as_fd),
            network: if order.network { self.network.as_ref().map(AsFd::as_fd) } else { None },
            stdio: stdio.each_ref().map(AsFd::as_fd),
            order,
        };
        self.record.reset();
        match sys::fork(NAMESPACES, self.cgroup.birthplace()).at("clone3")? {
            sys::Fork::Child => jail::init(&plan, &self.record),
            sys::Fork::Parent { pid, pidfd } => Ok(Init { pid, pidfd, born: sys::monotonic_now() }),
        }
    }

    fn report(&mut self, order: &Order, start: &Start, end: End) -> Result<Report, Failed> {
        let usage = self.cgroup.end(start)?;
        if let Some(failure) = self.record.failure() {
            // A program that the memory limit does not even let start has hit that limit.
            if usage.oom_kills == 0 && failure.errno != Errno::NOMEM {
                return Err(failure);
            }
        }
        let ended = self.record.ended.load(SeqCst);
        let started = match self.record.started.load(SeqCst) {
            0 => end.born,
            started => started,
        };
        let exit = if ended != 0 {
            decode(self.record.status.load(SeqCst))
        } else if end.stopped.is_some() || usage.oom_kills > 0 {
            // We or the kernel took the init away, and the program with it.
            Exit::Signal(libc::SIGKILL)
        } else {
            return Err(Failed { step: "the sandbox's init was killed".into(), errno: Errno::CHILD });
        };
        let wall = if ended == 0 { end.gone } else { ended }.saturating_sub(started);
        // It may end on its own while we are about to stop it.
        let in_time = ended != 0 && end.stopped == Some(Stop::WallTime) && wall <= order.limits.wall;
        Ok(Report {
            exit,
            stopped: if in_time { None } else { end.stopped },
            cpu: self.exact_cpu(usage.cpu, end.waited_cpu),
            wall,
            peak_memory: self.peak(order, &usage),
            oom_kills: usage.oom_kills,
            stdout_truncated: end.truncated[0],
            stderr_truncated: end.truncated[1],
            left_out: Vec::new(),
        })
    }

    /// The group counts what no single process has (several processes, page cache, kernel memory), but in
    /// steps of up to 256 KiB for each processor, and not the library pages that somebody else read
    /// first; the largest process knows those. Together they say the same of the same program each time.
    fn peak(&self, order: &Order, usage: &Usage) -> u64 {
        let peak = usage.peak_memory.max(self.record.max_rss.load(SeqCst));
        // Only the group's count is held against the limit.
        if usage.oom_kills == 0 { peak.min(order.limits.memory) } else { peak }
    }

    /// Two clocks count the command. The one of its parents is exact, but a child whose parent ignores
    /// it is not in it; the one of the cgroup misses nothing, but lags by up to a scheduler's tick. The
    /// exact one counts unless the other shows that something is missing from it.
    fn exact_cpu(&self, group: u64, waited: u64) -> u64 {
        const LAG: u64 = 10_000_000;
        let own = self.record.own_cpu.load(SeqCst);
        let (group, waited) = (group.saturating_sub(own), waited.saturating_sub(own));
        if group > waited + LAG { group } else { waited }
    }

    fn send_files(&mut self, order: &Order, work: Option<OwnedFd>, mut report: Report) -> Result<(), Failed> {
        if let Some(work) = work {
            self.cgroup.make_room()?;
            let link = &mut self.link;
            report.left_out = collect::collect(&work, order, |head, file| {
                let size = head.size;
                link.send_body(wire::FILE, &head)?;
                link.send_file(&file, size)
            })?;
        }
        self.link.send_body(wire::DONE, &report)
    }
}

struct Init {
    pid: i32,
    pidfd: OwnedFd,
    born: u64,
}

/// How a command ended, as seen from outside.
struct End {
    stopped: Option<Stop>,
    truncated: [bool; 2],
    born: u64,
    gone: u64,
    /// CPU time of the init and everything that was waited for.
    waited_cpu: u64,
}

/// The inline files and the first part of stdin, as they follow an order in its frame.
fn split<'a>(order: &Order, mut rest: &'a [u8]) -> Result<(Vec<&'a [u8]>, &'a [u8]), Failed> {
    let mut take = |length: u64| {
        let piece = rest.split_at_checked(usize::try_from(length).unwrap_or(usize::MAX));
        let (piece, tail) = piece.ok_or(Errno::INVAL).at("read the order's files")?;
        rest = tail;
        Ok(piece)
    };
    let mut inline = Vec::new();
    for file in &order.files {
        if let OrderContent::Inline(length) = file.content {
            inline.push(take(length)?);
        }
    }
    Ok((inline, take(order.stdin_inline)?))
}

/// What a wait status says.
fn decode(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}

struct Output {
    pipe: Option<OwnedFd>,
    kind: u8,
    left: u64,
    truncated: bool,
}

struct Watch {
    feeder: Feeder,
    outputs: [Output; 2],
    discard: bool,
    stopped: Option<Stop>,
    killed: bool,
}

/// Whom the poll woke us for; in the order of the descriptors.
struct Ready {
    server: bool,
    ended: bool,
    timer: bool,
    oom: bool,
    outputs: [bool; 2],
    stdin: bool,
}

impl Watch {
    fn new(mut feeder: Feeder, order: &Order) -> Result<(Self, [OwnedFd; 3]), Failed> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).at("make a pipe");
        let stdin = feeder.read.take().ok_or(Errno::BADF).at("open stdin")?;
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = if order.stderr_to_stdout {
            (None, sys::duplicate(&out_write).at("join stderr to stdout")?)
        } else {
            let (read, write) = pipe()?;
            (Some(read), write)
        };
        let output = |pipe, kind| Output { pipe, kind, left: order.limits.output, truncated: false };
        let outputs = [output(Some(out_read), wire::STDOUT), output(err_read, wire::STDERR)];
        let watch = Self { feeder, outputs, discard: order.discard_output, stopped: None, killed: false };
        Ok((watch, [stdin, out_write, err_write]))
    }

    fn until_the_end(mut self, agent: &mut Agent, order: &Order, start: &Start, init: &Init) -> Result<End, Failed> {
        let first_look = order.limits.wall.min(order.limits.cpu / agent.processors).max(CPU_CHECK);
        arm(&agent.timer, first_look)?;
        loop {
            let ready = self.poll(agent, init)?;
            for at in 0..2 {
                if ready.outputs[at] {
                    self.forward(agent, at, init)?;
                }
            }
            if ready.ended {
                break;
            }
            if ready.stdin {
                let done = self.feeder.feed()?;
                agent.link.send_taken(done)?;
            }
            if ready.server {
                self.listen(agent, init)?;
            }
            if ready.oom && agent.cgroup.saw_oom(start)? {
                self.kill(init);
            }
            if ready.timer {
                self.check_time(agent, order, start, init)?;
            }
        }
        let waited = sys::wait(init.pid, 0).at("wait for the init")?;
        let gone = sys::monotonic_now();
        // Every writer is dead, so both pipes end.
        for at in 0..2 {
            while self.outputs[at].pipe.is_some() {
                self.forward(agent, at, init)?;
            }
        }
        let truncated = [self.outputs[0].truncated, self.outputs[1].truncated];
        Ok(End { stopped: self.stopped, truncated, born: init.born, gone, waited_cpu: waited.cpu })
    }

    /// Waits until something happens, and says what.
    fn poll(&self, agent: &Agent, init: &Init) -> Result<Ready, Failed> {
        let output = |at: usize| self.outputs[at].pipe.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN));
        let wanted: [Option<(BorrowedFd, PollFlags)>; 7] = [
            Some((agent.link.input(), PollFlags::IN)),
            Some((init.pidfd.as_fd(), PollFlags::IN)),
            Some((agent.timer.as_fd(), PollFlags::IN)),
            agent.cgroup.oom_bell().map(|bell| (bell, PollFlags::IN)),
            output(0),
            output(1),
            self.feeder.wants_to_write().map(|pipe| (pipe.as_fd(), PollFlags::OUT)),
        ];
        let mut fds: Vec<PollFd> =
            wanted.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        while let Err(e) = poll(&mut fds, None) {
            if e != Errno::INTR {
                return Err(e).at("poll");
            }
        }
        let mut events = fds.iter().map(|fd| !fd.revents().is_empty());
        let [server, ended, timer, oom, stdout, stderr, stdin] =
            wanted.map(|entry| entry.is_some() && events.next() == Some(true));
        Ok(Ready { server, ended, timer, oom, outputs: [stdout, stderr], stdin })
    }

    /// Passes on what the program wrote, up to the limit.
    fn forward(&mut self, agent: &mut Agent, at: usize, init: &Init) -> Result<(), Failed> {
        let output = &mut self.outputs[at];
        let Some(pipe) = &output.pipe else { return Ok(()) };
        let got = agent.link.read_output(pipe)?;
        if got == 0 {
            output.pipe = None;
            return Ok(());
        }
        let keep = (got as u64).min(output.left);
        output.left -= keep;
        agent.link.send_output(output.kind, keep as usize)?;
        if keep < got as u64 {
            output.truncated = true;
            if !self.discard {
                self.stop(Stop::Output, init);
            }
        }
        Ok(())
    }

    fn listen(&mut self, agent: &mut Agent, init: &Init) -> Result<(), Failed> {
        match agent.link.receive()? {
            Some(Message::Stdin(piece)) => {
                let dropped = self.feeder.add(piece);
                agent.link.send_taken(dropped)?;
            }
            Some(Message::Stop) => self.stop(Stop::Cancelled, init),
            Some(_) => return Err(Errno::PROTO).at("understand the server"),
            // Nobody waits for this any more. The init dies with us, and all of the job with it.
            None => sys::exit_now(0),
        }
        Ok(())
    }

    fn check_time(&mut self, agent: &Agent, order: &Order, start: &Start, init: &Init) -> Result<(), Failed> {
        let mut expirations = [0u8; 8];
        match rustix::io::read(&agent.timer, &mut expirations) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(e) => return Err(e).at("read the timer"),
        }
        let began = match agent.record.started.load(SeqCst) {
            0 => init.born,
            started => started,
        };
        let wall = sys::monotonic_now().saturating_sub(began);
        if wall >= order.limits.wall {
            self.stop(Stop::WallTime, init);
            return Ok(());
        }
        let used = agent.cgroup.cpu(start)?.saturating_sub(agent.record.own_cpu.load(SeqCst));
        if used > order.limits.cpu {
            self.stop(Stop::CpuTime, init);
            return Ok(());
        }
        // The earliest moment at which either limit can be reached: all processors busy from now on.
        let soonest = ((order.limits.cpu - used) / agent.processors).max(CPU_CHECK);
        arm(&agent.timer, soonest.min(order.limits.wall - wall))
    }

    fn stop(&mut self, why: Stop, init: &Init) {
        if self.stopped.is_none() {
            self.stopped = Some(why);
        }
        self.kill(init);
    }

    /// Kills the init; the kernel kills every process of its namespace with it.
    fn kill(&mut self, init: &Init) {
        if !self.killed {
            self.killed = true;
            // It can only have ended already, which is what we want.
            let _ = pidfd_send_signal(&init.pidfd, Signal::KILL);
        }
    }
}

/// Rings the timer once, this many nanoseconds from now.
fn arm(timer: &OwnedFd, after: u64) -> Result<(), Failed> {
    let after = after.max(1);
    let value = Timespec { tv_sec: (after / 1_000_000_000) as i64, tv_nsec: (after % 1_000_000_000) as i64 };
    let once = Timespec { tv_sec: 0, tv_nsec: 0 };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: once, it_value: value })
        .map(drop)
        .at("set the timer")
}
