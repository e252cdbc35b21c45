//! Nothing is left behind: no process, mount, cgroup, descriptor or file, and memory does not grow.

use crate::harness::{Server, alone, eventually, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// More of them on demand: leaks of one in a thousand show then.
const JOBS: usize = 1000;

/// What the server may gain in memory over all jobs: caches that fill up, no more.
const GROWTH_KIB: u64 = 24 * 1024;

#[test]
fn many_jobs_of_all_kinds_leave_nothing_behind() {
    let _turn = alone();
    let jobs = match std::env::var("GAVEL_TEST_LEAK_JOBS") {
        Ok(text) => text.parse().expect("GAVEL_TEST_LEAK_JOBS is a number"),
        Err(_) => JOBS,
    };
    let outside = Machine::now();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start_in(dir.path(), &[]);
    judge_many(&server, 200);
    // Asking the toolchains for their versions takes a sandbox of its own.
    eventually("the versions are known", || server.log().contains("languages (native)").then_some(()));
    let before = Process::of(server.pid());
    let machine_before = Machine::now();
    judge_many(&server, jobs);
    let wanted = before.clone();
    let settled = || {
        let now = Process::of(server.pid());
        let same = now.files <= wanted.files && now.children <= wanted.children && now.threads <= wanted.threads;
        (same && Machine::now() == machine_before).then_some(now)
    };
    // Connections that are being closed and sandboxes that are being cleaned take a moment.
    let mut after = None;
    let began = std::time::Instant::now();
    while after.is_none() && began.elapsed() < std::time::Duration::from_secs(20) {
        after = settled();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let now = after.unwrap_or_else(|| Process::of(server.pid()));
    assert_eq!(Machine::now(), machine_before, "left on the machine after {jobs} jobs");
    assert!(now.files <= before.files, "open files {} -> {}", before.files, now.files);
    assert!(now.children <= before.children, "processes {} -> {}", before.children, now.children);
    assert!(now.threads <= before.threads, "threads {} -> {}", before.threads, now.threads);
    println!("{jobs} jobs: memory {} -> {} KiB", before.memory_kib, now.memory_kib);
    assert!(now.memory_kib <= before.memory_kib + GROWTH_KIB, "memory {} -> {} KiB", before.memory_kib, now.memory_kib);

    assert!(server.stop().success(), "{}", server.log());
    eventually("the machine is as it was before the server", || (Machine::now() == outside).then_some(()));
}

/// Jobs that end in every way, in batches.
fn judge_many(server: &Server, count: usize) {
    let bash = |source: &str, limits: Value| json!({ "language": "bash", "source_code": source, "limits": limits });
    let kinds = [
        bash("echo 7", json!({})),
        bash("exit 3", json!({})),
        bash("kill -SEGV $$", json!({})),
        bash("(sleep 100 &) ; echo orphan", json!({})),
        bash("echo x > /tmp/a; mkfifo b; echo y > /dev/shm/c", json!({})),
        bash("while :; do echo loud; done", json!({ "output_kb": 16 })),
        bash("sleep 100", json!({ "wall_time_ms": 30 })),
        json!({ "language": "python3", "source_code": "x = bytearray(1 << 30)", "limits": { "memory_kb": 32768 } }),
        json!({ "language": "c", "source_code": "int main(void) { return 0; }" }),
        json!({ "language": "c", "source_code": "no" }),
    ];
    let jobs: Vec<Value> = (0..count).map(|n| kinds[n % kinds.len()].clone()).collect();
    for batch in jobs.chunks(1000) {
        let answer = server.post("/api/v1/jobs/batch", &json!({ "jobs": batch }));
        assert_eq!(answer.status, 201, "{}", answer.body);
        for job in answer.body["jobs"].as_array().expect("a list") {
            let done = server.wait_for_status(&text(job, "id"), &["completed", "failed"]);
            assert_eq!(done["status"], "completed", "{done:#}");
        }
    }
}

/// What a server holds, its own processes included.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    files: usize,
    threads: usize,
    children: usize,
    memory_kib: u64,
}

impl Process {
    fn of(pid: u32) -> Self {
        let family = descendants(pid);
        let count = |name: &str| entries(&format!("/proc/{pid}/{name}"));
        Self {
            files: count("fd"),
            threads: count("task"),
            children: family.len(),
            memory_kib: family.iter().chain([&pid]).map(|&pid| resident_kib(pid)).sum(),
        }
    }
}

/// What is on the machine, whoever made it.
#[derive(Debug, PartialEq)]
struct Machine {
    mounts: usize,
    /// Their names change when one is replaced, their number does not.
    cgroups: usize,
    temporary: Vec<String>,
    /// Processes that run under no account of this machine: those of sandboxes.
    strangers: usize,
}

impl Machine {
    fn now() -> Self {
        let cgroups = count_cgroups(Path::new("/sys/fs/cgroup"));
        let mut temporary: Vec<String> = names("/tmp").filter(|name| name.contains("gavel")).collect();
        temporary.sort();
        let strangers =
            pids().filter(|&pid| uid(pid).is_some_and(|uid| (100_000..4_000_000_000).contains(&uid))).count();
        let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts").lines().count();
        Self { mounts, cgroups, temporary, strangers }
    }
}

fn count_cgroups(dir: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories
        .map(|entry| usize::from(entry.path().to_string_lossy().contains("gavel")) + count_cgroups(&entry.path()))
        .sum()
}

fn names(dir: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn entries(dir: &str) -> usize {
    names(dir).count()
}

fn pids() -> impl Iterator<Item = u32> {
    names("/proc").filter_map(|name| name.parse().ok())
}

/// The field of /proc/PID/status after its name.
fn status(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn uid(pid: u32) -> Option<u64> {
    status(pid, "Uid:")
}

fn resident_kib(pid: u32) -> u64 {
    // Anonymous memory only: pages of shared files come and go with the page cache.
    status(pid, "RssAnon:").unwrap_or(0)
}

fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(parent) = status(pid, "PPid:") {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut todo = vec![root];
    while let Some(pid) = todo.pop() {
        let next = children.get(&u64::from(pid)).cloned().unwrap_or_default();
        found.extend(&next);
        todo.extend(next);
    }
    found
}
