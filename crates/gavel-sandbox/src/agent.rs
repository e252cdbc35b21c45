//! The server's end of an agent: spoken to over the pipes of a child process, and never trusted. The child
//! is the agent itself, or a command-line client that passes its streams on.

use crate::{Cancel, Command, Content, Fault, LiveInput, OnOutput, OnOutputLimit, Stream, Typed};
use gavel_agent::wire::{self, FileHead, HEADER, Order, OrderContent, OrderFile, OrderLimits, PIECE, Report, Setup};
use gavel_core::{Bytes, CollectedFile, Exit, Facts, Stop};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fcntl_setfl, memfd_create};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Child;
use std::time::{Duration, Instant};

/// The agent program, built by this crate's build script.
pub(crate) static PROGRAM: &[u8] = include_bytes!(env!("GAVEL_AGENT"));

/// How much longer than its wall limit a command may take, set-up, collecting and a loaded machine
/// included, before the agent counts as stuck.
const GRACE: Duration = Duration::from_secs(15);

/// Largest frame an agent may send.
const MAX_FRAME: usize = PIECE + 4096;

/// The program in memory that nobody can change, ready to be executed.
pub(crate) fn in_memory() -> Result<OwnedFd, Fault> {
    let step = "put the agent into memory";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know EXEC; on later ones it may be required.
    let fd = memfd_create("gavel-agent", flags | MemfdFlags::EXEC)
        .or_else(|_| memfd_create("gavel-agent", flags))
        .map_err(|e| Fault::new(step, e))?;
    let mut file = File::from(fd);
    file.write_all(PROGRAM).map_err(|e| Fault::new(step, e))?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(|e| Fault::new(step, e))?;
    Ok(file.into())
}

/// The conversation with one agent. Whoever has it ends the child and whatever belongs to it.
pub(crate) struct Link {
    child: Child,
    to: File,
    from: File,
    inbox: Inbox,
    kept: Kept,
}

/// Bytes that have arrived and are not dealt with yet: whole frames, and perhaps the beginning of one.
#[derive(Default)]
struct Inbox {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    next: usize,
}

impl Inbox {
    /// The next whole frame: its kind and body.
    fn frame(&mut self) -> Result<Option<(u8, &[u8])>, Fault> {
        let rest = &self.bytes[self.next..];
        let Some(head) = rest.first_chunk::<HEADER>() else { return Ok(None) };
        let (length, kind) = wire::header(head, MAX_FRAME).map_err(violation)?;
        if rest.len() < HEADER + length {
            return Ok(None);
        }
        let body = self.next + HEADER;
        self.next = body + length;
        Ok(Some((kind, &self.bytes[body..body + length])))
    }

    /// Makes room behind what is left of the bytes.
    fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.next);
        self.next = 0;
        self.bytes.reserve(HEADER + PIECE);
        &mut self.bytes
    }
}

impl Link {
    /// The child must have been started with pipes for stdin and stdout.
    pub fn new(mut child: Child) -> Result<Self, Fault> {
        let step = "open the agent's pipes";
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Fault::new(step, "no pipes"));
        };
        let (to, from) = (File::from(OwnedFd::from(to)), File::from(OwnedFd::from(from)));
        // Nothing that the agent does or leaves undone may block us.
        fcntl_setfl(&to, OFlags::NONBLOCK).map_err(|e| Fault::new(step, e))?;
        fcntl_setfl(&from, OFlags::NONBLOCK).map_err(|e| Fault::new(step, e))?;
        Ok(Self { child, to, from, inbox: Inbox::default(), kept: Kept::default() })
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Ends the conversation: an agent that hears nobody any more ends, and a container with it.
    pub fn hang_up(&mut self) -> std::io::Result<()> {
        self.to = File::options().write(true).open("/dev/null")?;
        Ok(())
    }

    /// From its first word until it takes commands, which it must within `limit`.
    pub fn greet(&mut self, setup: &Setup, limit: Duration) -> Result<(), Fault> {
        let deadline = Instant::now() + limit;
        let version: u32 = self.expect(wire::HELLO, deadline)?;
        if version != wire::VERSION {
            return Err(Fault::new("greet the agent", format!("it speaks version {version}")));
        }
        let frame = wire::encode(wire::SETUP, setup).map_err(|e| Fault::new("write the set-up", e))?;
        self.send(&frame, deadline)?;
        self.expect(wire::READY, deadline)
    }

    /// From now on the agent keeps the larger files of orders, up to so many bytes of its memory.
    pub fn keep_files(&mut self, limit: Bytes) {
        self.kept.limit = limit.0;
    }

    /// Waits until a container that is used again is as good as new: before every command but the first. After a
    /// fault it must be thrown away.
    pub fn wait_until_clean(&mut self, limit: Duration) -> Result<(), Fault> {
        self.expect(wire::CLEANED, Instant::now() + limit)
    }

    fn expect<T: DeserializeOwned>(&mut self, wanted: u8, deadline: Instant) -> Result<T, Fault> {
        loop {
            match self.inbox.frame()? {
                Some((kind, body)) if kind == wanted => return decode(body),
                Some((wire::FAILED, body)) => return Err(failure(body)?),
                Some((other, _)) => return Err(violation(format!("frame {other} instead of {wanted}"))),
                None => {}
            }
            self.wait(None, None, false, deadline)?;
            self.receive()?;
        }
    }

    pub fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        let deadline = Instant::now() + command.limits.wall_time + GRACE;
        let mut stdin = Stdin::new(command);
        let mut facts = Collected::new(command);
        let mut cancel_sent = false;
        self.send_order(command, deadline)?;
        loop {
            while let Some((kind, body)) = self.inbox.frame()? {
                match kind {
                    wire::STDOUT => facts.output(Stream::Stdout, body, on_output)?,
                    wire::STDERR => facts.output(Stream::Stderr, body, on_output)?,
                    wire::TAKEN => stdin.taken(decode(body)?)?,
                    wire::FILE => facts.file(decode(body)?)?,
                    wire::DATA => facts.data(body)?,
                    wire::DONE => {
                        let report = decode(body)?;
                        // A piece of stdin that nobody wants any more; but the agent counts on whole frames.
                        self.send(stdin.unfinished(), deadline)?;
                        return facts.finish(report);
                    }
                    wire::FAILED => return Err(failure(body)?),
                    other => return Err(violation(format!("frame {other} while a command runs"))),
                }
            }
            // Between two frames of ours, never inside one.
            if !cancel_sent && cancel.is_wanted() && stdin.unfinished().is_empty() {
                self.send(&[0, 0, 0, 0, wire::STOP], deadline)?;
                cancel_sent = true;
            }
            stdin.take_typed();
            let bell = if cancel.is_wanted() { None } else { Some(cancel) };
            let ready = self.wait(bell, stdin.source(), stdin.wants_to_send(), deadline)?;
            if ready.typed {
                stdin.hear();
            }
            if ready.writable {
                stdin.send(&self.to)?;
            }
            if ready.readable {
                self.receive()?;
            }
        }
    }

    fn send_order(&mut self, command: &Command, deadline: Instant) -> Result<(), Fault> {
        let step = "write the order";
        let mut head = Vec::with_capacity(1024);
        wire::start(&mut head, wire::RUN);
        let order = order(command, &mut self.kept);
        let mut head = postcard::to_extend(&order, head).map_err(|e| Fault::new(step, e))?;
        let mut inline = Vec::with_capacity(command.files.len() + 1);
        for (file, ordered) in command.files.iter().zip(&order.files) {
            if let OrderContent::Inline(_) | OrderContent::Keep { .. } = ordered.content {
                inline.push(bytes_of(&file.content)?);
            }
        }
        inline.push(Cow::Borrowed(inline_stdin(command.stdin)));
        let bulk: usize = inline.iter().map(|bytes| bytes.len()).sum();
        let length = head.len() - HEADER + bulk;
        if length > wire::MAX_BODY {
            return Err(Fault::new(step, format!("{length} bytes are too many for one order")));
        }
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        // One write for the usual small job; the large pieces are not copied together.
        if bulk <= PIECE {
            inline.iter().for_each(|bytes| head.extend_from_slice(bytes));
            return self.send(&head, deadline);
        }
        self.send(&head, deadline)?;
        inline.iter().try_for_each(|bytes| self.send(bytes, deadline))
    }

    /// Writes everything. Only while the agent is bound to read: it takes an order as a whole.
    fn send(&mut self, mut bytes: &[u8], deadline: Instant) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.to, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&self.to, PollFlags::OUT)];
                    poll_until(&mut fds, deadline)?;
                }
                Err(e) => return Err(self.gone("write to the agent", e)),
            }
        }
        Ok(())
    }

    /// Waits for a frame, for room to write if that is wanted, for a wish to cancel, or for somebody to type.
    fn wait(
        &self,
        cancel: Option<&Cancel>,
        typed: Option<&LiveInput>,
        to_write: bool,
        deadline: Instant,
    ) -> Result<Waited, Fault> {
        let mut fds = Vec::with_capacity(4);
        fds.push(PollFd::new(&self.from, PollFlags::IN));
        let write = if to_write { PollFlags::OUT } else { PollFlags::empty() };
        fds.push(PollFd::new(&self.to, write));
        if let Some(cancel) = cancel {
            fds.push(PollFd::from_borrowed_fd(cancel.bell(), PollFlags::IN));
        }
        if let Some(typed) = typed {
            fds.push(PollFd::from_borrowed_fd(typed.bell().as_fd(), PollFlags::IN));
        }
        poll_until(&mut fds, deadline)?;
        let is_ready = |at: usize| !fds[at].revents().is_empty();
        Ok(Waited {
            readable: is_ready(0),
            writable: to_write && is_ready(1),
            typed: typed.is_some() && is_ready(fds.len() - 1),
        })
    }

    /// Takes what has arrived.
    fn receive(&mut self) -> Result<(), Fault> {
        match rustix::io::read(&self.from, spare_capacity(self.inbox.space())) {
            Ok(0) => Err(self.gone("read from the agent", "it ended")),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(e) => Err(self.gone("read from the agent", e)),
        }
    }

    fn gone(&mut self, step: &'static str, cause: impl std::fmt::Display) -> Fault {
        match self.child.try_wait() {
            Ok(Some(status)) => Fault::new(step, format!("{cause} (the agent ended: {status})")),
            _ => Fault::new(step, cause),
        }
    }
}

struct Waited {
    readable: bool,
    writable: bool,
    typed: bool,
}

fn poll_until(fds: &mut [PollFd], deadline: Instant) -> Result<(), Fault> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::new("wait for the agent", "it does not answer"));
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(Fault::new("wait for the agent", e)),
        }
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    postcard::from_bytes(body).map_err(|e| violation(format!("a body cannot be read: {e}")))
}

/// What an agent says of its own failure.
fn failure(body: &[u8]) -> Result<Fault, Fault> {
    let failure: wire::Failure = decode(body)?;
    let errno = Errno::from_raw_os_error(failure.errno.clamp(1, 4095));
    Ok(Fault::new("run a command in the sandbox", format!("{}: {errno}", failure.step)))
}

fn violation(what: impl std::fmt::Display) -> Fault {
    Fault::new("understand the agent", what)
}

fn inline_stdin(stdin: &[u8]) -> &[u8] {
    &stdin[..stdin.len().min(wire::STDIN_INLINE)]
}

fn order<'a>(command: &'a Command, kept: &mut Kept) -> Order<'a> {
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let (limits, scratch) = (&command.limits, &command.scratch);
    let fixed = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("HOME", "/box"), ("LANG", "C.UTF-8"), ("TMPDIR", "/tmp")];
    let own = command.env.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    // What the web's terminals understand, unless the job knows better.
    let has_terminal = command.live.is_some_and(|live| live.tty.is_some());
    let terminal = (has_terminal && own.clone().all(|(name, _)| name != "TERM")).then_some(("TERM", "xterm-256color"));
    Order {
        argv: command.argv.iter().map(String::as_str).collect(),
        env: fixed.into_iter().chain(terminal).chain(own).collect(),
        files: command.files.iter().map(|file| order_file(file, kept)).collect(),
        forget: kept.forgotten(),
        stdin_total: command.stdin.len() as u64,
        stdin_inline: inline_stdin(command.stdin).len() as u64,
        live: command.live.map(|live| wire::Live { tty: live.tty.map(size), idle: nanos(live.idle) }),
        limits: OrderLimits {
            cpu: nanos(limits.cpu_time),
            wall: nanos(limits.wall_time),
            memory: limits.memory.0,
            stack: limits.stack.0,
            processes: limits.processes,
            output: limits.output.0,
            file_size: limits.file_size.0,
            work: scratch.work.0,
            tmp: scratch.tmp.0,
            shm: scratch.shm.0,
            inodes: scratch.inodes,
        },
        stderr_to_stdout: command.stderr_to_stdout,
        network: command.network,
        discard_output: command.on_output_limit == OnOutputLimit::Discard,
        collect: command.collect.patterns.iter().map(String::as_str).collect(),
        collect_max_files: command.collect.max_files,
        collect_max_total: command.collect.max_total.0,
    }
}

fn size(tty: gavel_core::job::Tty) -> wire::Size {
    wire::Size { rows: tty.rows, cols: tty.cols }
}

fn order_file<'a>(file: &'a crate::InputFile, kept: &mut Kept) -> OrderFile<'a> {
    let content = match &file.content {
        Content::Bytes(bytes) => OrderContent::Inline(bytes.len() as u64),
        Content::Stored { hash, size, .. } => kept.content(hash, *size),
        Content::Shared(path) => OrderContent::Shared(path),
    };
    OrderFile { path: &file.path, executable: file.executable, content }
}

fn bytes_of<'a>(content: &Content<'a>) -> Result<Cow<'a, [u8]>, Fault> {
    let step = "read a stored file";
    match content {
        Content::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
        Content::Stored { path, size, .. } => {
            let bytes = std::fs::read(path).map_err(|e| Fault::new(step, e))?;
            if bytes.len() as u64 != *size {
                return Err(Fault::new(step, "it has another size"));
            }
            Ok(Cow::Owned(bytes))
        }
        Content::Shared(_) => Err(Fault::new(step, "it is shared")),
    }
}

/// Which files the agent keeps, so that they need not be sent again: through a client and a daemon that takes
/// longer than all the rest of a small job.
#[derive(Default)]
struct Kept {
    /// Bytes of all together; 0: none are kept.
    limit: u64,
    /// Hash, number and length, the one that was used last at the end.
    files: Vec<(String, u64, u64)>,
    last_number: u64,
    /// Those of the order that is being written: what it names must not go before it is read.
    named: Vec<u64>,
    /// Numbers that the agent has not been told to forget yet.
    forgotten: Vec<u64>,
}

/// Files below this are sent as fast as they are looked for.
const WORTH_KEEPING: u64 = 16 << 10;

impl Kept {
    fn content(&mut self, hash: &str, length: u64) -> OrderContent<'static> {
        if length < WORTH_KEEPING || length > self.limit {
            return OrderContent::Inline(length);
        }
        if let Some(at) = self.files.iter().position(|(known, ..)| *known == hash) {
            let file = self.files.remove(at);
            let number = file.1;
            self.files.push(file);
            self.named.push(number);
            return OrderContent::Kept(number);
        }
        while self.files.iter().map(|(.., length)| length).sum::<u64>() + length > self.limit {
            let Some(at) = self.files.iter().position(|(_, number, _)| !self.named.contains(number)) else {
                return OrderContent::Inline(length);
            };
            self.forgotten.push(self.files.remove(at).1);
        }
        self.last_number += 1;
        self.named.push(self.last_number);
        self.files.push((hash.to_owned(), self.last_number, length));
        OrderContent::Keep { number: self.last_number, length }
    }

    /// Ends an order.
    fn forgotten(&mut self) -> Vec<u64> {
        self.named.clear();
        std::mem::take(&mut self.forgotten)
    }
}

/// The part of stdin that did not fit into the order: sent piece by piece as the job takes it. Then what is typed,
/// which is not taken from its source before there is room for it.
struct Stdin<'a> {
    rest: &'a [u8],
    live: Option<&'a LiveInput>,
    /// The source may have something.
    heard: bool,
    typed: Option<Typed>,
    window: usize,
    frame: Vec<u8>,
    offset: usize,
    under_way: usize,
}

impl<'a> Stdin<'a> {
    fn new(command: &Command<'a>) -> Self {
        let inline = inline_stdin(command.stdin).len();
        let live = command.live.map(|live| live.input);
        // What somebody types and nobody reads should wait with who types it.
        let window = if live.is_some() { wire::STDIN_WINDOW.min(2 * PIECE) } else { wire::STDIN_WINDOW };
        // What the order carries is on its way, too, and the agent will say when it is taken.
        Self {
            rest: &command.stdin[inline..],
            live,
            heard: true,
            typed: None,
            window,
            frame: Vec::new(),
            offset: 0,
            under_way: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.under_way + PIECE <= self.window
    }

    fn wants_to_send(&self) -> bool {
        let waiting = !self.rest.is_empty() || self.typed.is_some();
        self.offset < self.frame.len() || (waiting && self.has_room())
    }

    /// Whom to listen to: nobody, while what was taken last is not on its way.
    fn source(&self) -> Option<&'a LiveInput> {
        self.live.filter(|_| !self.heard && self.typed.is_none())
    }

    fn hear(&mut self) {
        if let Some(live) = self.live {
            // First this, then the look: what comes in between rings again.
            live.bell().hush();
            self.heard = true;
        }
    }

    fn take_typed(&mut self) {
        if let Some(live) = self.live
            && self.heard
            && self.typed.is_none()
            && self.rest.is_empty()
            && self.has_room()
        {
            self.typed = live.take();
            self.heard = self.typed.is_some();
        }
    }

    fn send(&mut self, to: &File) -> Result<(), Fault> {
        if self.offset == self.frame.len() {
            self.frame.clear();
            self.offset = 0;
            self.next_frame()?;
        }
        match rustix::io::write(to, &self.frame[self.offset..]) {
            Ok(n) => self.offset += n,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(e) => return Err(Fault::new("write stdin to the agent", e)),
        }
        Ok(())
    }

    fn next_frame(&mut self) -> Result<(), Fault> {
        if !self.rest.is_empty() {
            let (piece, rest) = self.rest.split_at(self.rest.len().min(PIECE));
            self.rest = rest;
            self.stdin_frame(piece);
            return Ok(());
        }
        match self.typed.take() {
            Some(Typed::Bytes(mut bytes)) => {
                if bytes.len() > PIECE {
                    self.typed = Some(Typed::Bytes(bytes.split_off(PIECE)));
                }
                self.stdin_frame(&bytes);
            }
            Some(Typed::End) => self.frame.extend_from_slice(&[0, 0, 0, 0, wire::STDIN_END]),
            Some(Typed::Resize(tty)) => {
                let frame = wire::encode(wire::RESIZE, &size(tty));
                self.frame = frame.map_err(|e| Fault::new("write the size of a terminal", e))?;
            }
            None => {}
        }
        Ok(())
    }

    fn stdin_frame(&mut self, piece: &[u8]) {
        self.under_way += piece.len();
        let at = wire::start(&mut self.frame, wire::STDIN);
        self.frame.extend_from_slice(piece);
        wire::finish(&mut self.frame, at);
    }

    /// What is left of a frame that has been begun.
    fn unfinished(&self) -> &[u8] {
        if self.offset == 0 { &[] } else { &self.frame[self.offset..] }
    }

    fn taken(&mut self, bytes: u64) -> Result<(), Fault> {
        // Bytes of the order are reported as well; they were never counted as under way.
        self.under_way = self.under_way.saturating_sub(usize::try_from(bytes).map_err(violation)?);
        Ok(())
    }
}

/// Less than any program needs: the kernel accounts the first page tables, stack and streams to the job, too.
const LEAST_FOR_A_PROGRAM: u64 = 1 << 20;

/// The files that a job brings are in its memory before it starts. Where they leave none for a program, that
/// is a limit hit, and nothing is to be sent: the agent, which takes the order in the same memory, would be
/// the one that the kernel kills.
pub(crate) fn too_large(command: &Command) -> Option<Facts> {
    let sizes = command.files.iter().map(|file| match &file.content {
        Content::Bytes(bytes) => bytes.len() as u64,
        Content::Stored { size, .. } => *size,
        Content::Shared(_) => 0,
    });
    let memory = command.limits.memory;
    let files: u64 = sizes.sum();
    let fits = files == 0 || files.saturating_add(LEAST_FOR_A_PROGRAM) <= memory.0;
    (!fits).then(|| Facts { peak_memory: memory, oom_kills: 1, ..never_begun(None) })
}

/// What there is to say of a command that was never begun.
pub(crate) fn never_begun(stopped: Option<Stop>) -> Facts {
    Facts {
        exit: Exit::Signal(libc::SIGKILL),
        stopped,
        cpu: Duration::ZERO,
        wall: Duration::ZERO,
        peak_memory: Bytes(0),
        oom_kills: 0,
        stdout: Vec::new(),
        stderr: Vec::new(),
        stdout_truncated: false,
        stderr_truncated: false,
        files: Vec::new(),
        files_left_out: Vec::new(),
    }
}

/// What has arrived of a command's results, within the bounds that were ordered.
struct Collected<'a> {
    command: &'a Command<'a>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: Vec<CollectedFile>,
    /// Bytes that the current file still lacks.
    missing: u64,
    total: u64,
}

impl<'a> Collected<'a> {
    fn new(command: &'a Command<'a>) -> Self {
        Self { command, stdout: Vec::new(), stderr: Vec::new(), files: Vec::new(), missing: 0, total: 0 }
    }

    fn output(&mut self, stream: Stream, bytes: &[u8], on_output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), Fault> {
        let kept = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if (kept.len() + bytes.len()) as u64 > self.command.limits.output.0 {
            return Err(violation("more output than was ordered"));
        }
        kept.extend_from_slice(bytes);
        on_output(stream, bytes);
        Ok(())
    }

    fn file(&mut self, head: FileHead) -> Result<(), Fault> {
        let collect = &self.command.collect;
        self.total = self.total.saturating_add(head.size);
        if self.missing > 0 || self.files.len() as u64 >= collect.max_files.into() || self.total > collect.max_total.0 {
            return Err(violation("more files than were ordered"));
        }
        gavel_core::path::check(&head.path).map_err(violation)?;
        self.missing = head.size;
        self.files.push(CollectedFile { path: head.path, executable: head.executable, content: Vec::new() });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let file = self.files.last_mut().filter(|_| bytes.len() as u64 <= self.missing);
        let file = file.ok_or_else(|| violation("more data than a file has"))?;
        file.content.extend_from_slice(bytes);
        self.missing -= bytes.len() as u64;
        Ok(())
    }

    fn finish(self, report: Report) -> Result<Facts, Fault> {
        if self.missing > 0 {
            return Err(violation("a file is incomplete"));
        }
        let time = Duration::from_nanos;
        Ok(Facts {
            exit: match report.exit {
                wire::Exit::Code(code) => Exit::Code(code),
                wire::Exit::Signal(signal) => Exit::Signal(signal),
            },
            stopped: report.stopped.map(|stop| match stop {
                wire::Stop::CpuTime => Stop::CpuTime,
                wire::Stop::WallTime => Stop::WallTime,
                wire::Stop::Output => Stop::Output,
                wire::Stop::Idle => Stop::Idle(self.command.live.map(|live| live.idle).unwrap_or_default()),
                wire::Stop::Cancelled => Stop::Cancelled,
            }),
            cpu: time(report.cpu),
            wall: time(report.wall),
            peak_memory: Bytes(report.peak_memory),
            oom_kills: report.oom_kills,
            stdout: self.stdout,
            stderr: self.stderr,
            stdout_truncated: report.stdout_truncated,
            stderr_truncated: report.stderr_truncated,
            files: self.files,
            files_left_out: report.left_out,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an agent would have after each order, told by the contents of its files.
    fn order(kept: &mut Kept, agent: &mut Vec<u64>, files: &[(&str, u64)]) -> Vec<&'static str> {
        let contents: Vec<_> = files.iter().map(|(hash, kib)| kept.content(hash, kib << 10)).collect();
        let forgotten = kept.forgotten();
        agent.retain(|number| !forgotten.contains(number));
        let said = contents.into_iter().map(|content| match content {
            OrderContent::Inline(_) => "inline",
            OrderContent::Keep { number, .. } => {
                agent.push(number);
                "keep"
            }
            OrderContent::Kept(number) => {
                assert!(agent.contains(&number), "{number} was forgotten");
                "kept"
            }
            OrderContent::Shared(_) => "shared",
        });
        said.collect()
    }

    #[test]
    fn the_agent_knows_which_paths_the_server_takes() {
        let long = |length: usize| "x".repeat(length);
        let deep = |depth: usize| vec!["d"; depth].join("/");
        let far = |last: usize| [long(255), long(255), long(255), long(last)].join("/");
        for path in [long(255), long(256), deep(16), deep(17), far(255), far(255) + "/", far(254) + "/y"] {
            assert_eq!(FileHead::can_name(&path), gavel_core::path::check(&path).is_ok(), "{path}");
        }
        let [longest, too_long] = [far(254) + "/y", far(255) + "/y"];
        for path in
            [longest.as_str(), &too_long, "", "/a", "a//b", "a/", ".", "a/..", "..a", "a b/\u{fc}", "a\0b", "\n"]
        {
            assert_eq!(FileHead::can_name(path), gavel_core::path::check(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn files_are_sent_once_while_there_is_room_for_them() {
        let [a, b, c, huge, small] = [("a", 20), ("b", 20), ("c", 20), ("huge", 60), ("small", 1)];
        let mut kept = Kept { limit: 50 << 10, ..Kept::default() };
        let mut agent = Vec::new();
        type Files<'a> = &'a [(&'a str, u64)];
        let orders: [(Files, &[&str]); 6] = [
            (&[a, small, huge], &["keep", "inline", "inline"]),
            (&[a, b], &["kept", "keep"]),
            (&[b, a], &["kept", "kept"]),
            (&[c], &["keep"]),
            // The one that was used least lately went; and one that this order names stays.
            (&[a, b], &["kept", "keep"]),
            (&[a, b, c], &["kept", "kept", "inline"]),
        ];
        for (files, wanted) in orders {
            assert_eq!(order(&mut kept, &mut agent, files), wanted);
            assert!(agent.len() <= 2);
        }
        let mut none = Kept::default();
        assert_eq!(order(&mut none, &mut agent, &[a, a]), ["inline", "inline"]);
    }
}
