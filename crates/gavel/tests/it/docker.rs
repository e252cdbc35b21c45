//! The docker backend on a real daemon: the same results as anywhere, whatever happens to containers,
//! daemon and server, and nothing left behind.

use crate::daemon::{Daemon, FRESH, ON_DOCKER, REUSE, daemon};
use crate::harness::{Dice, PATIENCE, Server, alone, eventually, sample, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// More of them on demand.
const JOBS: usize = 300;

/// Short, so that a test can wait for it.
const CLEANUP: &str = "workers.cleanup_interval=2s";

#[test]
fn the_samples_of_the_core_languages_give_exact_results_in_fresh_containers_and_in_reused_ones() {
    let _turn = alone();
    for policy in [FRESH, REUSE] {
        let server = Server::start(&[ON_DOCKER, policy]);
        for id in ["python3", "javascript", "java", "cpp", "c", "bash"] {
            // The second one may come to a used container, and to a compiled program.
            for _ in 0..2 {
                sample(id).check_exactly(&server, policy);
            }
        }
        drop(server);
        daemon().assert_clean();
    }
}

/// In a reused container a compiled program stays for the next job that brings it: that one must find what it
/// brought, whatever the last one tried, and a job with another program must find nothing.
#[test]
fn a_program_that_stays_in_a_container_cannot_be_changed_and_is_seen_by_its_own_jobs_only() {
    let _turn = alone();
    let server = Server::start(&[ON_DOCKER, REUSE, "workers.max_workers=1"]);
    let run = |source: &str| {
        let source = format!("#define WHICH \"{source}\"\n{OTHER_OR_OWN}");
        let job = server.judge(&json!({ "language": "c", "source_code": source }));
        assert_eq!(text(&job, "stdout"), "1 file\n0 changes\n", "{job:#}");
        text(&job, "stderr")
            .split_once(' ')
            .map(|(place, file)| (place.to_owned(), file.to_owned()))
            .expect("two words")
    };
    // Whose program a container has, as far as is known: it stayed for the same one, and no other saw it.
    let mut last = BTreeMap::new();
    let (mut stayed, mut replaced) = (0, 0);
    for source in ["one", "one", "one", "two", "one", "two", "two", "two"] {
        let (place, file) = run(source);
        if let Some((before, its)) = last.insert(place, (source, file.clone())) {
            assert_eq!(before == source, its == file, "{before}, then {source}");
            if before == source { stayed += 1 } else { replaced += 1 }
        }
    }
    println!("{stayed} found their program, {replaced} brought another one");
    assert!(stayed > 0 && replaced > 0, "every job had another container: the test tests nothing");
    drop(server);
    daemon().assert_clean();
}

/// Counts the files beside it, and then in how many ways it can change its own.
const OTHER_OR_OWN: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

static int changes;
static char own[300];

static void attempt(const char *what, int result) {
    if (result >= 0) {
        changes++;
        printf("%s worked\n", what);
    }
}

int main(void) {
    DIR *dir = opendir(".");
    struct dirent *entry;
    int files = 0;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] != '.') {
            files++;
            strcpy(own, entry->d_name);
        }
    }
    printf("%d file\n", files);
    struct stat file;
    stat(own, &file);
    struct stat init;
    stat("/proc/1", &init);
    fprintf(stderr, "%ld-%ld.%ld " WHICH "-%ld.%ld", (long)file.st_dev, (long)init.st_ctim.tv_sec, init.st_ctim.tv_nsec,
            (long)file.st_mtim.tv_sec, file.st_mtim.tv_nsec);
    struct timespec now[2] = {{0, 0}, {0, 0}};
    attempt("open to write", open(own, O_WRONLY));
    attempt("open to truncate", open(own, O_RDWR | O_TRUNC));
    attempt("truncate", truncate(own, 0));
    attempt("chmod", chmod(own, 0777));
    attempt("chown", chown(own, getuid(), getgid()));
    attempt("times", utimensat(AT_FDCWD, own, now, 0));
    attempt("xattr", setxattr(own, "user.x", "x", 1, 0));
    attempt("unlink", unlink(own));
    attempt("rename", rename(own, "other"));
    attempt("write lease", fcntl(open(own, O_RDONLY), F_SETLEASE, F_WRLCK));
    int made = open("new", O_CREAT | O_WRONLY, 0755);
    attempt("replace", made < 0 ? 0 : rename("new", own));
    attempt("exchange", renameat2(AT_FDCWD, "new", AT_FDCWD, own, RENAME_EXCHANGE));
    attempt("rename the directory", rename("/box", "/tmp/box"));
    /* Its lock must go with the job. */
    flock(open(own, O_RDONLY), LOCK_EX);
    printf("%d changes\n", changes);
    return 0;
}
"#;

/// Files count as memory, and those of an order come to a container's agent first.
#[test]
fn a_job_whose_files_exceed_its_memory_has_hit_its_limit_and_harms_nobody() {
    let _turn = alone();
    for backend in [&[ON_DOCKER, FRESH][..], &[ON_DOCKER, REUSE], &[]] {
        let server = Server::start(&[backend, &["limits.max_files_total=64m"]].concat());
        // Between them it depends on what else is in the memory; but it is never a fault.
        let either = ["accepted", "memory_limit_exceeded"];
        for (kib, verdicts) in
            [(4 << 10, &either[..1]), (10_900, &either), (12 << 10, &either[1..]), (30 << 10, &either[1..])]
        {
            let job = server.judge(&json!({
                "language": "bash", "source_code": "echo started", "limits": { "memory_kb": 12 << 10 },
                "files": [{ "path": "large", "content": "x".repeat(kib << 10) }],
            }));
            assert_eq!((text(&job, "status"), &job["attempt"]), ("completed".into(), &json!(1)), "{kib} KiB: {job:#}");
            assert!(verdicts.contains(&text(&job, "verdict").as_str()), "{kib} KiB: {job:#}");
        }
    }
    daemon().assert_clean();
}

#[test]
fn a_server_says_that_it_runs_jobs_in_containers() {
    let _turn = alone();
    let server = Server::start(&[ON_DOCKER]);
    assert_eq!(server.get("/readyz").status, 200);
    let c = server.get("/api/v1/languages/c").body;
    assert_eq!((text(&c, "backend"), text(&c, "image")), ("docker".into(), "gavel-c".into()), "{c:#}");
}

#[test]
fn containers_end_with_a_server_that_is_killed() {
    let _turn = alone();
    let server = Server::start(&[ON_DOCKER, CLEANUP]);
    let id = server.submit(&sleeper("30"));
    server.wait_for_status(&id, &["running"]);
    eventually("a container runs", || (!daemon().running_containers().is_empty()).then_some(()));
    server.kill();
    // Nobody is left who could remove them: they must end by themselves.
    daemon().none_runs_within(Duration::from_secs(10));
}

#[test]
fn a_server_removes_what_a_dead_one_left_and_nothing_else() {
    let _turn = alone();
    let daemon = daemon();
    let stranger = daemon.stranger("gavel-lookalike");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start_in(dir.path(), &[ON_DOCKER, CLEANUP]);
    let labels = labels_of_a_container(daemon);
    server.kill();
    daemon.none_runs_within(Duration::from_secs(10));
    // One whose agent does not end with its server: as if the daemon had not told it.
    let mut command = vec!["create", "--network", "none", "--name", "gavel-orphan"];
    for label in &labels {
        command.extend(["--label", label]);
    }
    daemon.lines(&[&command[..], &[crate::daemon::BASE, "sleep", "infinity"]].concat());
    let server = Server::start_in(dir.path(), &[ON_DOCKER, CLEANUP]);
    eventually("the orphan is gone", || (!daemon.containers().contains(&"gavel-orphan".to_owned())).then_some(()));
    assert!(stranger.is_running(), "a container of others was stopped");
    drop(server);
    assert!(stranger.is_running(), "a container of others was stopped");
    daemon.assert_clean();
}

/// `name=value` of each label of one of our containers, once there is one.
fn labels_of_a_container(daemon: &Daemon) -> Vec<String> {
    let labels = eventually("a container runs", || {
        let name = daemon.running_containers().pop()?;
        // It may be gone by now, and the next one be there.
        let shown = daemon.lines_if_it_answers(&["inspect", "--format", "{{json .Config.Labels}}", &name]);
        serde_json::from_str::<BTreeMap<String, String>>(&shown.concat()).ok()
    });
    labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The core of the second promise on this backend: containers are killed at random, then the daemon is
/// restarted, then the server is killed, and every job still ends with its own result.
#[test]
fn jobs_survive_killed_containers_a_restarted_daemon_and_a_killed_server() {
    let _turn = alone();
    let jobs = match std::env::var("GAVEL_TEST_DOCKER_JOBS") {
        Ok(text) => text.parse().expect("GAVEL_TEST_DOCKER_JOBS is a number"),
        Err(_) => JOBS,
    };
    let daemon = daemon();
    let stranger = daemon.stranger("gavel-lookalike");
    let dir = tempfile::tempdir().expect("a temporary directory");
    // A kill costs an attempt of the job it hits: none may run out of them here.
    let settings = [ON_DOCKER, FRESH, CLEANUP, "workers.max_workers=2", "workers.max_attempts=1000"];
    let server = Server::start_in(dir.path(), &settings);
    let wanted = submit(&server, jobs);
    let done = |server: &Server| jobs - unfinished(server);

    let killed = killing_containers(daemon, || {
        eventually_in(10 * PATIENCE, "a third of the jobs has ended", || done(&server) * 3 >= jobs);
        daemon.restart();
        eventually_in(10 * PATIENCE, "half of the jobs have ended", || done(&server) * 2 >= jobs);
    });
    server.kill();
    daemon.none_runs_within(Duration::from_secs(15));
    let mut server = Server::start_in(dir.path(), &settings);
    let killed = killed
        + killing_containers(daemon, || {
            eventually_in(10 * PATIENCE, "all jobs have ended", || done(&server) == jobs);
        });

    let mut repeated = 0;
    for (id, expected) in &wanted {
        let job = server.job(id);
        let shown = || format!("{job:#}");
        assert_eq!(
            (text(&job, "status"), text(&job, "verdict")),
            ("completed".into(), "accepted".into()),
            "{}",
            shown()
        );
        assert_eq!(&text(&job, "stdout"), expected, "{}", shown());
        repeated += usize::from(job["attempt"] != 1);
    }
    println!("{jobs} jobs, {killed} containers killed, {repeated} jobs begun more than once");
    assert!(killed > 0 && repeated > 0, "no kill hit a running job: the test tests nothing");
    assert!(server.stop().success(), "{}", server.log());
    daemon.assert_clean();
    assert!(stranger.is_running(), "a container of others was stopped");
}

fn sleeper(seconds: &str) -> Value {
    json!({ "language": "bash", "source_code": format!("sleep {seconds}\necho done\n"),
        "limits": { "wall_time_ms": 60000 } })
}

/// Jobs of two languages, some of which take long enough to be hit; the output of each by its id.
fn submit(server: &Server, count: usize) -> BTreeMap<String, String> {
    let job = |n: usize| match n % 4 {
        0 => json!({ "language": "python3", "source_code": format!("print('job {n}')") }),
        1 => json!({ "language": "bash", "source_code": format!("sleep 0.3; echo job {n}") }),
        _ => json!({ "language": "bash", "source_code": format!("echo job {n}") }),
    };
    let expected = |n: usize| format!("job {n}\n");
    let mut wanted = BTreeMap::new();
    for first in (0..count).step_by(1000) {
        let numbers: Vec<usize> = (first..count.min(first + 1000)).collect();
        let jobs: Vec<Value> = numbers
            .iter()
            .map(|&n| {
                let mut job = job(n);
                job["expected_output"] = expected(n).into();
                job
            })
            .collect();
        let answer = server.post("/api/v1/jobs/batch", &json!({ "jobs": jobs }));
        assert_eq!(answer.status, 201, "{}", answer.body);
        let ids = answer.body["jobs"].as_array().expect("a list").iter().map(|job| text(job, "id"));
        wanted.extend(ids.zip(numbers.into_iter().map(expected)));
    }
    wanted
}

/// Jobs that are pending or running.
fn unfinished(server: &Server) -> usize {
    let mut page = server.get("/api/v1/jobs?status=pending&limit=200").body;
    let running = server.get("/api/v1/jobs?status=running&limit=200").body;
    let mut count = running["jobs"].as_array().expect("a list").len();
    loop {
        count += page["jobs"].as_array().expect("a list").len();
        let Some(cursor) = page["next_cursor"].as_str() else { return count };
        page = server.get(&format!("/api/v1/jobs?status=pending&limit=200&cursor={cursor}")).body;
    }
}

/// Kills one of our containers after another, at random, as long as `meanwhile` takes; how many.
fn killing_containers(daemon: &Daemon, meanwhile: impl FnOnce()) -> usize {
    let (over, killed) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // Also when `meanwhile` panics: the scope waits for its threads.
        let _end = OnDrop(|| over.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            let mut dice = Dice::new("docker");
            while !over.load(Ordering::Relaxed) {
                // The moment of a kill is what is random here; nothing is waited for.
                std::thread::sleep(Duration::from_millis(200 + dice.below(1500)));
                let running = daemon.running_containers();
                let Some(victim) = running.get(dice.below(running.len().max(1) as u64) as usize) else { continue };
                let output = daemon.docker().args(["kill", victim]).output().expect("docker starts");
                killed.fetch_add(usize::from(output.status.success()), Ordering::Relaxed);
            }
        });
        meanwhile();
    });
    killed.into_inner()
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// [`eventually`] for what takes longer.
fn eventually_in(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < limit, "after {} s still not: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn jobs_go_on_after_the_daemon_was_restarted() {
    let _turn = alone();
    let daemon = daemon();
    let server = Server::start(&[ON_DOCKER, "workers.max_attempts=1000"]);
    sample("bash").check_exactly(&server, "before");
    daemon.restart();
    sample("bash").check_exactly(&server, "after a restart");
}

#[test]
fn images_are_built_listed_and_a_missing_one_names_its_remedy() {
    let _turn = alone();
    let daemon = daemon();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let run = |args: &[&str]| daemon.gavel(dir.path()).args(args).output().expect("gavel starts");

    // A language of the user's own, with a Dockerfile that copies a file.
    let folder = dir.path().join("more/mine");
    std::fs::create_dir_all(&folder).expect("a directory");
    let write = |name: &str, content: &str| std::fs::write(folder.join(name), content).expect("a file");
    write(
        "language.toml",
        "name = \"Mine\"\nsource_file = \"a\"\nrun = [\"/bin/sh\", \"a\"]\nimage = \"gavel-test-mine:1\"\n",
    );
    write("Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY tool /usr/bin/tool\n");
    write("tool", "x");
    let build = ["languages", "build", "--json", "--languages-dir", "more", "--base", crate::daemon::BASE, "mine"];
    let output = run(&build);
    assert!(output.status.success(), "{output:?}");
    let line: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!((&line["images"], &line["problem"]), (&json!(["gavel-test-mine:1"]), &Value::Null), "{line}");

    // One that fails does not keep the next from being built, and says why.
    write("Dockerfile", "ARG BASE\nFROM ${BASE}\nRUN echo the reason; exit 7\n");
    let output = run(&[&build[..], &["bash"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(text(&lines[0], "problem").contains("the reason"), "{lines:?}");
    assert_eq!((&lines[1]["id"], &lines[1]["problem"]), (&json!("bash"), &Value::Null), "{lines:?}");
    daemon.lines(&["rmi", "gavel-test-mine:1"]);
}

#[test]
fn an_exported_image_is_unpacked_once_without_power_and_native_jobs_run_on_it() {
    let _turn = alone();
    let daemon = daemon();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let export = |more: &[&str]| {
        let args = [&["languages", "export", "--json", "--data-dir", "data", "bash"], more].concat();
        let output = daemon.gavel(dir.path()).args(args).output().expect("gavel starts");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).expect("one line of JSON")
    };
    let first = export(&[]);
    assert!(first["unpacked"]["files"].as_u64().is_some_and(|files| files > 1000), "{first}");
    let root = dir.path().join(text(&first, "rootfs"));
    assert!(root.join("usr/bin/bash").is_file(), "{first}");
    let find = |args: &[&str]| {
        let output = std::process::Command::new("find").arg(&root).args(args).output().expect("find starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(find(&["-perm", "/6000"]), "");
    assert_eq!(find(&["!", "-type", "f", "!", "-type", "d", "!", "-type", "l"]), "");
    // Native jobs see its files, and not the host's.
    std::fs::write(root.join("usr/only-here"), "in the image\n").expect("a file");
    std::fs::write(dir.path().join("look.sh"), "cat /usr/only-here\n").expect("a file");
    let mut look = daemon.gavel(dir.path());
    look.args(["run", "--quiet", "look.sh", "--data-dir", "data", "--set", "sandbox.backend=native"]);
    let output = look.output().expect("gavel starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in the image\n", "{output:?}");
    let again = export(&[]);
    assert_eq!((&again["rootfs"], &again["unpacked"]), (&first["rootfs"], &Value::Null), "{again}");
    let to = export(&["--to", "elsewhere"]);
    assert_eq!(text(&to, "rootfs"), "elsewhere");
    assert!(Path::new(&dir.path().join("elsewhere/usr/bin/bash")).is_file());
    assert!(daemon.lines(&["ps", "--all", "--filter", "name=gavel-export", "--quiet"]).is_empty());
}
