//! The data directory: made if it is missing, and private. The store keeps a second server out of it.

use crate::exit::{ExitCode, coded};
use anyhow::Result;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Sources and outputs of jobs lie in it: only its owner may look.
pub fn create(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        coded(
            ExitCode::Machine,
            format!(
                "the data directory {} cannot be used: {error}; make it writable for this user, or name another one \
                 with --data-dir",
                path.display()
            ),
        )
    })
}
