//! The same program without Gavel: started by vfork, exec and wait alone, isolated by nothing, which is
//! the limit; or by something else that a user could start it with.

use anyhow::{Context, Result, bail};
use gavel_core::Language;
use gavel_core::language::Sample;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program compiled as its language says, ready to be started again and again.
pub struct Program {
    dir: tempfile::TempDir,
    argv: Vec<String>,
    stdin: PathBuf,
    expected: Vec<u8>,
}

impl Program {
    pub fn build(language: &Language, sample: &Sample) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let source = language.source_file.as_ref().with_context(|| format!("{} has no source file", language.id))?;
        std::fs::write(dir.path().join(source), &sample.source)?;
        let stdin = dir.path().join("stdin");
        std::fs::write(&stdin, &sample.stdin)?;
        if let Some(compile) = &language.compile {
            let argv = compile.argv(&[]);
            let done = Command::new(&argv[0]).args(&argv[1..]).current_dir(dir.path()).output();
            let done = done.with_context(|| format!("cannot start {}", argv[0]))?;
            if !done.status.success() {
                bail!("{} does not compile its sample: {}", language.id, String::from_utf8_lossy(&done.stderr));
            }
        }
        let argv = language.run_argv(&[], &language.limits);
        Ok(Self { dir, argv, stdin, expected: sample.expected.clone() })
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// As it is started in its directory.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// This program, alone. As std starts it: posix_spawn, which is a vfork.
    pub fn bare(&self) -> Command {
        let mut argv = self.argv.iter();
        let first = argv.next().map(String::as_str).unwrap_or_default();
        let mut command = match first.strip_prefix("./") {
            Some(relative) => Command::new(self.dir().join(relative)),
            None => Command::new(first),
        };
        command.args(argv).current_dir(self.dir());
        command
    }

    /// A comparison with a program that fails would be none. `command` is a way to start this program.
    pub fn check(&self, command: &mut Command) -> Result<()> {
        let output = command.stdin(File::open(&self.stdin)?).output().with_context(|| not_started(command))?;
        if !gavel_core::check::same_output(&output.stdout, &self.expected) {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} does not print what its sample expects: {}", shown(command), said.trim());
        }
        Ok(())
    }

    /// Starts it once and waits. Its output goes to /dev/null: pipes are not part of the comparison.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        command.stdin(File::open(&self.stdin)?).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().with_context(|| not_started(command))?;
        if !status.success() {
            bail!("{} ended with {status}", shown(command));
        }
        Ok(())
    }
}

fn shown(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn not_started(command: &Command) -> String {
    format!("cannot start {}", shown(command))
}
