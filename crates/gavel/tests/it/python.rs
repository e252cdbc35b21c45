//! The Python environment of the tests, which `scripts/python-env` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder with what the tests run in it.
pub fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python"))
}

/// A program of the environment, started in `dir`, without the environment variables of whoever runs the tests.
pub fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(environment().join("bin").join(program));
    for (name, _) in std::env::vars_os() {
        if ["PYTHON", "JUDGE0_", "SCHEMATHESIS_", "HYPOTHESIS_"]
            .iter()
            .any(|own| name.to_string_lossy().starts_with(own))
        {
            command.env_remove(name);
        }
    }
    // Nothing is written beside the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1").current_dir(dir);
    command
}

fn environment() -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).canonicalize().expect("the repository");
    // As scripts/python-env finds it.
    let cache = std::env::var_os("GAVEL_TEST_CACHE").map_or(root.join("target"), |dir| root.join(dir));
    let dir = cache.join("python");
    let wanted = std::fs::read(folder().join("requirements.txt")).expect("the requirements");
    let made = std::fs::read(dir.join("requirements.txt")).unwrap_or_default();
    assert!(
        made == wanted,
        "{} is not the Python environment that the tests need: make it with `scripts/python-env`, which \
         `scripts/test` does",
        dir.display()
    );
    dir
}
