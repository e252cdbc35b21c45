//! One command, from its order to its report.

use crate::cgroup::{Cgroup, Start, Usage};
use crate::collect;
use crate::container::{self, Container, Orphans};
use crate::failed::{At, Failed};
use crate::feed::Feeder;
use crate::jail::{self, Enclosure, Plan, Record, Surroundings, Walls};
use crate::link::{Link, Message};
use crate::root::tmpfs_data;
use crate::sys::{self, Memory, Once, Process};
use crate::terminal::{self, Terminal};
use crate::watch::{Ending, Streams, Watch};
use gavel_agent::wire::{self, Exit, Order, OrderContent, Report, Setup, Size, Stop};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;

/// Those of every command on a host. That of System V IPC is the agent's, seen to be empty before each
/// ([`renew_ipc`]).
const NAMESPACES: libc::c_int = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS;

/// What an agent keeps between commands.
pub struct Agent {
    pub link: Link,
    tools: Tools,
    kept: Kept,
}

/// Files that the server does not send again. It says which, and how many.
pub type Kept = BTreeMap<u64, Vec<u8>>;

pub struct Tools {
    pub cgroup: Cgroup,
    pub record: sys::Shared<Record>,
    pub timer: OwnedFd,
    pub processors: u64,
    filter: Vec<sys::Instruction>,
    uid: u32,
    gid: u32,
    clear_refs: OwnedFd,
    place: Place,
}

/// Where the agent is.
pub enum Place {
    Host {
        /// The host's network namespace, if jobs may be let into it.
        network: Option<OwnedFd>,
        rootless: bool,
        /// The worker's /dev, to which a terminal is added for the command that has one.
        dev: OwnedFd,
    },
    Container(Container),
}

/// What the agent has opened of its surroundings before it shut itself off.
pub struct Outside {
    pub cgroup: Cgroup,
    /// The agent's own `/proc/self/clear_refs`.
    pub clear_refs: OwnedFd,
    pub place: Place,
}

/// A buffer that grew beyond this for one large order is given back afterwards.
const KEEP: usize = 1 << 20;

impl Agent {
    pub fn new(link: Link, setup: &Setup, outside: Outside) -> Result<Self, Failed> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK);
        let tools = Tools {
            cgroup: outside.cgroup,
            record: sys::Shared::new().at("map the record")?,
            timer: timer.at("make a timer")?,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            filter: match outside.place {
                Place::Host { .. } => sys::program(&setup.job_filter),
                // The agent itself is under it.
                Place::Container(_) => Vec::new(),
            },
            uid: setup.uid,
            gid: setup.gid,
            clear_refs: outside.clear_refs,
            place: outside.place,
        };
        tools.forget_peak()?;
        Ok(Self { link, tools, kept: Kept::new() })
    }

    /// The next message, between commands.
    pub fn next(&mut self) -> Result<Option<Message>, Failed> {
        let cgroup = &mut self.tools.cgroup;
        self.link.receive_after(|length| cgroup.make_room_for(length as u64))
    }

    /// Gives an order's buffer back for the next one.
    pub fn recycle(&mut self, mut frame: Vec<u8>) -> Result<(), Failed> {
        let large = frame.capacity() > KEEP;
        frame.clear();
        frame.shrink_to(KEEP);
        self.link.recycle(frame);
        if large { self.tools.forget_peak() } else { Ok(()) }
    }

    /// Runs the command of one `RUN` frame and sends everything up to its report.
    pub fn run(&mut self, frame: &mut [u8]) -> Result<(), Failed> {
        let head = frame.len() - read_order(frame)?.1.len();
        // Read again, because what follows the order is changed while it is in use.
        let (head, rest) = frame.split_at_mut(head);
        let order = read_order(head)?.0;
        order.forget.iter().for_each(|number| drop(self.kept.remove(number)));
        let (inline, stdin) = split(&order, rest, &mut self.kept)?;
        self.tools.enter(&order, &self.kept)?;
        let terminal = order.live.and_then(|live| live.tty).map(|size| self.tools.make_terminal(size)).transpose()?;
        let mut feeder = match &terminal {
            Some(terminal) => {
                let master = sys::duplicate(&terminal.master).at("share a terminal")?;
                Feeder::typing(master, stdin, order.stdin_total)?
            }
            None => Feeder::new(stdin, order.stdin_total, order.live.is_some())?,
        };
        let work = if order.collect.is_empty() { None } else { Some(self.tools.work(&order)?) };
        let given_back = inline.iter().map(|content| content.whole_pages() as u64).sum();
        let start = self.tools.cgroup.begin(&order.limits, given_back)?;
        let ((streams, stdio), pts) = match terminal {
            Some(Terminal { master, slave, mount }) => (Streams::of_terminal(master, slave, &order)?, mount),
            None => (Streams::new(&mut feeder, &order)?, None),
        };
        let stdio_numbers = stdio.each_ref().map(AsRawFd::as_raw_fd);
        let around = self.tools.surroundings(&order, work.as_ref(), pts.as_ref(), stdio_numbers);
        let plan = Plan::new(&order, inline, &self.kept, around)?;
        let ending = {
            let tools = &self.tools;
            tools.record.reset();
            let life = || jail::init(&plan, &tools.record);
            let memory = tools.cgroup.birthplace().map_or(Memory::Shared, Memory::Copied);
            let mut init = Process::start(&life, tools.namespaces(), memory).at("start the init")?;
            // Only the job holds its ends from here on, so that their closing can be seen.
            drop(stdio);
            Watch::new(&mut self.link, tools, &order, &start, feeder, streams).until_the_end(&mut init)?
        };
        self.tools.leave(&order)?;
        let report = self.tools.report(&order, &start, ending)?;
        self.explain_refusal(&order)?;
        self.send_files(&order, work, report)
    }

    /// Makes a container that will be used again as good as new, and says so.
    pub fn clean(&mut self) -> Result<(), Failed> {
        if self.tools.clean()? { self.link.send_body(wire::CLEANED, &()) } else { Ok(()) }
    }

    /// Says on stderr, as a shell would, why the job's own program was not started.
    fn explain_refusal(&mut self, order: &Order) -> Result<(), Failed> {
        let Some(failure) = self.tools.record.failure().filter(|failure| is_refusal(order, failure)) else {
            return Ok(());
        };
        let text = format!("{}: cannot be executed: {}\n", order.argv[0], failure.errno);
        if text.len() as u64 > order.limits.output {
            return Ok(());
        }
        let kind = if order.stderr_to_stdout { wire::STDOUT } else { wire::STDERR };
        self.link.send_text(kind, &text)
    }

    fn send_files(&mut self, order: &Order, work: Option<OwnedFd>, mut report: Report) -> Result<(), Failed> {
        if let Some(work) = work {
            self.tools.cgroup.make_room()?;
            let link = &mut self.link;
            report.left_out = self.tools.as_owner(|| {
                collect::collect(&work, order, |head, file| {
                    let size = head.size;
                    link.send_body(wire::FILE, &head)?;
                    link.send_file(&file, size)
                })
            })?;
        }
        self.link.send_body(wire::DONE, &report)
    }
}

impl Tools {
    /// A program begins with the peak of the memory that it was started from, which is the agent's.
    fn forget_peak(&self) -> Result<(), Failed> {
        // proc(5): 5 resets the peak resident set size.
        rustix::io::write(&self.clear_refs, b"5").map(drop).at("reset the agent's peak memory")
    }

    fn namespaces(&self) -> libc::c_int {
        match self.place {
            Place::Host { .. } => NAMESPACES,
            Place::Container(_) => 0,
        }
    }

    /// A command is about to run here.
    fn enter(&mut self, order: &Order, kept: &Kept) -> Result<(), Failed> {
        match &mut self.place {
            Place::Host { .. } => Ok(()),
            Place::Container(container) => container.take(order, kept),
        }
    }

    /// The last process of a command is gone.
    fn leave(&self, order: &Order) -> Result<(), Failed> {
        let Place::Host { dev, .. } = &self.place else { return Ok(()) };
        if order.live.is_some_and(|live| live.tty.is_some()) {
            terminal::clear(dev)?;
        }
        renew_ipc()
    }

    fn make_terminal(&self, size: Size) -> Result<Terminal, Failed> {
        match &self.place {
            Place::Host { dev, rootless, .. } => {
                terminal::furnish(dev, *rootless)?;
                Terminal::on_host(self.uid, self.gid, size)
            }
            Place::Container(_) => Terminal::in_container(self.uid, self.gid, size),
        }
    }

    /// Was there anything to clean?
    fn clean(&mut self) -> Result<bool, Failed> {
        let Place::Container(container) = &mut self.place else { return Ok(false) };
        if !container.reuse {
            return Ok(false);
        }
        let step = container.clean(self.uid, self.gid)?;
        self.uid = self.uid.wrapping_add_signed(step);
        self.gid = self.gid.wrapping_add_signed(step);
        Ok(true)
    }

    /// Ends a command at once. On a host the kernel kills every process of the init's namespace with it.
    pub fn kill(&self, init: &Process) -> Result<(), Failed> {
        match self.place {
            Place::Host { .. } => init.kill(),
            Place::Container(_) => {
                sys::signal_all_others(libc::SIGKILL).at("kill the command")?;
            }
        }
        Ok(())
    }

    /// Ends whatever has outlived the init.
    pub fn kill_the_rest(&self) -> Result<Orphans, Failed> {
        match self.place {
            Place::Host { .. } => Ok(Orphans::default()),
            Place::Container(_) => container::kill_the_rest(),
        }
    }

    /// Touches a command's files: in a container the agent has no more rights over them than their owner.
    fn as_owner<T>(&self, act: impl FnOnce() -> T) -> T {
        match self.place {
            Place::Host { .. } => act(),
            Place::Container(_) => container::as_user(self.uid, self.gid, act),
        }
    }

    fn surroundings<'a>(
        &'a self,
        order: &Order,
        work: Option<&'a OwnedFd>,
        pts: Option<&'a OwnedFd>,
        stdio: [RawFd; 3],
    ) -> Surroundings<'a> {
        let (score_is_set, walls) = match &self.place {
            Place::Host { network, rootless, .. } => {
                let network = network.as_ref().filter(|_| order.network).map(AsFd::as_fd);
                let own_memory = self.cgroup.birthplace().is_some();
                let (work, pts) = (work.map(AsFd::as_fd), pts.map(AsFd::as_fd));
                (*rootless, Walls::Own(Enclosure { work, network, pts, own_memory }))
            }
            // Its network is all there is, and not for us to choose.
            Place::Container(container) => (false, Walls::Container(container)),
        };
        let terminal = order.live.is_some_and(|live| live.tty.is_some());
        Surroundings { uid: self.uid, gid: self.gid, filter: &self.filter, stdio, terminal, score_is_set, walls }
    }

    /// The working directory, to read from it what the command leaves.
    fn work(&self, order: &Order) -> Result<OwnedFd, Failed> {
        match &self.place {
            Place::Host { .. } => self.make_work(order),
            Place::Container(container) => container.work(),
        }
    }

    /// A working directory whose files can be read when its mount is gone.
    fn make_work(&self, order: &Order) -> Result<OwnedFd, Failed> {
        let step = "make /box";
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).at(step)?;
        let data = tmpfs_data(order.limits.work, jail::inodes(order), "755", (self.uid, self.gid));
        for pair in data.to_string_lossy().split(',') {
            let (key, value) = pair.split_once('=').ok_or(Errno::INVAL).at(step)?;
            fsconfig_set_string(&fs, key, value).at(step)?;
        }
        fsconfig_create(&fs).at(step)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(step)
    }

    fn report(&mut self, order: &Order, start: &Start, end: Ending) -> Result<Report, Failed> {
        let mut usage = self.cgroup.end(start)?;
        let failure = self.record.failure();
        let refused = failure.as_ref().is_some_and(|failure| is_refusal(order, failure));
        match failure {
            // A program that the memory limit does not even let start has hit that limit. Where the job
            // has used little of it, it is the host that has no memory, and the fault is ours.
            Some(failure) if failure.errno == Errno::NOMEM && usage.peak_memory >= order.limits.memory / 4 * 3 => {
                usage.oom_kills = usage.oom_kills.max(1);
            }
            Some(failure) if usage.oom_kills == 0 && !refused => return Err(failure),
            _ => {}
        }
        let ended = self.record.ended.load(SeqCst);
        let exit = if refused {
            Exit::Code(CANNOT_EXECUTE)
        } else if ended != 0 {
            decode(self.record.status.load(SeqCst))
        } else if end.stopped.is_some() || usage.oom_kills > 0 {
            // We or the kernel took the init away, and the program with it.
            Exit::Signal(libc::SIGKILL)
        } else {
            return Err(Failed { step: "the sandbox's init was killed".into(), errno: Errno::CHILD });
        };
        let started = match self.record.started.load(SeqCst) {
            0 => end.born,
            started => started,
        };
        let wall = if ended == 0 { end.gone } else { ended }.saturating_sub(started);
        // It may end on its own while we are about to stop it.
        let in_time = ended != 0 && end.stopped == Some(Stop::WallTime) && wall <= order.limits.wall;
        Ok(Report {
            exit,
            stopped: if in_time { None } else { end.stopped },
            cpu: self.exact_cpu(usage.cpu, end.waited_cpu),
            wall,
            peak_memory: self.peak(order, &usage, end.waited_rss),
            oom_kills: usage.oom_kills,
            stdout_truncated: end.truncated[0],
            stderr_truncated: end.truncated[1],
            left_out: Vec::new(),
        })
    }

    /// The group counts what no single process has (several processes, page cache, kernel memory), but in
    /// steps of up to 256 KiB for each processor, and not the library pages that somebody else read
    /// first; the largest process knows those. Together they say the same of the same program each time.
    fn peak(&self, order: &Order, usage: &Usage, waited_rss: u64) -> u64 {
        let peak = usage.peak_memory.max(waited_rss);
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
}

/// A namespace of its own for every command would be a fifth of what starting one costs, and few leave
/// anything in it. With the last process of the command gone, what is counted here is all there is: the
/// next command gets this namespace if that is nothing, and else a new one. Message queues of POSIX are
/// kept in it, too, but a limit of zero bytes forbids them.
fn renew_ipc() -> Result<(), Failed> {
    if sys::ipc_objects().at("count what is left of IPC")? == 0 {
        return Ok(());
    }
    sys::unshare(libc::CLONE_NEWIPC).at("renew the IPC namespace")
}

/// What a shell's status is for a command that it found but could not execute.
const CANNOT_EXECUTE: i32 = 126;

/// Did the kernel refuse something that the job itself brought: a program of its own that is none, or more
/// arguments than a program may have? A runtime of the host that cannot be started is our fault.
fn is_refusal(order: &Order, failure: &Failed) -> bool {
    let own_program = order.argv.first().is_some_and(|path| !path.starts_with('/'));
    let of_a_file = [Errno::NOEXEC, Errno::ACCESS, Errno::NOENT, Errno::ISDIR, Errno::LIBBAD, Errno::INVAL];
    failure.step == jail::EXECUTE
        && (failure.errno == Errno::TOOBIG || (own_program && of_a_file.contains(&failure.errno)))
}

/// The order, and what follows it in its frame.
fn read_order(frame: &[u8]) -> Result<(Order<'_>, &[u8]), Failed> {
    postcard::take_from_bytes(frame).map_err(|_| Errno::INVAL).at("read the order")
}

/// The inline files and the first part of stdin, as they follow an order in its frame.
fn split<'a>(order: &Order, mut rest: &'a mut [u8], kept: &mut Kept) -> Result<(Vec<Once<'a>>, &'a [u8]), Failed> {
    let mut take = |length: u64| {
        let piece = rest.split_off_mut(..usize::try_from(length).unwrap_or(usize::MAX));
        piece.ok_or(Errno::INVAL).at("read the order's files")
    };
    let mut inline = Vec::new();
    for file in &order.files {
        match file.content {
            OrderContent::Inline(length) => inline.push(Once::new(take(length)?)),
            OrderContent::Keep { number, length } => {
                let bytes = take(length)?;
                let mut content = Vec::with_capacity(bytes.len());
                // Not in memory twice: the job's limit is also ours in a container.
                let copied: Result<(), Infallible> = Once::new(bytes).read(true, |piece| {
                    content.extend_from_slice(piece);
                    Ok(piece.len())
                });
                let Ok(()) = copied;
                kept.insert(number, content);
            }
            OrderContent::Kept(_) | OrderContent::Shared(_) => {}
        }
    }
    Ok((inline, take(order.stdin_inline)?))
}

/// What a wait status says.
fn decode(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) { Exit::Signal(libc::WTERMSIG(status)) } else { Exit::Code(libc::WEXITSTATUS(status)) }
}
