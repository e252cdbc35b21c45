//! The job's stdin: written as fast as the job reads it and never faster, whatever its size.

use crate::failed::{At, Failed};
use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;

pub struct Feeder {
    /// The end that the job reads.
    pub read: Option<OwnedFd>,
    write: Option<OwnedFd>,
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first piece is written.
    offset: usize,
    /// Bytes that have not arrived from the server yet.
    missing: u64,
    /// More may come after those.
    open: bool,
    /// What is written is typed into a terminal.
    typed: bool,
    /// What has arrived so far ends a line.
    line_ended: bool,
}

/// Ctrl-D: a terminal hands over the line as it is, and where it is empty, the program reads an end of file.
const END_OF_FILE: u8 = 4;

impl Feeder {
    /// A job without stdin reads /dev/null: an end of file at once. A live one waits for what is typed.
    pub fn new(inline: &[u8], total: u64, live: bool) -> Result<Self, Failed> {
        if total == 0 && !live {
            let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open /dev/null")?;
            return Ok(Self { read: Some(null), ..Self::with(None, 0) });
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).at("make a pipe for stdin")?;
        // Only our end: the job expects a stdin that blocks.
        fcntl_setfl(&write, OFlags::NONBLOCK).at("make a pipe for stdin")?;
        let feeder = Self { read: Some(read), open: live, ..Self::with(Some(write), total) };
        feeder.begin(inline)
    }

    /// For a terminal, by our end of it.
    pub fn typing(master: OwnedFd, inline: &[u8], total: u64) -> Result<Self, Failed> {
        let feeder = Self { open: true, typed: true, ..Self::with(Some(master), total) };
        feeder.begin(inline)
    }

    fn with(write: Option<OwnedFd>, missing: u64) -> Self {
        let pieces = VecDeque::new();
        Self { read: None, write, pieces, offset: 0, missing, open: false, typed: false, line_ended: true }
    }

    fn begin(mut self, inline: &[u8]) -> Result<Self, Failed> {
        self.missing -= inline.len() as u64;
        self.note(inline);
        let written = self.push(inline)?;
        if written < inline.len() {
            self.pieces.push_back(inline[written..].to_vec());
        }
        self.close_if_finished();
        Ok(self)
    }

    fn note(&mut self, piece: &[u8]) {
        if let Some(last) = piece.last() {
            self.line_ended = *last == b'\n';
        }
    }

    /// Nothing more will be typed.
    pub fn end(&mut self) {
        if self.typed && self.open && self.write.is_some() {
            // In the middle of a line the first one only hands over what there is of it.
            self.pieces.push_back(vec![END_OF_FILE; if self.line_ended { 1 } else { 2 }]);
        }
        self.open = false;
        self.close_if_finished();
    }

    /// The pipe's end, if there is something to write to it.
    pub fn wants_to_write(&self) -> Option<&OwnedFd> {
        if self.pieces.is_empty() { None } else { self.write.as_ref() }
    }

    /// More of stdin has arrived. Returns how much of it is taken off the server's window at once.
    pub fn add(&mut self, piece: Vec<u8>) -> usize {
        self.missing = self.missing.saturating_sub(piece.len() as u64);
        self.note(&piece);
        if self.write.is_none() {
            return piece.len();
        }
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
        0
    }

    /// Writes what fits. Returns how many bytes are done with.
    pub fn feed(&mut self) -> Result<usize, Failed> {
        let mut done = 0;
        while let Some(piece) = self.pieces.pop_front() {
            let rest = piece.len() - self.offset;
            let written = self.push(&piece[self.offset..])?;
            done += written;
            if self.write.is_none() {
                // The job closed its end: what is left is done with, too.
                done += rest - written + self.pieces.iter().map(Vec::len).sum::<usize>();
                self.pieces.clear();
                break;
            }
            if written < rest {
                self.offset += written;
                self.pieces.push_front(piece);
                break;
            }
            self.offset = 0;
        }
        self.close_if_finished();
        Ok(done)
    }

    fn close_if_finished(&mut self) {
        if self.pieces.is_empty() && self.missing == 0 && !self.open {
            self.write = None;
        }
    }

    fn push(&mut self, mut bytes: &[u8]) -> Result<usize, Failed> {
        let Some(pipe) = &self.write else { return Ok(0) };
        let mut written = 0;
        while !bytes.is_empty() {
            match rustix::io::write(pipe, bytes) {
                Ok(n) => {
                    written += n;
                    bytes = &bytes[n..];
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // A terminal that nobody has open any more says the latter.
                Err(Errno::PIPE | Errno::IO) => {
                    self.write = None;
                    break;
                }
                Err(e) => return Err(e).at("write to stdin"),
            }
        }
        Ok(written)
    }
}
