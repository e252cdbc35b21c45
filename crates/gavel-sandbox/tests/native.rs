//! The native sandbox below the server: what the corpus cannot say over HTTP. Needs root and cgroups,
//! as the server does, and fails where it has none.

use gavel_core::job::Tty;
use gavel_core::language::Scratch;
use gavel_core::{Bytes, Exit, Facts, Limits, Stop};
use gavel_sandbox::native::{Native, NativeOptions};
use gavel_sandbox::{
    Backend, Bell, Cancel, Collect, Command, Content, InputFile, Live, LiveInput, OnOutputLimit, Sandbox, Stream, Typed,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Slots are unique in this process: their users and groups must not meet.
static SLOT: AtomicU32 = AtomicU32::new(1000);

fn native(shared: Option<&Path>) -> Native {
    let options = NativeOptions { shared_dir: shared.map(Path::to_owned), ..NativeOptions::default() };
    Native::new(options).expect("this machine can isolate")
}

fn open(native: &Native) -> (u32, Box<dyn Sandbox>) {
    let slot = SLOT.fetch_add(1, Ordering::Relaxed);
    (slot, native.open(slot).expect("a sandbox opens"))
}

fn shell(script: &str) -> Command<'static> {
    let limits = Limits { wall_time: Duration::from_secs(20), cpu_time: Duration::from_secs(10), ..Limits::standard() };
    Command {
        image: None,
        root: None,
        argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        env: Vec::new(),
        stdin: &[],
        live: None,
        files: Vec::new(),
        scratch: Scratch::for_run(&limits),
        limits,
        stderr_to_stdout: false,
        network: false,
        on_output_limit: OnOutputLimit::Stop,
        collect: Collect::default(),
    }
}

fn run(sandbox: &mut dyn Sandbox, command: &Command) -> Facts {
    sandbox.run(command, &Cancel::new().unwrap(), &mut |_, _| {}).expect("the sandbox works")
}

/// Somebody who types.
#[derive(Clone)]
struct Keyboard {
    keys: Sender<Typed>,
    bell: Bell,
}

impl Keyboard {
    fn new() -> (Self, LiveInput) {
        let (keys, typed) = channel();
        let bell = Bell::new().unwrap();
        (Self { keys, bell: bell.clone() }, LiveInput::new(bell, move || typed.try_recv().ok()))
    }

    fn send(&self, typed: Typed) {
        self.keys.send(typed).unwrap();
        self.bell.ring();
    }

    fn type_in(&self, text: &str) {
        self.send(Typed::Bytes(text.into()));
    }
}

/// Runs an interactive command; `react` is told of everything that it has printed so far, whenever it prints.
fn converse(
    sandbox: &mut dyn Sandbox,
    command: &mut Command<'static>,
    tty: Option<Tty>,
    idle: Duration,
    mut react: impl FnMut(&str, &Keyboard),
) -> Facts {
    let (keyboard, input) = Keyboard::new();
    let live = Some(Live { input: &input, tty, idle });
    let command = Command { live, ..command.clone() };
    let mut seen = Vec::new();
    let output = &mut |_, bytes: &[u8]| {
        seen.extend_from_slice(bytes);
        react(&String::from_utf8_lossy(&seen), &keyboard);
    };
    sandbox.run(&command, &Cancel::new().unwrap(), output).expect("the sandbox works")
}

const LONG: Duration = Duration::from_secs(15);
const SMALL: Option<Tty> = Some(Tty { rows: 24, cols: 80 });

#[test]
fn what_is_typed_is_answered_and_ends() {
    let (_, mut sandbox) = open(&native(None));
    for tty in [None, SMALL] {
        let script = "echo 'name?'; read a; echo \"age of $a?\"; read b; echo \"$a is $b\"; cat; echo over";
        let mut answered = 0;
        let facts = converse(&mut *sandbox, &mut shell(script), tty, LONG, |seen, keyboard| {
            match answered {
                0 if seen.contains("name?") => keyboard.type_in("ada\n"),
                1 if seen.contains("age of ada?") => keyboard.type_in("36\n"),
                2 if seen.contains("ada is 36") => {
                    keyboard.type_in("no end of line");
                    keyboard.send(Typed::End);
                }
                _ => return,
            }
            answered += 1;
        });
        let said = text(&facts.stdout).to_owned();
        assert_eq!((facts.exit, facts.stopped, answered), (Exit::Code(0), None, 3), "{said}");
        assert!(said.contains("no end of line") && said.trim_end().ends_with("over"), "{said:?}");
        assert_eq!(tty.is_some(), said.contains("\r\n"), "{said:?}");
        // The next command has neither input nor terminal.
        let facts =
            run(&mut *sandbox, &shell("cat; test -t 0 || echo none; ls /dev; echo x > /dev/tty || ls /dev/pts"));
        let names: Vec<_> = text(&facts.stdout).split_whitespace().collect();
        let usual = ["none", "fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"];
        assert_eq!(names, usual, "{}", text(&facts.stderr));
    }
}

#[test]
fn stdin_comes_before_what_is_typed() {
    let (_, mut sandbox) = open(&native(None));
    let stdin: &'static [u8] = vec![b'x'; 1 << 20].leak();
    let mut command = shell("head -c 1048576 | tail -c 1; echo; cat");
    command.stdin = stdin;
    let mut typed = false;
    let facts = converse(&mut *sandbox, &mut command, None, LONG, |_, keyboard| {
        if !std::mem::replace(&mut typed, true) {
            keyboard.type_in(&"y".repeat(300_000));
            keyboard.send(Typed::End);
        }
    });
    assert_eq!(facts.exit, Exit::Code(0));
    assert_eq!(facts.stdout, [b"x\n".as_slice(), &vec![b'y'; 300_000]].concat());
}

#[test]
fn a_terminal_is_one() {
    let (_, mut sandbox) = open(&native(None));
    let script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM; \
                  echo error >&2; echo by name > /dev/pts/0; echo by tty > /dev/tty; cat /dev/stdin; \
                  true > /dev/ptmx; true <> /dev/pts/ptmx; ls -l /dev/pts; stty size";
    let mut resized = false;
    let facts = converse(&mut *sandbox, &mut shell(script), SMALL, LONG, |seen, keyboard| {
        if seen.contains("by tty") && !std::mem::replace(&mut resized, true) {
            keyboard.send(Typed::Resize(Tty { rows: 50, cols: 132 }));
            keyboard.type_in("through /dev/stdin\n");
            keyboard.send(Typed::End);
        }
    });
    let said = text(&facts.stdout).replace("\r\n", "\n");
    let begin = "/dev/pts/0\n24 80\nxterm-256color\nerror\nby name\nby tty\nthrough /dev/stdin\nthrough /dev/stdin\n";
    assert!(said.starts_with(begin), "{said}");
    assert!(said.contains("/dev/ptmx: ") && said.contains("/dev/pts/ptmx: Permission denied"), "{said}");
    assert!(said.ends_with("50 132\n"), "{said}");
    assert_eq!((facts.exit, facts.stderr.len()), (Exit::Code(0), 0));
}

#[test]
fn nothing_that_is_printed_to_a_terminal_is_lost_at_the_end() {
    let (_, mut sandbox) = open(&native(None));
    for script in ["seq 1 60000", "seq 1 60000 & wait", "seq 1 60000 & sleep 0.01; wait; kill -9 $$"] {
        let facts = converse(&mut *sandbox, &mut shell(script), SMALL, LONG, |_, _| {});
        let lines = text(&facts.stdout).lines().filter(|line| !line.is_empty()).count();
        assert_eq!(lines, 60_000, "{script}: {}", facts.stdout.len());
    }
    let mut command = shell("yes");
    command.limits.output = Bytes::kib(100);
    let facts = converse(&mut *sandbox, &mut command, SMALL, LONG, |_, _| {});
    assert_eq!((facts.stopped, facts.stdout.len()), (Some(Stop::Output), 100 << 10));
}

#[test]
fn control_c_is_a_signal() {
    let (_, mut sandbox) = open(&native(None));
    let mut typed = false;
    let facts = converse(&mut *sandbox, &mut shell("echo ready; exec sleep 19"), SMALL, LONG, |_, keyboard| {
        if !std::mem::replace(&mut typed, true) {
            keyboard.type_in("\u{3}");
        }
    });
    assert_eq!((facts.exit, facts.stopped), (Exit::Signal(2), None), "{}", text(&facts.stdout));
    assert!(facts.wall < Duration::from_secs(10));
}

#[test]
fn who_neither_reads_nor_writes_is_stopped() {
    let (_, mut sandbox) = open(&native(None));
    let idle = Duration::from_millis(400);
    for (tty, script) in [(None, "sleep 19"), (SMALL, "cat"), (None, "echo once; cat"), (SMALL, "sleep 19 & sleep 19")]
    {
        let facts = converse(&mut *sandbox, &mut shell(script), tty, idle, |_, _| {});
        assert_eq!(facts.stopped, Some(Stop::Idle(idle)), "{script}");
        assert!(facts.wall >= idle && facts.wall < Duration::from_secs(10), "{script}: {:?}", facts.wall);
    }
    // Each of them keeps it alive.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.1; done";
    let facts = converse(&mut *sandbox, &mut shell(script), None, idle, |_, _| {});
    assert_eq!((facts.exit, facts.stopped), (Exit::Code(0), None));
}

#[test]
fn what_nobody_reads_is_not_taken() {
    let (_, mut sandbox) = open(&native(None));
    for tty in [None, SMALL] {
        let taken = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&taken);
        let input = LiveInput::new(Bell::new().unwrap(), move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Some(Typed::Bytes(vec![b'\n'; 1000]))
        });
        let live = Some(Live { input: &input, tty, idle: Duration::from_millis(500) });
        let mut command = shell("sleep 19");
        if tty.is_some() {
            // Otherwise the terminal says everything again.
            command = shell("stty -echo; sleep 19");
        }
        let command = Command { live, ..command };
        let facts = sandbox.run(&command, &Cancel::new().unwrap(), &mut |_, _| {}).unwrap();
        assert!(matches!(facts.stopped, Some(Stop::Idle(_))), "{:?} {:?}", facts.stopped, facts.exit);
        let taken = taken.load(Ordering::SeqCst);
        assert!((10..1000).contains(&taken), "{taken} KB were taken");
    }
    assert_eq!(run(&mut *sandbox, &shell("cat; exit 3")).exit, Exit::Code(3));
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn only_plain_files_leave_and_nothing_is_followed() {
    let (_, mut sandbox) = open(&native(None));
    let script = "echo good > good; mkdir d; echo deep > d/deep; ln -s /etc/passwd link; ln -s d dirlink; \
                  mkfifo fifo; echo x > twin; ln twin twin2; mkdir directory; chmod 000 d/deep";
    let mut command = shell(script);
    let collect = |patterns: &[&str]| Collect {
        patterns: patterns.iter().map(|p| (*p).to_owned()).collect(),
        max_files: 100,
        max_total: Bytes::mib(1),
    };
    command.collect = collect(&["**/*", "dirlink/deep", "directory", "../etc/passwd"]);
    let facts = run(&mut *sandbox, &command);
    let mut paths: Vec<_> = facts.files.iter().map(|file| file.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["d/deep", "good"]);
    let left_out = facts.files_left_out.join("\n");
    assert!(
        left_out.contains("link: is a symbolic link") && left_out.contains("twin: is no regular file"),
        "{left_out}"
    );
    // Named outright, the same rules hold.
    command.collect = collect(&["link", "fifo", "dirlink/deep", "absent", "good"]);
    let facts = run(&mut *sandbox, &command);
    assert_eq!(facts.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(facts.files[0].content, b"good\n");
}

#[test]
fn what_leaves_is_bounded() {
    let (_, mut sandbox) = open(&native(None));
    let mut command = shell("for i in 1 2 3 4 5; do head -c 1000 /dev/zero > f$i; done; truncate -s 1G sparse");
    command.limits.file_size = Bytes::mib(2048);
    command.collect = Collect { patterns: vec!["*".into()], max_files: 3, max_total: Bytes(2500) };
    let facts = run(&mut *sandbox, &command);
    let total: usize = facts.files.iter().map(|file| file.content.len()).sum();
    assert!(facts.files.len() == 2 && total == 2000 && !facts.files_left_out.is_empty(), "{:?}", facts.files_left_out);
}

fn everything() -> Collect {
    Collect { patterns: vec!["**".into()], max_files: 100, max_total: Bytes::mib(1) }
}

#[test]
fn names_that_cannot_be_sent_are_left_out() {
    let (_, mut sandbox) = open(&native(None));
    let script = "n=$(printf 'a%.0s' $(seq 250)); mkdir -p $n/$n/$n/$n/$n; echo hi > $n/$n/$n/$n/$n/f; \
                  mkdir -p 1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16; echo hi > 1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/f; \
                  echo hi > 1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/f; echo good > good";
    let mut command = shell(&script.replace("$(printf 'a%.0s' $(seq 250))", &"a".repeat(250)));
    command.collect = everything();
    let facts = run(&mut *sandbox, &command);
    assert_eq!(facts.exit, Exit::Code(0), "{}", text(&facts.stderr));
    let paths: Vec<_> = facts.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/f", "good"]);
    let left_out = facts.files_left_out.join("\n");
    assert_eq!(facts.files_left_out.len(), 2, "{left_out}");
    assert!(left_out.contains("aaa...: has a path that is too long"), "{left_out}");
    assert!(left_out.contains("14/15/16: is too deep a directory"), "{left_out}");
}

#[test]
fn what_is_left_out_is_bounded() {
    let (_, mut sandbox) = open(&native(None));
    let long = "a".repeat(250);
    let script = format!(
        "d={long}/{long}/{long}/{long}/{long}/{long}/{long}/{long}; mkdir -p $d; cd $d; \
         for i in $(seq 40); do echo hi > {long}$i; done"
    );
    let mut command = shell(&script);
    command.collect = everything();
    let facts = run(&mut *sandbox, &command);
    assert_eq!((facts.exit, facts.files.len()), (Exit::Code(0), 0), "{}", text(&facts.stderr));
    assert_eq!(facts.files_left_out.len(), 32);
    assert!(facts.files_left_out.iter().all(|entry| entry.len() <= 256));
}

#[test]
fn nothing_that_matches_is_left_out_unsaid() {
    let (_, mut sandbox) = open(&native(None));
    let script = "mkfifo fifo; echo x > \"$(printf 'bad\\377')\"; mkdir \"$(printf 'worse\\377')\"; \
                  perl -MIO::Socket -e 'IO::Socket::UNIX->new(Local => \"socket\", Listen => 1) or die'";
    let mut command = shell(script);
    command.collect = everything();
    let facts = run(&mut *sandbox, &command);
    assert_eq!(facts.exit, Exit::Code(0), "{}", text(&facts.stderr));
    let mut left_out = facts.files_left_out;
    left_out.sort();
    assert_eq!(
        left_out,
        [
            "bad\u{fffd}: has a name that is not UTF-8",
            "fifo: is no regular file with one name",
            "socket: is no regular file with one name",
            "worse\u{fffd}: has a name that is not UTF-8",
        ]
    );
    // What nobody asked for is not missed.
    command.collect.patterns = vec!["*.out".into(), "here/*".into()];
    assert_eq!(run(&mut *sandbox, &command).files_left_out, Vec::<String>::new());
}

#[test]
fn the_files_of_an_order_do_not_use_up_the_inodes_of_its_command() {
    let (_, mut sandbox) = open(&native(None));
    let deep = |i: usize| (0..15).map(|level| format!("{i}-{level}/")).collect::<String>() + "f";
    let mut command = shell("find . -type f | wc -l; mkdir own; cd own; touch $(seq 4000) && ls | wc -l");
    let file = |i| InputFile { path: deep(i), executable: false, content: Content::Bytes(b"x") };
    command.files = (0..1000).map(file).collect();
    // With and without a working directory that is made beforehand.
    for collect in [Collect::default(), Collect { patterns: vec!["none".into()], ..everything() }] {
        command.collect = collect;
        let facts = run(&mut *sandbox, &command);
        assert_eq!(text(&facts.stdout), "1000\n4000\n", "{:?} {}", facts.exit, text(&facts.stderr));
    }
}

#[test]
fn a_large_order_after_a_small_limit_has_room() {
    let (_, mut sandbox) = open(&native(None));
    let content = vec![b'x'; 4 << 20];
    let mut small = shell("echo small");
    small.limits.memory = Bytes::mib(8);
    let mut large = shell("cat f* | wc -c");
    let file = |i| InputFile { path: format!("f{i}"), executable: false, content: Content::Bytes(&content) };
    large.files = (0..8).map(file).collect();
    for _ in 0..2 {
        assert_eq!(text(&run(&mut *sandbox, &small).stdout), "small\n");
        let facts = run(&mut *sandbox, &large);
        assert_eq!((text(&facts.stdout), facts.oom_kills), ("33554432\n", 0));
    }
    // The room was for the order alone.
    let mut greedy = shell("head -c 16777216 /dev/zero | tail -c 16777216 | wc -c");
    greedy.limits.memory = Bytes::mib(8);
    assert!(run(&mut *sandbox, &greedy).oom_kills > 0);
}

#[test]
fn a_large_stdin_is_fed_as_it_is_read() {
    let (_, mut sandbox) = open(&native(None));
    let stdin: Vec<u8> = (0..20u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut command = shell("sha256sum");
    command.stdin = &stdin;
    let piped = run(&mut *sandbox, &command);
    let mut command = shell("sha256sum in");
    command.files = vec![InputFile { path: "in".into(), executable: false, content: Content::Bytes(&stdin) }];
    let as_file = run(&mut *sandbox, &command);
    assert_eq!(text(&piped.stdout).split(' ').next(), text(&as_file.stdout).split(' ').next());
    // A large order must not show up as the memory of the next program.
    let next = run(&mut *sandbox, &shell("true"));
    assert!(next.peak_memory < Bytes::mib(6), "{}", next.peak_memory);
}

#[test]
fn what_is_left_of_stdin_does_not_disturb_the_next_command() {
    let (_, mut sandbox) = open(&native(None));
    let stdin = vec![b'x'; 8 << 20];
    for script in ["true", "head -c 100000 > /dev/null", "exec <&-; sleep 0.01", "kill -9 $$"] {
        let mut command = shell(script);
        command.stdin = &stdin;
        run(&mut *sandbox, &command);
        let facts = run(&mut *sandbox, &shell("cat; echo next"));
        assert_eq!((text(&facts.stdout), facts.exit), ("next\n", Exit::Code(0)), "{script}");
    }
}

#[test]
fn output_arrives_while_the_program_runs() {
    let (_, mut sandbox) = open(&native(None));
    // It goes on until it is cancelled, which happens when its output is seen.
    let cancel = Cancel::new().unwrap();
    let mut seen = Vec::new();
    let facts = sandbox
        .run(&shell("echo ready; echo no >&2; sleep 15"), &cancel, &mut |stream, bytes| {
            seen.push((stream, bytes.to_vec()));
            cancel.cancel();
        })
        .unwrap();
    assert_eq!(facts.stopped, Some(Stop::Cancelled));
    assert!(seen.contains(&(Stream::Stdout, b"ready\n".to_vec())), "{seen:?}");
    assert!(facts.wall < Duration::from_secs(10));
}

#[test]
fn shared_files_are_mapped_read_only_and_the_rest_of_their_directory_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("ab")).unwrap();
    let program = dir.path().join("ab/program");
    fs::write(&program, "#!/bin/sh\necho shared\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o555)).unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let (_, mut sandbox) = open(&native(Some(dir.path())));
    assert!(sandbox.shares_files(None));
    let script = "./bin/program; echo x >> bin/program; rm -f bin/program; ls -A /box; find / -name secret 2>/dev/null";
    let mut command = shell(script);
    let content = Content::Shared("ab/program".into());
    command.files = vec![InputFile { path: "bin/program".into(), executable: true, content }];
    for _ in 0..2 {
        let facts = run(&mut *sandbox, &command);
        assert_eq!(text(&facts.stdout), "shared\nbin\n", "{}", text(&facts.stderr));
    }
    assert_eq!(fs::read_to_string(&program).unwrap(), "#!/bin/sh\necho shared\n");
}

#[test]
fn a_program_that_is_none_is_the_jobs_own_fault() {
    let (_, mut sandbox) = open(&native(None));
    let file = |executable, content| InputFile { path: "main".into(), executable, content: Content::Bytes(content) };
    let files = [None, Some(file(true, b"garbage".as_slice())), Some(file(false, b"#!/bin/sh\n".as_slice()))];
    for file in files {
        let mut command = shell("");
        command.argv = vec!["./main".into()];
        command.files = file.into_iter().collect();
        let facts = run(&mut *sandbox, &command);
        assert_eq!(facts.exit, Exit::Code(126));
        assert!(text(&facts.stderr).starts_with("./main: cannot be executed: "), "{}", text(&facts.stderr));
    }
    let mut command = shell("echo $#");
    command.argv.extend((0..256).map(|_| "x".repeat(100_000)));
    let facts = run(&mut *sandbox, &command);
    assert_eq!(facts.exit, Exit::Code(126), "{}", text(&facts.stdout));
    // A runtime that is not there is ours.
    let mut command = shell("");
    command.argv = vec!["/usr/bin/no-such-runtime".into()];
    assert!(sandbox.run(&command, &Cancel::new().unwrap(), &mut |_, _| {}).is_err());
}

#[test]
fn a_dead_agent_is_a_fault_and_takes_its_job_with_it() {
    let native = native(None);
    let (slot, mut sandbox) = open(&native);
    let groups = groups_of(slot);
    let group = groups.iter().find(|group| group.contains("pids")).expect("the slot has a pids group");
    let members = fs::read_to_string(Path::new(group).join("cgroup.procs")).unwrap();
    let agent = members.trim().to_owned();
    let mut started = false;
    let fault = sandbox.run(&shell("echo up; sleep 19"), &Cancel::new().unwrap(), &mut |_, _| {
        if !started {
            started = true;
            assert!(std::process::Command::new("kill").args(["-9", &agent]).status().unwrap().success());
        }
    });
    assert!(fault.unwrap_err().to_string().contains("it ended"));
    drop(sandbox);
    // The groups can be removed only when every process of the job is dead.
    assert_eq!(groups_of(slot), Vec::<String>::new());
    let (_, mut sandbox) = open(&native);
    assert_eq!(run(&mut *sandbox, &shell("exit 3")).exit, Exit::Code(3));
}

#[test]
fn a_sandbox_leaves_nothing_behind() {
    let native = native(None);
    let before = open_descriptors();
    let (slot, mut sandbox) = open(&native);
    for _ in 0..50 {
        run(&mut *sandbox, &shell("mkdir -p a/b/c; touch a/b/c/d; sleep 30 & echo done"));
    }
    drop(sandbox);
    assert_eq!(groups_of(slot), Vec::<String>::new());
    // Other tests of this process open and close theirs meanwhile; a leak of ours would be 50 at least.
    assert!(open_descriptors() < before + 50, "{before} before, {} after", open_descriptors());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    // What is mounted, not where: others may have our name in their paths.
    assert!(!mounts.lines().any(|mount| mount.starts_with("gavel ")), "{mounts}");
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Directories of a slot's control groups, wherever they are.
fn groups_of(slot: u32) -> Vec<String> {
    let name = format!("gavel.{}.{slot}", std::process::id());
    let below = format!("{name}.*");
    let find = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "(", "-name", &name, "-o", "-name", &below, ")"])
        .output();
    String::from_utf8_lossy(&find.unwrap().stdout).lines().map(str::to_owned).collect()
}
