//! The Docker CLI for what takes long: output that people watch, and output that is data.

use crate::exit::{ExitCode, coded};
use anyhow::{Context, Result, bail};
use gavel_sandbox::docker::cli::{Cli, CliError, args};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// What is kept of a command's output: if it fails, its end says why.
const LAST_LINES: usize = 30;

/// A longer line is shown in pieces.
const LONGEST_LINE: u64 = 4096;

/// Within this the daemon answers whatever is no work.
const SHORT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Docker {
    cli: Cli,
}

impl Docker {
    /// Fails, with the remedy, where there is no CLI or no daemon behind it.
    pub fn find(program: &str) -> Result<Self> {
        let docker = Self { cli: Cli::new(program) };
        match docker.cli.call(&args(&["version"]), SHORT) {
            Ok(_) => Ok(docker),
            Err(error) => Err(coded(ExitCode::Machine, error)),
        }
    }

    /// Runs a short command and returns what it prints.
    pub fn say(&self, words: &[&str]) -> Result<String, CliError> {
        let answer = self.cli.call(&args(words), SHORT)?;
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }

    /// Runs a command and shows each line as it comes. A failure holds the last of them.
    pub fn watch(&self, words: &[&str], limit: Duration, show: &mut dyn FnMut(&str)) -> Result<()> {
        let mut child = self.cli.start(&args(words))?;
        drop(child.stdin.take());
        let lines = lines_of(&mut child)?;
        let deadline = Instant::now() + limit;
        let mut last = VecDeque::new();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    show(&line);
                    if last.len() == LAST_LINES {
                        last.pop_front();
                    }
                    last.push_back(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    child.kill()?;
                    child.wait()?;
                    bail!("{} did not end within {} s:\n{}", self.shown(words), limit.as_secs(), joined(last));
                }
            }
        }
        let status = child.wait()?;
        match status.success() {
            true => Ok(()),
            false => bail!("{}: {status}:\n{}", self.shown(words), joined(last)),
        }
    }

    /// Runs a command whose output is data, and gives it to `take`.
    pub fn stream<T>(&self, words: &[&str], take: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let words = args(words);
        let mut child = self.cli.start(&words)?;
        drop(child.stdin.take());
        let stdout = child.stdout.take().context("a client has a stdout")?;
        // Its messages are read beside the data: a full pipe would stop it.
        let messages = lines_of(&mut child)?;
        let taken = take(&mut BufReader::with_capacity(1 << 20, stdout));
        if taken.is_err() {
            // Nobody reads the rest, so it would wait for ever.
            child.kill()?;
        }
        let mut said = Vec::new();
        for line in messages {
            if said.len() < LAST_LINES {
                said.push(line);
            }
        }
        let status = child.wait()?;
        let taken = taken?;
        match status.success() {
            true => Ok(taken),
            false => Err(self.cli.failed(&words, &said.join("\n"), status).into()),
        }
    }

    fn shown(&self, words: &[&str]) -> String {
        format!("{} {}", self.cli.program(), words.first().copied().unwrap_or_default())
    }
}

fn joined(lines: VecDeque<String>) -> String {
    Vec::from(lines).join("\n")
}

/// The lines of whichever streams are left, as they are written. Threads read them, so that whoever
/// waits for a line has a deadline.
fn lines_of(child: &mut Child) -> Result<Receiver<String>> {
    let (send, receive) = sync_channel(64);
    if let Some(stdout) = child.stdout.take() {
        let send = send.clone();
        std::thread::Builder::new().spawn(move || pass_on(stdout, &send))?;
    }
    if let Some(stderr) = child.stderr.take() {
        std::thread::Builder::new().spawn(move || pass_on(stderr, &send))?;
    }
    Ok(receive)
}

/// Until the stream ends, or nobody wants its lines any more.
fn pass_on(from: impl Read, to: &SyncSender<String>) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut from).take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() && to.send(text.to_owned()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Docker {
        Docker { cli: Cli::new("/bin/sh") }
    }

    #[test]
    fn a_failure_names_the_command_and_ends_in_its_last_lines() {
        let mut lines = 0;
        let script = "seq 100; exec >&2; sleep 0.1; echo why; exit 3";
        let error = shell().watch(&["-c", script], SHORT, &mut |_| lines += 1).unwrap_err().to_string();
        assert_eq!(lines, 101);
        assert!(error.starts_with("/bin/sh -c: exit status: 3:\n72\n73\n"), "{error}");
        assert!(error.ends_with("100\nwhy"), "{error}");
    }

    #[test]
    fn whoever_does_not_end_is_ended() {
        let began = Instant::now();
        let error = shell().watch(&["-c", "exec sleep 100"], Duration::from_millis(50), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert!(began.elapsed() < SHORT);
    }

    #[test]
    fn data_is_taken_to_its_end_and_a_late_failure_counts() {
        let read = |from: &mut dyn Read| Ok(std::io::read_to_string(from)?);
        assert_eq!(shell().stream(&["-c", "printf abc; echo no matter >&2"], read).unwrap(), "abc");
        let error = shell().stream(&["-c", "printf abc; echo cut >&2; exit 1"], read).unwrap_err().to_string();
        assert!(error.contains("cut (exit status 1)"), "{error}");
        let refuse = |_: &mut dyn Read| -> Result<()> { bail!("refused") };
        assert_eq!(shell().stream(&["-c", "yes"], refuse).unwrap_err().to_string(), "refused");
    }

    #[test]
    fn a_program_that_is_not_there_has_a_remedy() {
        let error = Docker::find("no-such-docker").unwrap_err();
        assert!(error.to_string().contains("sandbox.docker_cli"), "{error:#}");
    }
}
