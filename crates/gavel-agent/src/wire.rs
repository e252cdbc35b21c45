//! The protocol between a server and an agent: length-prefixed frames over two byte streams.
//!
//! A frame is `len: u32 LE`, `kind: u8`, then `len` bytes. Bodies of [`Setup`], [`Order`], [`Report`]
//! and [`Failure`] are postcard; everything bulky is raw bytes. Both ends come from the same build and
//! compare [`VERSION`] at hello; there is no other compatibility.
//!
//! One conversation: `HELLO` ← , `SETUP` →, `READY` ←, then any number of times: `RUN` →,
//! (`STDOUT` | `STDERR` | `TAKEN`)* ←, (`FILE` `DATA`*)* ←, `DONE` ←; the server may send `STDIN` and
//! `STOP` while a command runs, and to one whose order is [`Live`] also `STDIN_END` and `RESIZE`. `FAILED` takes the place of `READY` or `DONE`. Whatever the server
//! reads may come from a compromised agent: lengths are capped, order is checked, and a violation
//! ends the agent.
//!
//! On a host every command gets a place that is new. A container has only the one that it was made with.
//! If it is to be used again, `CLEANED` ← follows each `DONE` unasked, and the next `RUN` must wait for it;
//! where the agent cannot make the place as good as new it says `FAILED` instead and ends.

use serde::{Deserialize, Serialize};
use std::io::{self, Read};

pub const VERSION: u32 = 4;

/// Bytes of a frame's header.
pub const HEADER: usize = 5;

/// Largest body that either end accepts.
pub const MAX_BODY: usize = 256 << 20;

/// Output and file contents travel in pieces of at most this size.
pub const PIECE: usize = 64 << 10;

/// The part of stdin that travels with the order; the rest follows in pieces.
pub const STDIN_INLINE: usize = 256 << 10;

/// How much of stdin may be under way before the agent has said `TAKEN`.
pub const STDIN_WINDOW: usize = 512 << 10;

/// Frame kinds. From the server:
pub const SETUP: u8 = 1;
pub const RUN: u8 = 2;
pub const STDIN: u8 = 3;
pub const STOP: u8 = 4;
pub const STDIN_END: u8 = 5;
pub const RESIZE: u8 = 6;
/// From the agent:
pub const HELLO: u8 = 64;
pub const READY: u8 = 65;
pub const STDOUT: u8 = 66;
pub const STDERR: u8 = 67;
pub const TAKEN: u8 = 68;
pub const FILE: u8 = 69;
pub const DATA: u8 = 70;
pub const DONE: u8 = 71;
pub const FAILED: u8 = 72;
pub const CLEANED: u8 = 73;

/// What an agent needs to know once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Setup {
    pub place: Place,
    /// The unprivileged user that commands run as.
    pub uid: u32,
    pub gid: u32,
    /// Seccomp filters in classic BPF, as the kernel's `struct sock_filter` lays it out: the one that the
    /// agent puts itself under, and the one that each job gets on top. In a container the agent takes both.
    pub own_filter: Vec<(u16, u8, u8, u32)>,
    pub job_filter: Vec<(u16, u8, u8, u32)>,
}

/// Where the agent has been started, and so what is left for it to build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Place {
    /// Beside the server: the agent isolates its commands itself.
    Host(Box<Host>),
    /// As the first process of a container: the container is the sandbox.
    Container(Container),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// The directory that `binds` and `copies` are below: `/`, or the unpacked root of an image.
    pub root: String,
    /// Directories of the host that are mounted read-only at the same place.
    pub binds: Vec<String>,
    /// Symbolic links of the root directory: (name, target).
    pub links: Vec<(String, String)>,
    /// Small files, directories and links of the host that are copied.
    pub copies: Vec<String>,
    /// Files that the sandbox has instead of the host's: (path, content).
    pub files: Vec<(String, String)>,
    /// Directory whose files an order may share by path relative to it.
    pub shared: Option<String>,
    pub hostname: String,
    /// Started without privileges: build everything in a user namespace.
    pub rootless: bool,
    pub cgroup: Cgroup,
    pub allow_network: bool,
}

/// The limits on memory and processes, the mounts and the network are those of the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    /// How many users and groups, from [`Setup::uid`] and [`Setup::gid`] on, the commands have one after
    /// the other, and then again from the first.
    pub uids: u32,
    /// More than one command will run in it.
    pub reuse: bool,
}

/// Where resources are limited and counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Cgroup {
    /// A version 1 host: one directory per controller. The agent lives inside the groups it makes
    /// there, because forking from inside is cheap and moving a process is not.
    V1 { memory: String, pids: String, cpuacct: String, cpu: Option<String>, name: String },
    /// A version 2 host: a directory in which the agent makes a group for each command.
    V2 { base: String, name: String },
    /// No cgroup at all: resource limits of single processes only.
    Weak,
}

/// One command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order<'a> {
    #[serde(borrow)]
    pub argv: Vec<&'a str>,
    /// The whole environment.
    #[serde(borrow)]
    pub env: Vec<(&'a str, &'a str)>,
    /// In order; the bytes of the inline ones follow the order in its frame, then stdin's first part.
    #[serde(borrow)]
    pub files: Vec<OrderFile<'a>>,
    pub stdin_total: u64,
    pub stdin_inline: u64,
    /// Somebody types: what follows those bytes of stdin comes when it comes, until `STDIN_END`.
    pub live: Option<Live>,
    pub limits: OrderLimits,
    pub stderr_to_stdout: bool,
    pub network: bool,
    /// Beyond the output limit: throw away and let it run, instead of stopping it.
    pub discard_output: bool,
    #[serde(borrow)]
    pub collect: Vec<&'a str>,
    /// Kept files that no later order will name.
    pub forget: Vec<u64>,
    pub collect_max_files: u32,
    pub collect_max_total: u64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Live {
    /// The streams are a terminal of this size, and not pipes.
    pub tty: Option<Size>,
    /// Without input and output for so long it is stopped (nanoseconds).
    pub idle: u64,
}

/// Of a terminal; also the body of `RESIZE`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Size {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderFile<'a> {
    pub path: &'a str,
    pub executable: bool,
    pub content: OrderContent<'a>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OrderContent<'a> {
    /// This many bytes of the frame.
    Inline(u64),
    /// The same, and the agent keeps them under this number.
    Keep { number: u64, length: u64 },
    /// What it was told to keep under this number.
    Kept(u64),
    /// A file below [`Host::shared`]; there is none in a container.
    Shared(&'a str),
}

/// Times in nanoseconds, sizes in bytes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct OrderLimits {
    pub cpu: u64,
    pub wall: u64,
    pub memory: u64,
    pub stack: u64,
    pub processes: u32,
    pub output: u64,
    pub file_size: u64,
    pub work: u64,
    pub tmp: u64,
    pub shm: u64,
    pub inodes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stop {
    CpuTime,
    WallTime,
    Output,
    Idle,
    Cancelled,
}

/// What happened to a command. Times in nanoseconds, sizes in bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub exit: Exit,
    pub stopped: Option<Stop>,
    pub cpu: u64,
    pub wall: u64,
    pub peak_memory: u64,
    pub oom_kills: u64,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    /// Files that matched a pattern but did not come along, with the reason.
    pub left_out: Vec<String>,
}

/// Head of a collected file; `size` bytes of `DATA` follow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileHead {
    pub path: String,
    pub executable: bool,
    pub size: u64,
}

/// The longest path of a collected file, its longest component, and how many components it may have: the
/// server takes any other for a violation.
pub const MAX_PATH: usize = 1024;
pub const MAX_COMPONENT: usize = 255;
pub const MAX_DEPTH: usize = 16;

impl FileHead {
    /// Can a file of this name be sent?
    pub fn can_name(path: &str) -> bool {
        let plain = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= MAX_COMPONENT;
        path.len() <= MAX_PATH
            && !path.contains('\0')
            && path.split('/').all(plain)
            && path.split('/').count() <= MAX_DEPTH
    }
}

/// The agent could not do what it was told: which step, and the errno (0: none).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub step: String,
    pub errno: i32,
    /// The agent is in order and takes the next command.
    pub usable: bool,
}

/// Starts a frame in `out`; [`finish`] fills in its length.
pub fn start(out: &mut Vec<u8>, kind: u8) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    at
}

pub fn finish(out: &mut [u8], at: usize) {
    let len = (out.len() - at - HEADER) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// A whole frame with a postcard body.
pub fn encode<T: Serialize>(kind: u8, body: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut out = Vec::with_capacity(256);
    let at = start(&mut out, kind);
    let mut out = postcard::to_extend(body, out)?;
    finish(&mut out, at);
    Ok(out)
}

/// Reads `len` and `kind` of the next frame; `None` at a clean end.
pub fn header(bytes: &[u8; HEADER], max: usize) -> io::Result<(usize, u8)> {
    let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if len > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {len} bytes exceeds {max}")));
    }
    Ok((len, bytes[4]))
}

/// Reads the length and the kind of the next frame; `None` when the stream ends between frames.
pub fn read_header(from: &mut impl Read, max: usize) -> io::Result<Option<(usize, u8)>> {
    let mut head = [0u8; HEADER];
    let mut got = 0;
    while got < HEADER {
        match from.read(&mut head[got..]) {
            Ok(0) if got == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    header(&head, max).map(Some)
}

/// Reads the body that a header has announced.
pub fn read_body(from: &mut impl Read, body: &mut Vec<u8>, len: usize) -> io::Result<()> {
    body.clear();
    // `take` grows the buffer as bytes arrive: a lying length costs nothing.
    if from.take(len as u64).read_to_end(body)? != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_frame(from: &mut impl Read, body: &mut Vec<u8>, max: usize) -> io::Result<Option<u8>> {
        let Some((len, kind)) = read_header(from, max)? else { return Ok(None) };
        read_body(from, body, len)?;
        Ok(Some(kind))
    }

    #[test]
    fn a_frame_survives_the_wire() {
        let failure = Failure { step: "mount /proc".into(), errno: 1, usable: false };
        let bytes = encode(FAILED, &failure).unwrap();
        let mut body = Vec::new();
        let kind = read_frame(&mut bytes.as_slice(), &mut body, MAX_BODY).unwrap();
        assert_eq!(kind, Some(FAILED));
        let back: Failure = postcard::from_bytes(&body).unwrap();
        assert_eq!((back.step, back.errno, back.usable), (failure.step, 1, false));
    }

    #[test]
    fn hostile_lengths_and_cut_frames_are_errors() {
        let mut body = Vec::new();
        let huge = [0xff, 0xff, 0xff, 0xff, STDOUT];
        assert!(read_frame(&mut huge.as_slice(), &mut body, PIECE).is_err());
        let cut = [10, 0, 0, 0, STDOUT, 1, 2];
        assert!(read_frame(&mut cut.as_slice(), &mut body, PIECE).is_err());
        assert!(read_frame(&mut [1u8, 0].as_slice(), &mut body, PIECE).is_err());
        assert_eq!(read_frame(&mut [].as_slice(), &mut body, PIECE).unwrap(), None);
    }
}
