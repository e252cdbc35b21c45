//! Builds the agent as a static program, so that the server can carry it in its own binary.
//!
//! A nested cargo with a target directory of its own: the outer one holds the lock of the usual one.
//! The C library is linked in by `crt-static`, which needs no other target than the host's.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let workspace = manifest.join("../..");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let cargo = env::var_os("CARGO").expect("cargo sets CARGO");
    for path in ["crates/gavel-agent/src", "crates/gavel-agent/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }

    let directory = out.join("agent");
    let status = Command::new(cargo)
        .current_dir(&workspace)
        .args(["build", "--locked", "--package", "gavel-agent", "--bin", "gavel-agent", "--profile", "agent"])
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&directory)
        // Static, and at a fixed address: nothing to relocate at start.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static")
        // What cargo tells this script about the outer build is not for the inner one.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CLIPPY_ARGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status()
        .expect("cargo can be run to build the agent");
    assert!(status.success(), "building the static agent failed: {status}");
    let agent = directory.join(&target).join("agent/gavel-agent");
    println!("cargo::rustc-env=GAVEL_AGENT={}", agent.display());
}
