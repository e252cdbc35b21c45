//! The command line: exit codes, messages, help.

use crate::harness::{among_others, gavel};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;

fn run(dir: &Path, args: &[&str]) -> Output {
    gavel(dir).args(args).output().expect("gavel starts")
}

fn dir_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).expect("a file can be written");
    }
    dir
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check(args: &[&str], files: &[(&str, &str)], code: i32, expected: &str) {
    let dir = dir_with(files);
    let output = run(dir.path(), args);
    let all = stdout(&output) + &stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {all}");
    assert!(all.contains(expected), "{args:?} does not say {expected:?}: {all}");
    assert!(!all.contains('\x1b'), "{args:?} writes colours to a pipe: {all:?}");
}

#[test]
fn help_names_the_commands_and_the_exit_codes() {
    let _turn = among_others();
    check(&["--help"], &[], 0, "Exit status:");
    check(&["run", "--help"], &[], 0, "100  it does not compile");
    check(&["--version"], &[], 0, env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_flags_and_wrong_configuration_have_codes_of_their_own() {
    let _turn = among_others();
    check(&["--frob"], &[], 2, "--frob");
    check(&["config", "--set", "bind"], &[], 2, "write KEY=VALUE");
    check(&["config"], &[("gavel.toml", "[server]\nbond = 1\n")], 3, "gavel.toml line 2: there is no key server.bond");
    check(&["config"], &[("gavel.toml", "[workers]\nmax_workers = \"many\"\n")], 3, "(gavel.toml line 2)");
    check(&["config", "--config", "other.toml"], &[], 3, "cannot read other.toml");
    check(&["serve", "--bind", "0.0.0.0:2358"], &[], 3, "only loopback addresses may be bound");
    check(&["serve", "--set", "telemetry.log=a=b=c"], &[], 3, "telemetry.log");
    check(&["config", "--set", "nats.url=nats://u:secret@h"], &[], 3, "nats://****@h");
}

#[test]
fn a_wrong_language_file_is_named() {
    let _turn = among_others();
    let dir = dir_with(&[]);
    std::fs::create_dir_all(dir.path().join("more/mine")).expect("a directory");
    let spec = "name = \"Mine\"\nsource_file = \"a\"\nrun = [\"/bin/a\"]\ncolour = 1\n";
    std::fs::write(dir.path().join("more/mine/language.toml"), spec).expect("a file");
    let output = run(dir.path(), &["serve", "--languages-dir", "more", "--bind", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("more/mine/language.toml line 4: unknown field `colour`"), "{}", stderr(&output));
}

#[test]
fn config_prints_what_holds_and_where_it_came_from() {
    let _turn = among_others();
    let dir = dir_with(&[("gavel.toml", "data_dir = \"a\"\n[queue]\nmax_depth = 7\n")]);
    let mut command = gavel(dir.path());
    command.args(["config", "--json", "--bind", "127.0.0.1:1"]).env("GAVEL_STORE_RETENTION", "2d");
    let output = command.output().expect("gavel starts");
    let config: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let value = |key: &str| (config[key]["value"].as_str().unwrap(), config[key]["source"].as_str().unwrap());
    assert_eq!(value("server.bind"), ("127.0.0.1:1", "flag"));
    assert_eq!(value("store.retention"), ("2d", "env"));
    assert_eq!(value("queue.max_depth"), ("7", "file"));
    assert_eq!(value("cache.dir"), ("a/cache", "default"));
    assert_eq!(config["queue.max_depth"]["at"], "gavel.toml:3");
}

#[test]
fn run_passes_the_programs_output_and_exit_code_on() {
    let _turn = among_others();
    let files = [
        ("seven.py", "import sys\nprint('out', input(), sys.argv[1:])\nprint('err', file=sys.stderr)\nsys.exit(7)\n"),
        ("in", "line\n"),
    ];
    let dir = dir_with(&files);
    let output = run(dir.path(), &["run", "seven.py", "--stdin", "in", "--arg", "-x", "--", "y"]);
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), "out line ['-x', 'y']\n");
    assert!(stderr(&output).starts_with("err\n"), "{}", stderr(&output));
    assert!(stderr(&output).contains("gavel: runtime error: exited with code 7"), "{}", stderr(&output));
    let output = run(dir.path(), &["run", "seven.py", "--stdin", "in", "--quiet"]);
    assert_eq!(stderr(&output), "err\n");
}

#[test]
fn run_has_an_exit_code_for_each_verdict() {
    let _turn = among_others();
    let loops = ("loop.py", "while True: pass\n");
    check(&["run", "ok.py"], &[("ok.py", "print(7)\n")], 0, "gavel: accepted");
    check(&["run", "bad.c"], &[("bad.c", "int main() { return x; }\n")], 100, "undeclared");
    check(&["run", "loop.py", "--limit", "cpu_time_ms=200"], &[loops], 101, "time limit exceeded");
    check(
        &["run", "big.py", "--limit", "memory_kb=65536"],
        &[("big.py", "x = bytearray(1 << 30)\nprint(len(x))\n")],
        102,
        "memory limit exceeded",
    );
    check(
        &["run", "loud.py", "--limit", "output_kb=1"],
        &[("loud.py", "print('x' * 100000)\n")],
        103,
        "output limit exceeded",
    );
    check(&["run", "ok.py", "--expected", "want"], &[("ok.py", "print(7)\n"), ("want", "8\n")], 104, "wrong answer");
    let kill = ("kill.py", "import os\nos.kill(os.getpid(), 15)\n");
    check(&["run", "kill.py"], &[kill], 128 + 15, "SIGTERM");
}

#[test]
fn run_refuses_what_it_cannot_do_before_it_starts() {
    let _turn = among_others();
    check(&["run", "x.unheard"], &[("x.unheard", "x")], 2, "name one with --language");
    check(&["run", "x.py", "-l", "pyton"], &[("x.py", "x")], 2, "there is no language pyton");
    check(&["run", "nothing.py"], &[], 2, "cannot read nothing.py");
    check(&["run", "x.py", "--limit", "speed=1"], &[("x.py", "x")], 2, "there is no limit speed");
    check(&["run", "x.py", "--limit", "cpu_time_ms=99999999"], &[("x.py", "x")], 2, "limits.cpu_time_ms");
}

#[test]
fn doctor_finds_this_machine_fit() {
    let _turn = among_others();
    let dir = dir_with(&[]);
    let output = run(dir.path(), &["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &report["ok"]), (Some(0), &Value::Bool(true)), "{report:#}");
}

#[test]
fn bench_starts_a_server_of_its_own_measures_and_stops_it() {
    let _turn = among_others();
    let dir = dir_with(&[]);
    let quick = ["--programs", "c", "--rounds", "1", "--seconds", "0.3", "--warm-up", "0"];
    let output = run(dir.path(), &[&["bench", "--json", "--data-dir", "data"][..], &quick].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    for (at, (what, clients)) in [("bare", 2), ("gavel", 2), ("bare", 16), ("gavel", 16)].into_iter().enumerate() {
        let result = &report["results"][at];
        assert_eq!((&result["what"], &result["concurrency"]), (&json!(what), &json!(clients)), "{report:#}");
        assert!(result["count"].as_u64().is_some_and(|n| n > 0), "{report:#}");
        assert!(result["ratio_to"]["bare"].as_f64().is_some_and(|ratio| ratio > 0.0), "{report:#}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path().join("data")).expect("its directory").collect();
    assert!(left.is_empty(), "the bench left {left:?}");
}

#[test]
fn migrate_makes_a_database_and_the_second_time_nothing() {
    let _turn = among_others();
    let dir = dir_with(&[]);
    let applied = || {
        let output = run(dir.path(), &["migrate", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
        report["applied"].as_u64().expect("a number")
    };
    assert!(applied() > 0);
    assert_eq!(applied(), 0);
}

#[test]
fn languages_are_listed_and_their_samples_checked() {
    let _turn = among_others();
    check(&["languages", "list"], &[], 0, "Python (CPython)");
    check(&["languages", "check", "c", "python3"], &[], 0, "2 of 2 languages work");
    check(&["languages", "check", "klingon"], &[], 2, "there is no language klingon");
}
