//! A command while it runs: its streams, its deadlines, and its end.

use crate::cgroup::Start;
use crate::failed::{At, Failed};
use crate::feed::Feeder;
use crate::link::{Link, Message, When};
use crate::supervise::Tools;
use crate::sys::{self, Process};
use crate::terminal;
use gavel_agent::wire::{self, Live, Order, OrderLimits, Stop};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

/// The CPU clock of a command is looked at no more often than this; a command may therefore run over
/// its CPU limit by so much times the number of processors. The verdict uses the exact figure.
const CPU_CHECK: u64 = 2_000_000;

/// For so long after its start, nobody looks at a command's output: most commands have ended by then, and
/// their output leaves with their report, without a wake-up for each piece. A pipe holds 64 KiB.
const QUIET: u64 = 2_000_000;

/// How a command ended, as seen from outside. Times in nanoseconds, monotonic.
pub struct Ending {
    pub stopped: Option<Stop>,
    /// stdout and stderr.
    pub truncated: [bool; 2],
    pub born: u64,
    pub gone: u64,
    /// CPU time of the init and everything that was waited for.
    pub waited_cpu: u64,
    /// Largest resident set among them, bytes.
    pub waited_rss: u64,
}

/// stdout and stderr of a command, at our end.
pub struct Streams([Stream; 2]);

struct Stream {
    pipe: Option<OwnedFd>,
    kind: u8,
    /// Bytes that may still be passed on.
    left: u64,
    truncated: bool,
}

impl Streams {
    /// Our ends, and the job's: stdin, stdout and stderr.
    pub fn new(feeder: &mut Feeder, order: &Order) -> Result<(Self, [OwnedFd; 3]), Failed> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).at("make a pipe");
        let stdin = feeder.read.take().ok_or(Errno::BADF).at("open stdin")?;
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = if order.stderr_to_stdout {
            (None, sys::duplicate(&out_write).at("join stderr to stdout")?)
        } else {
            let (read, write) = pipe()?;
            (Some(read), write)
        };
        let stream = |pipe, kind| Stream { pipe, kind, left: order.limits.output, truncated: false };
        let streams = Self([stream(Some(out_read), wire::STDOUT), stream(err_read, wire::STDERR)]);
        Ok((streams, [stdin, out_write, err_write]))
    }

    /// With a terminal there is one stream, and what is printed to either comes over it.
    pub fn of_terminal(master: OwnedFd, slave: OwnedFd, order: &Order) -> Result<(Self, [OwnedFd; 3]), Failed> {
        let again = || sys::duplicate(&slave).at("open a terminal");
        let (stdin, stdout) = (again()?, again()?);
        let stream = |pipe, kind| Stream { pipe, kind, left: order.limits.output, truncated: false };
        let streams = Self([stream(Some(master), wire::STDOUT), stream(None, wire::STDERR)]);
        Ok((streams, [stdin, stdout, slave]))
    }
}

pub struct Watch<'a> {
    link: &'a mut Link,
    tools: &'a Tools,
    limits: OrderLimits,
    start: &'a Start,
    feeder: Feeder,
    streams: [Stream; 2],
    /// Beyond the output limit: throw away, instead of stopping the command.
    discard: bool,
    interactive: Option<Live>,
    /// When an interactive command last read or wrote something.
    active: u64,
    born: u64,
    /// The quiet time is over.
    live: bool,
    stopped: Option<Stop>,
    killed: bool,
}

/// Whom a poll woke us for.
struct Ready {
    server: bool,
    ended: bool,
    timer: bool,
    oom: bool,
    streams: [bool; 2],
    stdin: bool,
}

impl<'a> Watch<'a> {
    pub fn new(
        link: &'a mut Link,
        tools: &'a Tools,
        order: &Order,
        start: &'a Start,
        feeder: Feeder,
        streams: Streams,
    ) -> Self {
        let born = sys::monotonic_now();
        Self {
            link,
            tools,
            limits: order.limits,
            start,
            feeder,
            streams: streams.0,
            discard: order.discard_output,
            interactive: order.live,
            active: born,
            born,
            live: false,
            stopped: None,
            killed: false,
        }
    }

    pub fn until_the_end(mut self, init: &mut Process) -> Result<Ending, Failed> {
        arm(&self.tools.timer, QUIET.min(self.limits.wall))?;
        loop {
            let ready = self.poll(init)?;
            for at in 0..2 {
                if ready.streams[at] {
                    self.forward(at, init, When::Now)?;
                }
            }
            if ready.ended {
                break;
            }
            if ready.stdin {
                let done = self.feeder.feed()?;
                self.note_activity(done);
                self.link.send_taken(done)?;
            }
            if ready.server {
                self.listen(init)?;
            }
            if ready.oom {
                self.check_memory(init)?;
            }
            if ready.timer {
                self.check_time(init)?;
            }
        }
        let waited = init.wait().at("wait for the init")?;
        let gone = sys::monotonic_now();
        let orphans = self.tools.kill_the_rest()?;
        // Every writer is dead, so both pipes end.
        for at in 0..2 {
            while self.streams[at].pipe.is_some() {
                self.forward(at, init, When::WithTheNext)?;
            }
        }
        let truncated = [self.streams[0].truncated, self.streams[1].truncated];
        Ok(Ending {
            stopped: self.stopped,
            truncated,
            born: self.born,
            gone,
            waited_cpu: waited.cpu + orphans.cpu,
            waited_rss: waited.max_rss.max(orphans.max_rss),
        })
    }

    /// Waits until something happens, and says what.
    fn poll(&self, init: &Process) -> Result<Ready, Failed> {
        let stream = |at: usize| {
            let pipe = self.streams[at].pipe.as_ref().filter(|_| self.live);
            pipe.map(|pipe| (pipe.as_fd(), PollFlags::IN))
        };
        let wanted: [Option<(BorrowedFd, PollFlags)>; 7] = [
            Some((self.link.input(), PollFlags::IN)),
            Some((init.bell(), PollFlags::IN)),
            Some((self.tools.timer.as_fd(), PollFlags::IN)),
            self.tools.cgroup.oom_bell().map(|bell| (bell, PollFlags::IN)),
            stream(0),
            stream(1),
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
        Ok(Ready { server, ended, timer, oom, streams: [stdout, stderr], stdin })
    }

    /// Passes on what the program wrote, up to the limit.
    fn forward(&mut self, at: usize, init: &Process, when: When) -> Result<(), Failed> {
        let stream = &mut self.streams[at];
        let Some(pipe) = &stream.pipe else { return Ok(()) };
        let got = match self.link.read_output(pipe) {
            Ok(got) => got,
            // The end of a terminal: nobody has it open any more.
            Err(Failed { errno: Errno::IO, .. }) if self.interactive.is_some() => 0,
            // A terminal is the only stream that does not block. After the end there is nothing to wait for.
            Err(Failed { errno: Errno::AGAIN, .. }) if when == When::Now => return Ok(()),
            Err(Failed { errno: Errno::AGAIN, .. }) => 0,
            Err(failed) => return Err(failed),
        };
        if got == 0 {
            stream.pipe = None;
            return Ok(());
        }
        let keep = (got as u64).min(stream.left);
        stream.left -= keep;
        self.link.send_output(stream.kind, keep as usize, when)?;
        if self.interactive.is_some() {
            self.active = sys::monotonic_now();
        }
        if keep < got as u64 {
            stream.truncated = true;
            if !self.discard {
                self.stop(Stop::Output, init)?;
            }
        }
        Ok(())
    }

    fn listen(&mut self, init: &Process) -> Result<(), Failed> {
        match self.link.receive()? {
            Some(Message::Stdin(piece)) => {
                let dropped = self.feeder.add(piece);
                self.link.send_taken(dropped)?;
            }
            Some(Message::End) if self.interactive.is_some() => self.feeder.end(),
            Some(Message::Resize(size)) if self.has_terminal() => {
                if let Some(master) = &self.streams[0].pipe {
                    terminal::resize(master, size)?;
                }
            }
            Some(Message::Stop) => self.stop(Stop::Cancelled, init)?,
            Some(_) => return Err(Errno::PROTO).at("understand the server"),
            // Nobody waits for this any more. The init dies with us, and all of the job with it.
            None => sys::exit_now(0),
        }
        Ok(())
    }

    fn has_terminal(&self) -> bool {
        self.interactive.is_some_and(|live| live.tty.is_some())
    }

    fn note_activity(&mut self, bytes: usize) {
        if bytes > 0 && self.interactive.is_some() {
            self.active = sys::monotonic_now();
        }
    }

    fn check_time(&mut self, init: &Process) -> Result<(), Failed> {
        let mut expirations = [0u8; 8];
        match rustix::io::read(&self.tools.timer, &mut expirations) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(e) => return Err(e).at("read the timer"),
        }
        self.live = true;
        let record = &self.tools.record;
        let began = match record.started.load(SeqCst) {
            0 => self.born,
            started => started,
        };
        let wall = sys::monotonic_now().saturating_sub(began);
        if wall >= self.limits.wall {
            return self.stop(Stop::WallTime, init);
        }
        let used = self.tools.cgroup.cpu(self.start)?.saturating_sub(record.own_cpu.load(SeqCst));
        if used > self.limits.cpu {
            return self.stop(Stop::CpuTime, init);
        }
        // The earliest moment at which either limit can be reached: all processors busy from now on.
        let soonest = ((self.limits.cpu - used) / self.tools.processors).max(CPU_CHECK);
        let mut next = soonest.min(self.limits.wall - wall);
        if let Some(live) = self.interactive {
            let silent = sys::monotonic_now().saturating_sub(self.active.max(began));
            if silent >= live.idle {
                return self.stop(Stop::Idle, init);
            }
            next = next.min(live.idle - silent);
        }
        if let Some(unseen) = self.tools.cgroup.unseen(wall) {
            self.tools.cgroup.look()?;
            self.check_memory(init)?;
            next = next.min(unseen);
        }
        arm(&self.tools.timer, next)
    }

    /// Where the kernel kills one process for want of memory and lets the others go on, we end them.
    fn check_memory(&mut self, init: &Process) -> Result<(), Failed> {
        if self.tools.cgroup.saw_oom(self.start)? { self.kill(init) } else { Ok(()) }
    }

    fn stop(&mut self, why: Stop, init: &Process) -> Result<(), Failed> {
        self.stopped.get_or_insert(why);
        self.kill(init)
    }

    fn kill(&mut self, init: &Process) -> Result<(), Failed> {
        if self.killed {
            return Ok(());
        }
        self.killed = true;
        self.tools.kill(init)
    }
}

/// Rings the timer once, this many nanoseconds from now.
fn arm(timer: &OwnedFd, after: u64) -> Result<(), Failed> {
    let after = after.max(1);
    let value = Timespec { tv_sec: (after / 1_000_000_000) as i64, tv_nsec: (after % 1_000_000_000) as i64 };
    let once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let setting = Itimerspec { it_interval: once, it_value: value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &setting).map(drop).at("set the timer")
}
