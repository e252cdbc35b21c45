//! The agent's end of the wire: standard input and output, one frame at a time.

use crate::failed::{At, Failed};
use gavel_agent::wire::{self, HEADER, MAX_BODY, PIECE, Size};
use rustix::io::Errno;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub struct Link {
    input: File,
    output: File,
    body: Vec<u8>,
    /// Header and one piece of output, so that a piece leaves in a single write.
    piece: Box<[u8; HEADER + PIECE]>,
    /// Output that leaves with the next frame.
    held: Vec<u8>,
}

/// When a piece of output leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    Now,
    /// Together with what follows: the command has ended, and its report is about to be sent.
    WithTheNext,
}

pub enum Message {
    Setup(Vec<u8>),
    Run(Vec<u8>),
    Stdin(Vec<u8>),
    /// The end of a live stdin.
    End,
    Resize(Size),
    Stop,
}

impl Link {
    /// Takes over standard input and output, and leaves /dev/null in their place: the server sees the
    /// end of an agent when these are closed, and no copy of the agent may keep them open.
    pub fn new() -> Result<Self, Failed> {
        let take = |fd: BorrowedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map(File::from);
        let input = take(io::stdin().as_fd()).at("take stdin")?;
        let output = take(io::stdout().as_fd()).at("take stdout")?;
        let null = File::options().read(true).write(true).open("/dev/null").at("open /dev/null")?;
        rustix::stdio::dup2_stdin(&null).at("replace stdin")?;
        rustix::stdio::dup2_stdout(&null).at("replace stdout")?;
        Ok(Self { input, output, body: Vec::new(), piece: Box::new([0; HEADER + PIECE]), held: Vec::new() })
    }

    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The next message; `None` when the server is gone.
    pub fn receive(&mut self) -> Result<Option<Message>, Failed> {
        self.receive_after(|_| Ok(()))
    }

    /// The same; `prepare` is told how long it is before it is in memory.
    pub fn receive_after(
        &mut self,
        prepare: impl FnOnce(usize) -> Result<(), Failed>,
    ) -> Result<Option<Message>, Failed> {
        let step = "read from the server";
        let Some((length, kind)) = wire::read_header(&mut self.input, MAX_BODY).at(step)? else { return Ok(None) };
        prepare(length)?;
        wire::read_body(&mut self.input, &mut self.body, length).at(step)?;
        Ok(Some(match kind {
            wire::SETUP => Message::Setup(std::mem::take(&mut self.body)),
            wire::RUN => Message::Run(std::mem::take(&mut self.body)),
            wire::STDIN => Message::Stdin(std::mem::take(&mut self.body)),
            wire::STDIN_END => Message::End,
            wire::RESIZE => {
                let size = postcard::from_bytes(&self.body);
                Message::Resize(size.map_err(|_| Errno::PROTO).at("understand the server")?)
            }
            wire::STOP => Message::Stop,
            _ => return Err(Errno::PROTO).at("understand the server"),
        }))
    }

    /// An empty buffer for the next message.
    pub fn recycle(&mut self, body: Vec<u8>) {
        self.body = body;
    }

    pub fn send_body<T: Serialize>(&mut self, kind: u8, body: &T) -> Result<(), Failed> {
        let frame = wire::encode(kind, body).map_err(|_| Errno::NOMEM).at("write to the server")?;
        if self.held.is_empty() {
            return self.output.write_all(&frame).at("write to the server");
        }
        self.held.extend_from_slice(&frame);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.output.write_all(&self.held).at("write to the server")?;
        self.held.clear();
        Ok(())
    }

    /// Sends words of our own as output of the command.
    pub fn send_text(&mut self, kind: u8, text: &str) -> Result<(), Failed> {
        let length = text.len().min(PIECE);
        self.piece[HEADER..HEADER + length].copy_from_slice(&text.as_bytes()[..length]);
        self.send_output(kind, length, When::WithTheNext)
    }

    /// Reads a piece of output, to be sent by [`Link::send_output`]; 0 at its end.
    pub fn read_output(&mut self, pipe: &OwnedFd) -> Result<usize, Failed> {
        loop {
            match rustix::io::read(pipe, &mut self.piece[HEADER..]) {
                Err(Errno::INTR) => {}
                other => return other.at("read a pipe"),
            }
        }
    }

    pub fn send_output(&mut self, kind: u8, length: usize, when: When) -> Result<(), Failed> {
        if length == 0 {
            return Ok(());
        }
        self.piece[..4].copy_from_slice(&(length as u32).to_le_bytes());
        self.piece[4] = kind;
        let frame = &self.piece[..HEADER + length];
        if when == When::Now && self.held.is_empty() {
            return self.output.write_all(frame).at("write to the server");
        }
        self.held.extend_from_slice(frame);
        if when == When::Now || self.held.len() > PIECE { self.flush() } else { Ok(()) }
    }

    pub fn send_taken(&mut self, bytes: usize) -> Result<(), Failed> {
        if bytes == 0 { Ok(()) } else { self.send_body(wire::TAKEN, &(bytes as u64)) }
    }

    /// Sends exactly `size` bytes: the head has promised them. A file that is shorter by now is
    /// filled up with zeros, which only a job that is still alive could cause.
    pub fn send_file(&mut self, file: &OwnedFd, mut size: u64) -> Result<(), Failed> {
        while size > 0 {
            let want = size.min(PIECE as u64) as usize;
            let got = rustix::io::read(file, &mut self.piece[HEADER..HEADER + want]).at("read a collected file")?;
            if got == 0 {
                self.piece[HEADER..HEADER + want].fill(0);
            }
            let length = if got == 0 { want } else { got };
            self.send_output(wire::DATA, length, When::Now)?;
            size -= length as u64;
        }
        Ok(())
    }
}
