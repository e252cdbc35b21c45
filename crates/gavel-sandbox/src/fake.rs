//! A scripted backend: commands "run" as a function says, without a kernel. For tests of what stands
//! above a sandbox, and of what happens when one fails.

use crate::{Backend, Cancel, Command, Fault, OnOutput, Sandbox};
use gavel_core::{Bytes, Exit, Facts};
use std::sync::Arc;
use std::time::Duration;

type Script = dyn Fn(&Command, &Cancel, OnOutput) -> Result<Facts, Fault> + Send + Sync;
type Opening = dyn Fn(u32) -> Result<(), Fault> + Send + Sync;

pub struct Fake {
    script: Arc<Script>,
    opening: Box<Opening>,
}

impl Fake {
    pub fn new(script: impl Fn(&Command, &Cancel, OnOutput) -> Result<Facts, Fault> + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), opening: Box::new(|_| Ok(())) }
    }

    /// Decides whether a sandbox can be opened.
    pub fn opening(mut self, opening: impl Fn(u32) -> Result<(), Fault> + Send + Sync + 'static) -> Self {
        self.opening = Box::new(opening);
        self
    }
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn check(&self) -> Result<(), Fault> {
        Ok(())
    }

    fn open(&self, slot: u32) -> Result<Box<dyn Sandbox>, Fault> {
        (self.opening)(slot)?;
        Ok(Box::new(FakeSandbox { script: Arc::clone(&self.script) }))
    }
}

struct FakeSandbox {
    script: Arc<Script>,
}

impl Sandbox for FakeSandbox {
    fn shares_files(&self, _image: Option<&str>) -> bool {
        false
    }

    fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        (self.script)(command, cancel, on_output)
    }
}

/// What a program leaves that prints this and ends well.
pub fn printed(stdout: impl Into<Vec<u8>>) -> Facts {
    Facts {
        exit: Exit::Code(0),
        stopped: None,
        cpu: Duration::from_millis(1),
        wall: Duration::from_millis(1),
        peak_memory: Bytes::mib(1),
        oom_kills: 0,
        stdout: stdout.into(),
        stderr: Vec::new(),
        stdout_truncated: false,
        stderr_truncated: false,
        files: Vec::new(),
        files_left_out: Vec::new(),
    }
}
