//! The limit: the same program, started by vfork, exec and wait alone, isolated by nothing.

use anyhow::{Context, Result, bail};
use gavel_core::Language;
use gavel_core::language::Sample;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A program compiled as its language says, ready to be started again and again.
pub struct Program {
    dir: tempfile::TempDir,
    argv: Vec<String>,
    stdin: PathBuf,
}

impl Program {
    pub fn build(language: &Language, sample: &Sample) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        std::fs::write(dir.path().join(&language.source_file), &sample.source)?;
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
        let mut argv = language.run_argv(&[], &language.limits);
        if let Some(relative) = argv[0].strip_prefix("./") {
            argv[0] = dir.path().join(relative).display().to_string();
        }
        let program = Self { dir, argv, stdin };
        program.check(sample)?;
        Ok(program)
    }

    /// A limit that is measured with a program that fails would be no limit.
    fn check(&self, sample: &Sample) -> Result<()> {
        let output = self.command()?.stdout(Stdio::piped()).output()?;
        if !gavel_core::check::same_output(&output.stdout, &sample.expected) {
            bail!("{} does not print what its sample expects", self.argv.join(" "));
        }
        Ok(())
    }

    /// As std starts it: posix_spawn, which is a vfork.
    fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).current_dir(self.dir.path()).stdin(File::open(&self.stdin)?);
        Ok(command)
    }

    /// Starts it once and waits. Its output goes to /dev/null: pipes are not part of the limit.
    pub fn run(&self) -> Result<()> {
        let status = self.command()?.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if !status.success() {
            bail!("{} ended with {status}", self.argv.join(" "));
        }
        Ok(())
    }
}
