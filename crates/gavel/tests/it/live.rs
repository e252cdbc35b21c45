//! Output as it is printed, and programs that somebody talks to.

use crate::daemon::{FRESH, ON_DOCKER, REUSE};
use crate::harness::{PATIENCE, Server, alone, among_others, eventually, gavel, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Message, WebSocket};

/// A client of a job's WebSocket.
struct Socket(WebSocket<TcpStream>);

impl Socket {
    fn open(server: &Server, id: &str) -> Self {
        let address = server.url.strip_prefix("http://").expect("plain HTTP");
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let url = format!("ws://{address}/api/v1/jobs/{id}/ws");
        let all = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        Self(tungstenite::client::client_with_config(url, stream, Some(all)).expect("a WebSocket").0)
    }

    fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).expect("the socket takes it");
    }

    fn type_in(&mut self, text: &str) {
        self.send(json!({ "stdin": text }));
    }

    /// `None` when it was closed as it should be.
    fn next(&mut self) -> Option<Value> {
        loop {
            match self.0.read().expect("something comes") {
                Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
                Message::Close(frame) => {
                    let code: u16 = frame.expect("a reason").code.into();
                    assert_eq!(code, 1000);
                    return None;
                }
                _ => {}
            }
        }
    }

    /// Reads until the job has printed this; gives all that it printed meanwhile.
    fn until(&mut self, wanted: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(wanted) {
            let event = self.next().unwrap_or_else(|| panic!("{wanted:?} never came: {seen:?}"));
            assert!(event["event"] != "done", "{wanted:?} never came: {seen:?}: {event:#}");
            if event["event"] == "stdout" {
                seen += event["data"].as_str().expect("UTF-8");
            }
        }
        seen
    }

    /// The job as it ended.
    fn done(&mut self) -> Value {
        loop {
            let event = self.next().expect("the job's end");
            if event["event"] == "done" {
                assert_eq!(self.next(), None, "after the end comes nothing");
                return event["job"].clone();
            }
        }
    }
}

fn bash(source: &str, tty: bool) -> Value {
    let size = tty.then(|| json!({ "rows": 24, "cols": 80 }));
    json!({ "language": "bash", "source_code": source, "interactive": true, "tty": size })
}

fn attach(server: &Server, job: &Value) -> Socket {
    Socket::open(server, &server.submit(job))
}

/// Where the program and the test see the same clock, each line says when it was printed.
const TICKER: &str = "import time\nfor _ in range(50):\n    print(time.time_ns(), flush=True)\n    time.sleep(0.1)\n";

fn report(what: &str, mut delays: Vec<Duration>) -> Duration {
    delays.sort_unstable();
    let at = |share: usize| delays[delays.len() * share / 100];
    println!("{what}: {} lines, delay p50 {:?}, p95 {:?}, max {:?}", delays.len(), at(50), at(95), at(99));
    at(50)
}

fn delay(line: &str) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    now.saturating_sub(Duration::from_nanos(line.trim().parse().expect("a number")))
}

fn lines_arrive_one_by_one(server: &Server) {
    let job = json!({ "language": "python3", "source_code": TICKER, "limits": { "wall_time_ms": 30_000 } });
    let mut socket = attach(server, &job);
    let mut delays = Vec::new();
    let mut pieces = 0;
    while delays.len() < 50 {
        let event = socket.next().expect("50 lines");
        if event["event"] == "stdout" {
            pieces += 1;
            delays.extend(event["data"].as_str().expect("UTF-8").lines().map(delay));
        }
    }
    assert_eq!(text(&socket.done(), "verdict"), "accepted");
    assert!(pieces > 25, "50 lines came in {pieces} pieces");
    // The figure that is promised is for a machine that is not loaded; 50 ms apart is what a loaded one shows.
    let median = report("WebSocket", delays);
    assert!(median < Duration::from_millis(50), "{median:?}");
    let id = server.submit(&job);
    let mut delays = Vec::new();
    for line in BufReader::new(events(server, &id)).lines() {
        let line = line.expect("the stream goes on");
        if let Some(shown) = line.strip_prefix("data: {\"text\":\"") {
            let shown = shown.split("\\n").next().expect("a line");
            delays.push(delay(shown));
        }
        if line == "event: done" {
            break;
        }
    }
    let median = report("server-sent events", delays);
    assert!(median < Duration::from_millis(50), "{median:?}");
}

/// The bytes of a job's event stream, chunks and all.
fn events(server: &Server, id: &str) -> TcpStream {
    let address = server.url.strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let request = format!("GET /api/v1/jobs/{id}/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream
}

#[test]
fn lines_reach_the_client_as_they_are_printed() {
    let _turn = alone();
    lines_arrive_one_by_one(&Server::start(&[]));
}

fn a_dialogue(server: &Server) {
    for tty in [false, true] {
        let source = "read -p 'name? ' a; echo; echo \"age of $a?\"; read b; echo \"$a is $b\"; cat; echo over";
        // bash shows a prompt on a terminal only, and on stderr then.
        let source = source.replace("read -p 'name? ' a; echo;", "echo 'name?'; read a;");
        let mut socket = attach(server, &bash(&source, tty));
        socket.until("name?");
        socket.type_in("ada\n");
        socket.until("age of ada?");
        socket.type_in("36\n");
        socket.until("ada is 36");
        socket.type_in("one\ntwo");
        socket.send(json!({ "eof": true }));
        socket.until("over");
        let job = socket.done();
        assert_eq!(text(&job, "verdict"), "accepted", "{job:#}");
        assert!(text(&job, "stdout").contains("two"), "{job:#}");
        // After the end it is shown again, and takes nothing.
        let mut again = Socket::open(server, &text(&job, "id"));
        assert_eq!(again.done()["stdout"], job["stdout"]);
    }
}

fn a_terminal(server: &Server) {
    let source = "test -t 0 && test -t 1 && test -t 2 && echo yes; stty size; read; stty size; echo error >&2; echo $TERM; \
                  exec 3<>/dev/tty; echo by name >&3; sleep 50; echo survived";
    let mut socket = attach(server, &bash(source, true));
    let seen = socket.until("24 80\r\n");
    assert!(seen.contains("yes\r\n"), "{seen:?}");
    socket.send(json!({ "resize": { "rows": 50, "cols": 132 } }));
    socket.type_in("\n");
    let seen = socket.until("by name");
    for wanted in ["50 132\r\n", "error\r\n", "xterm-256color\r\n"] {
        assert!(seen.contains(wanted), "{wanted:?} in {seen:?}");
    }
    socket.type_in("\u{3}");
    let job = socket.done();
    // The shell goes with what it waited for, as shells do.
    assert_eq!((text(&job, "verdict"), &job["signal"]), ("runtime_error".into(), &json!(2)), "{job:#}");
    assert!(!text(&job, "stdout").contains("survived") && text(&job, "stderr").is_empty(), "{job:#}");
    assert!(job["execution_time_ms"].as_f64().is_some_and(|n| n > 0.0 && n < 5000.0), "{job:#}");
}

/// A terminal must not become a way to type for others: its input cannot be forged, and it is the only one there is.
fn a_terminal_reaches_nobody_else(server: &Server) {
    let mut job = json!({ "language": "c", "source_code": INTRUDER, "interactive": true });
    job["tty"] = json!({ "rows": 24, "cols": 80 });
    let ids: Vec<String> = (0..2).map(|_| server.submit(&job)).collect();
    for id in ids {
        let job = Socket::open(server, &id).done();
        let said = text(&job, "stdout").replace("\r\n", "\n");
        assert_eq!(text(&job, "verdict"), "accepted", "{job:#}");
        assert_eq!(said, "TIOCSTI 1\nTIOCLINUX 1\nTIOCCONS 1\nTIOCSETD 1\n0 other terminals\nforged 0\n", "{job:#}");
    }
}

/// Tries what a program on a terminal could do to the terminal of somebody else, or to its own.
const INTRUDER: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#define HIGH 0xffffffff00000000ul
static void attempt(const char *name, unsigned long call, void *arg) {
    long plain = syscall(SYS_ioctl, 0, call, arg), high = syscall(SYS_ioctl, 0, call | HIGH, arg);
    printf("%s %d\n", name, plain == -1 && high == -1 && errno == EPERM);
}
int main(void) {
    int ldisc = 13, others = 0, waiting = 0;
    char key = 'x', sub[2] = {3, 0};
    attempt("TIOCSTI", TIOCSTI, &key);
    attempt("TIOCLINUX", TIOCLINUX, sub);
    attempt("TIOCCONS", TIOCCONS, 0);
    attempt("TIOCSETD", TIOCSETD, &ldisc);
    DIR *d = opendir("/dev/pts");
    struct dirent *e;
    while (d && (e = readdir(d))) {
        char path[300];
        snprintf(path, sizeof path, "/dev/pts/%s", e->d_name);
        if (e->d_name[0] < '0' || e->d_name[0] > '9' || !strcmp(path, ttyname(0))) continue;
        if (open(path, O_RDWR | O_NOCTTY) >= 0) others++;
    }
    for (int i = 0; i < 64; i++) {
        char path[64];
        snprintf(path, sizeof path, "/dev/tty%d", i);
        if (open(path, O_RDWR | O_NOCTTY) >= 0) others++;
    }
    if (open("/dev/console", O_RDWR | O_NOCTTY) >= 0) others++;
    printf("%d other terminals\n", others);
    ioctl(0, FIONREAD, &waiting);
    printf("forged %d\n", waiting);
}
"#;

#[test]
fn a_program_can_be_talked_to() {
    let _turn = among_others();
    let server = Server::start(&["workers.max_workers=2"]);
    a_dialogue(&server);
    a_terminal(&server);
    a_terminal_reaches_nobody_else(&server);
    // What is none is as it was.
    let job =
        server.judge(&json!({ "language": "bash", "source_code": "cat; ls /dev/pts /dev/tty; test -t 0 || echo no" }));
    assert_eq!(text(&job, "stdout"), "no\n", "{job:#}");
}

#[test]
fn a_program_in_a_container_can_be_talked_to() {
    let _turn = alone();
    for policy in [FRESH, REUSE] {
        let server = Server::start(&[ON_DOCKER, policy, "workers.max_workers=2"]);
        for _ in 0..2 {
            a_dialogue(&server);
            a_terminal(&server);
            a_terminal_reaches_nobody_else(&server);
        }
        lines_arrive_one_by_one(&server);
    }
}

#[test]
fn who_is_silent_is_ended_and_who_talks_is_not() {
    let _turn = among_others();
    let server = Server::start(&["limits.interactive_idle=1s"]);
    // Nobody comes.
    let forgotten = server.submit(&bash("cat", true));
    let mut talker = attach(&server, &bash("while read line; do sleep 0.25; echo \"<$line>\"; done", false));
    for n in 0..8 {
        talker.type_in(&format!("{n}\n"));
        talker.until(&format!("<{n}>"));
    }
    let job = talker.done();
    for job in [job, server.wait_for_status(&forgotten, &["completed"])] {
        assert_eq!(text(&job, "verdict"), "time_limit_exceeded", "{job:#}");
        assert!(text(&job, "reason").contains("idle limit"), "{job:#}");
    }
    // The limit on the whole time stands, whoever talks.
    let mut job = bash("while true; do echo tick; sleep 0.1; done", false);
    job["limits"] = json!({ "wall_time_ms": 2500 });
    let job = attach(&server, &job).done();
    assert!(text(&job, "reason").contains("wall time limit"), "{job:#}");
}

#[test]
fn input_that_nobody_reads_takes_no_memory() {
    let _turn = alone();
    let server = Server::start(&["limits.interactive_idle=3s"]);
    for tty in [false, true] {
        let source = if tty { "stty -echo -icanon; echo ready; sleep 50" } else { "echo ready; sleep 50" };
        let mut socket = attach(&server, &bash(source, tty));
        socket.until("ready");
        let before = resident(server.pid());
        let mut writer = socket.0.get_mut().try_clone().expect("a second handle");
        writer.set_write_timeout(Some(Duration::from_millis(600))).expect("a socket");
        // Complete messages, masked by zeros: the socket of the client is ours.
        let body = json!({ "stdin": "x".repeat(60_000) }).to_string();
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(body.as_bytes());
        let mut sent = 0;
        let mut took = Duration::ZERO;
        // Until the buffers of both ends of the connection are full.
        while took < Duration::from_millis(500) {
            let began = Instant::now();
            _ = writer.write_all(&frame);
            took = began.elapsed();
            sent += frame.len();
            assert!(sent < 100 << 20, "{sent} bytes were taken for a program that reads nothing");
        }
        let grown = resident(server.pid()).saturating_sub(before);
        println!("tty {tty}: {} KiB went onto their way, the server grew by {} KiB", sent >> 10, grown >> 10);
        assert!(grown < 8 << 20, "the server grew by {grown} bytes");
        let id = socket_job(&server);
        let job = server.wait_for_status(&id, &["completed"]);
        assert!(text(&job, "reason").contains("idle limit"), "{job:#}");
    }
}

/// The newest job.
fn socket_job(server: &Server) -> String {
    text(&server.get("/api/v1/jobs?limit=1").body["jobs"][0], "id")
}

#[test]
fn a_thousand_open_streams_cost_little() {
    const STREAMS: usize = 500;
    const MOST: usize = 20 << 10;
    let _turn = alone();
    let server = Server::start(&["limits.cap.wall_time_ms=300000", "limits.interactive_idle=300s"]);
    let id = server.submit(&bash("echo begun; cat", false));
    server.wait_for_status(&id, &["running"]);
    // Whatever is made for the first ones of each kind stays.
    let mut kept: Vec<Box<dyn Send>> = Vec::new();
    for _ in 0..20 {
        kept.push(Box::new(open_events(&server, &id)));
        kept.push(Box::new(open_socket(&server, &id)));
    }
    let start = resident(server.pid());
    for _ in 20..STREAMS {
        kept.push(Box::new(open_events(&server, &id)));
    }
    let with_events = resident(server.pid());
    let mut sockets: Vec<Socket> = (20..STREAMS).map(|_| open_socket(&server, &id)).collect();
    let with_sockets = resident(server.pid());
    let each = |from: usize, to: usize| to.saturating_sub(from) / (STREAMS - 20);
    let (events, sockets_each) = (each(start, with_events), each(with_events, with_sockets));
    println!("{STREAMS} of each: an event stream takes {events} bytes, a WebSocket {sockets_each} bytes");
    assert!(events <= MOST && sockets_each <= MOST, "an event stream {events}, a WebSocket {sockets_each}");
    let refused = server.get(&format!("/api/v1/jobs/{id}/events"));
    assert_eq!(refused.status, 503, "there is a limit on them");
    // All of them hear the same.
    sockets[0].type_in("to all\n");
    for socket in &mut sockets {
        socket.until("to all");
    }
    sockets[0].send(json!({ "eof": true }));
    for socket in &mut sockets {
        assert_eq!(text(&socket.done(), "verdict"), "accepted");
    }
}

/// An event stream that has shown what there is.
fn open_events(server: &Server, id: &str) -> TcpStream {
    let mut stream = events(server, id);
    let (mut seen, mut buffer) = (Vec::new(), [0; 512]);
    while !seen.windows(5).any(|piece| piece == b"begun") {
        let got = stream.read(&mut buffer).expect("the stream begins");
        assert!(got > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..got]);
    }
    stream
}

fn open_socket(server: &Server, id: &str) -> Socket {
    let mut socket = Socket::open(server, id);
    socket.until("begun");
    socket
}

/// Memory of the server alone, without the programs that it has started.
fn resident(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
}

#[test]
fn a_client_that_never_reads_stops_nobody() {
    let _turn = alone();
    let server = Server::start(&["limits.cap.output_kb=65536"]);
    let job = json!({
        "language": "python3", "source_code": "for _ in range(512): print('x' * 65535)",
        "interactive": true, "limits": { "output_kb": 65536, "cpu_time_ms": 10_000 },
    });
    let began = Instant::now();
    let id = server.submit(&job);
    let _silent = Socket::open(&server, &id);
    let mut dropped = 0;
    let mut reader = Socket::open(&server, &id);
    // This one reads a little and then waits, too.
    reader.until("x");
    let done = server.wait_for_status(&id, &["completed"]);
    assert_eq!(text(&done, "verdict"), "accepted", "{}", done["reason"]);
    println!("the job took {:?}", began.elapsed());
    eventually("it is told what it missed", || {
        let event = reader.next()?;
        dropped += event["bytes"].as_u64().unwrap_or_default();
        (event["event"] == "done").then_some(())
    });
    assert!(dropped > 0, "nothing was dropped: the test tests nothing");
}

#[test]
fn a_program_can_be_talked_to_without_a_server() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let source = "test -t 0 && stty size; echo 'name?'; read a; echo \"<$a>\"; cat; exit 3";
    std::fs::write(dir.path().join("main.sh"), source).expect("a file");
    for (flags, size) in [("-i", ""), ("-it", "24 80\r\n")] {
        let mut command = gavel(dir.path());
        command.args(["run", flags, "main.sh"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("gavel starts");
        let (mut keys, shown) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut shown = BufReader::new(shown);
        let mut seen = String::new();
        while !seen.contains("name?") {
            assert!(shown.read_line(&mut seen).expect("a pipe") > 0, "{flags}: {seen:?}");
        }
        assert!(seen.starts_with(size), "{flags}: {seen:?}");
        keys.write_all(b"ada\nmore\n").expect("it takes input");
        drop(keys);
        shown.read_to_string(&mut seen).expect("a pipe");
        assert!(seen.contains("<ada>") && seen.contains("more"), "{flags}: {seen:?}");
        assert_eq!(child.wait().expect("it ends").code(), Some(3), "{flags}: {seen:?}");
    }
}
