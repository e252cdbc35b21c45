//! Rules about Rust source.

use crate::repository::{File, files, is_our_rust, nothing_wrong};
use crate::rust::{code_of, has_word, test_code};

/// The two addresses of unsafe code.
const UNSAFE: [&str; 2] = ["crates/gavel-agent/src/sys.rs", "crates/gavel-sandbox/src/native/sys.rs"];

/// Test files that let time pass, and why polling for a condition would not do.
const MAY_SLEEP: &[(&str, &str)] = &[
    ("crates/gavel-api/tests/api/bounds.rs", "slow and silent clients: what is tested is that time passes"),
    ("crates/gavel-api/tests/api/jobs.rs", "acts in the middle of a wait"),
    ("crates/gavel-api/tests/api/operation.rs", "kept answers must grow old; a store breaks in the middle of a wait"),
    ("crates/gavel-api/tests/api/server.rs", "pause between two looks while polling"),
    ("crates/gavel-api/tests/api/stream.rs", "shows that nothing more is read"),
    ("crates/gavel-api/tests/api/worker.rs", "pause between two looks; output that comes in pieces"),
    ("crates/gavel/tests/it/callbacks.rs", "the moment of a kill is what is random"),
    ("crates/gavel/tests/it/crash.rs", "the moment of a kill is what is random"),
    ("crates/gavel/tests/it/daemon.rs", "pause between two looks while polling"),
    ("crates/gavel/tests/it/docker.rs", "the moment of a kill is what is random"),
    ("crates/gavel/tests/it/harness.rs", "pause between two looks while polling"),
    ("crates/gavel/tests/it/leaks.rs", "pause between two looks while polling"),
];

/// Each line of our code for which `wrong` has something to say. Comments and literals are blank.
fn lines(wanted: impl Fn(&str) -> bool, wrong: impl Fn(&File, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(|path| is_our_rust(path) && wanted(path)) {
        for (number, line) in code_of(&file.text).lines().enumerate() {
            if wrong(&file, line) {
                found.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    found
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let silent = files(is_our_rust).into_iter().filter(|file| !file.text.starts_with("//! "));
    nothing_wrong("start the file with a `//!` line", &silent.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_has_two_addresses() {
    let wrong = lines(
        |path| !UNSAFE.contains(&path),
        |_, line| has_word(line, "unsafe") || line.contains("allow(unsafe_code)"),
    );
    nothing_wrong("unsafe code stands in `sys.rs` of gavel-agent or gavel-sandbox only", &wrong);
}

#[test]
fn nothing_is_left_for_later_and_no_test_is_switched_off() {
    let marks = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
    let wrong = lines(|_| true, |_, line| marks.iter().any(|mark| line.contains(mark)));
    nothing_wrong("finish it, or take it out", &wrong);
}

#[test]
fn judging_knows_nothing_of_the_store_but_the_names_of_streams() {
    let wrong = lines(
        |path| path.starts_with("crates/gavel-judge/src/judge/"),
        |_, line| has_word(line, "gavel_store") && line.trim() != "use gavel_store::Stream;",
    );
    nothing_wrong("judge/ takes values and returns values: no store, no queue", &wrong);
}

#[test]
fn sql_is_spoken_in_the_store_only() {
    let wrong = lines(|path| !path.starts_with("crates/gavel-store/"), |_, line| has_word(line, "rusqlite"));
    nothing_wrong("what needs the database is a method of `Store`", &wrong);
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let mut wrong = Vec::new();
    let mut asleep = Vec::new();
    for file in files(is_our_rust) {
        let code = code_of(&file.text);
        if test_code(&file.path, &code).lines().any(|line| has_word(line, "sleep") && line.contains("sleep(")) {
            asleep.push(file.path);
        }
    }
    let allowed = |path: &str| MAY_SLEEP.iter().any(|(known, _)| *known == path);
    wrong.extend(asleep.iter().filter(|path| !allowed(path)).cloned());
    nothing_wrong("poll a condition until a deadline, or add the file to MAY_SLEEP with the reason", &wrong);
    let awake = MAY_SLEEP.iter().filter(|(path, _)| !asleep.iter().any(|known| known == path));
    let awake: Vec<String> = awake.map(|(path, _)| (*path).to_owned()).collect();
    nothing_wrong("it does not sleep any more: take it off MAY_SLEEP", &awake);
}
