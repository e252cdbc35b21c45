//! Callbacks of the real server: what was stored is told, whenever the server dies.

use crate::harness::{Dice, Server, alone, among_others, eventually, text};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

#[derive(Debug, Clone)]
struct Received {
    method: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    answered: u16,
}

/// Answers each request with what `answer` says of its number, and takes note of it before.
struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    stop: Arc<AtomicBool>,
}

impl Receiver {
    fn start(answer: impl Fn(usize) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (received, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (notes, stopped, answer) = (received.clone(), stop.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (notes, answer) = (notes.clone(), answer.clone());
                std::thread::spawn(move || serve(socket, &notes, &*answer));
            }
        });
        Self { address, received, stop }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().expect("lock").clone()
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    fn settings(&self) -> Vec<String> {
        let port = self.address.port();
        [
            "callbacks.enabled=true",
            &format!("callbacks.secrets={SECRET}"),
            &format!("callbacks.allowed_ports={port}"),
            "callbacks.allow_networks=127.0.0.0/8",
            "callbacks.timeout=2s",
            "callbacks.backoff=20ms",
            "callbacks.max_backoff=200ms",
            "callbacks.max_attempts=100000",
            "workers.max_workers=2",
            "workers.max_attempts=1000",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it from its accept.
        let _ = TcpStream::connect(self.address);
    }
}

/// One request. A sender that dies in the middle of it has sent nothing.
fn serve(socket: TcpStream, notes: &Mutex<Vec<Received>>, answer: &(dyn Fn(usize) -> u16 + Send + Sync)) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let method = lines.first()?.split(' ').next()?.to_owned();
    let headers: BTreeMap<String, String> =
        lines.iter().filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let answered = {
        let mut notes = notes.lock().expect("lock");
        let answered = answer(notes.len());
        notes.push(Received { method, headers, body, answered });
        answered
    };
    // 0: hangs up without a word. 1: says nothing until the other side hangs up.
    if answered == 1 {
        reader.read_to_end(&mut Vec::new()).ok()?;
    } else if answered > 1 {
        write!(&socket, "HTTP/1.1 {answered} X\r\ncontent-length: 0\r\n\r\n").ok()?;
    }
    Some(())
}

fn start(dir: &std::path::Path, receiver: &Receiver) -> Server {
    let settings = receiver.settings();
    Server::start_in(dir, &settings.iter().map(String::as_str).collect::<Vec<_>>())
}

fn job(receiver: &Receiver, source: &str) -> Value {
    json!({ "language": "bash", "source_code": source, "callback_url": receiver.url() })
}

fn delivery(server: &Server, id: &str) -> Value {
    let answer = server.get(&format!("/api/v1/jobs/{id}/deliveries"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["deliveries"][0].clone()
}

fn wait_for_delivery(server: &Server, id: &str) -> Value {
    eventually(&format!("the callback of {id} is delivered"), || {
        Some(delivery(server, id)).filter(|delivery| delivery["status"] == "delivered")
    })
}

#[test]
fn a_callback_survives_a_kill_between_the_result_and_its_delivery() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let receiver = Receiver::start(move |n| match gate.load(Ordering::SeqCst) {
        true => 200,
        false => [503, 0][n % 2],
    });
    let server = start(dir.path(), &receiver);
    let id = text(&server.judge(&job(&receiver, "echo hello")), "id");
    eventually("the receiver has refused it twice", || (receiver.received().len() >= 2).then_some(()));
    server.kill();
    let before = receiver.received().len();
    open.store(true, Ordering::SeqCst);
    let server = start(dir.path(), &receiver);
    let delivered = wait_for_delivery(&server, &id);
    let received = receiver.received();
    assert!(received.len() > before, "it was delivered after the restart");
    assert_eq!(received.iter().filter(|request| request.answered == 200).count(), 1);
    for request in &received {
        assert_eq!(request.headers["webhook-id"], id);
        assert_eq!(request.body, received[0].body);
    }
    let body: Value = serde_json::from_slice(&received[0].body).expect("JSON");
    assert_eq!((&body["type"], &body["data"]), (&json!("job.completed"), &server.job(&id)));
    // The attempts of before the kill are in the log, but perhaps the one that it hit.
    let attempts = delivered["attempts"].as_array().expect("a log").len();
    assert!((received.len() - 1..=received.len()).contains(&attempts), "{attempts} of {}", received.len());
}

#[test]
fn a_server_that_stops_does_not_wait_for_a_receiver_and_tells_it_later() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start(|n| if n == 0 { 1 } else { 200 });
    let mut server = start(dir.path(), &receiver);
    let id = text(&server.judge(&job(&receiver, "echo hello")), "id");
    eventually("the receiver is called", || (!receiver.received().is_empty()).then_some(()));
    let began = Instant::now();
    assert!(server.stop().success(), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(15), "it waited {:?}", began.elapsed());
    let server = start(dir.path(), &receiver);
    wait_for_delivery(&server, &id);
    assert!(receiver.received().iter().all(|request| request.headers["webhook-id"] == id));
}

#[test]
fn no_callback_is_lost_however_often_the_server_is_killed() {
    let _turn = alone();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // One in three arrives, the others fail in each way.
    let receiver = Receiver::start(|n| [200, 500, 0][n % 3]);
    let mut dice = Dice::new("callbacks");
    let mut acknowledged = BTreeSet::new();
    let mut rounds = 0;
    while acknowledged.len() < 100 {
        let server = start(dir.path(), &receiver);
        let delay = Duration::from_millis(dice.below(250));
        std::thread::scope(|scope| {
            let submitting = scope.spawn(|| submit(&server, &receiver));
            // The moment of death is what is random here; nothing is waited for.
            std::thread::sleep(delay);
            server.signal(Signal::KILL);
            acknowledged.extend(submitting.join().expect("the submitter ends"));
        });
        server.kill();
        rounds += 1;
        assert!(rounds < 1000, "after {rounds} rounds only {} jobs were acknowledged", acknowledged.len());
    }
    let arrived = |received: &[Received]| -> BTreeSet<String> {
        let good = received.iter().filter(|request| request.answered == 200);
        good.map(|request| request.headers["webhook-id"].clone()).collect()
    };
    let before = receiver.received();
    let early = acknowledged.intersection(&arrived(&before)).count();
    println!("{} jobs in {rounds} rounds, {early} of them told before the last start", acknowledged.len());
    assert!(early < acknowledged.len(), "nothing was left to be delivered: the test tests nothing");
    let server = start(dir.path(), &receiver);
    for id in &acknowledged {
        wait_for_delivery(&server, id);
    }
    let received = receiver.received();
    let told = arrived(&received);
    let missing: Vec<&String> = acknowledged.difference(&told).collect();
    assert!(missing.is_empty(), "said to be delivered, and nobody got it: {missing:?}");
    for request in &received {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!(body["data"]["id"], request.headers["webhook-id"]);
        assert_eq!(body["data"]["stdout"], "told\n");
    }
    eventually("nothing is left to be delivered", || {
        let metrics = server.get("/metrics").body;
        metrics.as_str().expect("text").contains("gavel_deliveries_pending 0").then_some(())
    });
}

/// Submits until the server is gone; returns what it acknowledged.
fn submit(server: &Server, receiver: &Receiver) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..10 {
        let Some(answer) = server.try_post("/api/v1/jobs", &job(receiver, "echo told")) else { break };
        assert_eq!(answer.status, 201, "{}", answer.body);
        ids.push(text(&answer.body, "id"));
    }
    ids
}

/// The code that the documentation shows to receivers, in this language.
fn documented(fence: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api/v1.md");
    let document = std::fs::read_to_string(path).expect("docs/api/v1.md");
    let (_, section) = document.split_once("## Callbacks").expect("a section about callbacks");
    let (_, rest) = section.split_once(&format!("```{fence}\n")).expect("an example");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_documented_verification_accepts_real_callbacks_only() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start(|_| 204);
    let server = start(dir.path(), &receiver);
    let id = text(&server.judge(&job(&receiver, "echo hello")), "id");
    wait_for_delivery(&server, &id);
    let real = receiver.received().remove(0);
    let programs = [
        (
            "python3",
            documented("python"),
            "import json, sys\nfor line in sys.stdin:\n    case = json.loads(line)\n    \
             print(str(verify(case['secret'], case['headers'], base64.b64decode(case['body']))).lower())\n",
        ),
        (
            "javascript",
            documented("js"),
            "for (const line of require('fs').readFileSync(0, 'utf8').trim().split('\\n')) {\n  \
             const c = JSON.parse(line);\n  \
             console.log(verify(c.secret, c.headers, Buffer.from(c.body, 'base64')));\n}\n",
        ),
    ];
    let case = |secret: &str, change: &dyn Fn(&mut Received)| {
        let mut changed = real.clone();
        change(&mut changed);
        json!({ "secret": secret, "headers": changed.headers, "body": STANDARD.encode(&changed.body) }).to_string()
    };
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let set = |name: &'static str, value: &'static str| {
        move |changed: &mut Received| _ = changed.headers.insert(name.to_owned(), value.to_owned())
    };
    let cases = [
        (case(SECRET, &|_| ()), true),
        (case(other, &|_| ()), false),
        (case(SECRET, &|changed| changed.body.push(b' ')), false),
        (case(SECRET, &set("webhook-id", "another")), false),
        (case(SECRET, &set("webhook-timestamp", "1600000000")), false),
        (case(SECRET, &set("webhook-signature", "v1,AAAA")), false),
    ];
    let stdin: String = cases.iter().map(|(case, _)| format!("{case}\n")).collect();
    let expected: String = cases.iter().map(|(_, good)| format!("{good}\n")).collect();
    for (language, example, driver) in programs {
        let job = json!({ "language": language, "source_code": example + "\n" + driver, "stdin": stdin });
        let done = server.judge(&job);
        assert_eq!(text(&done, "stdout"), expected, "{language}: {done:#}");
    }
}

/// Whatever became of a submission, and however it was sent, Judge0's receivers get the same attributes, as base64.
#[test]
fn submissions_of_judge0_are_told_as_judge0_tells_them() {
    let _turn = among_others();
    let receiver = Receiver::start(|_| 200);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = start(dir.path(), &receiver);
    // Bash and C.
    let programs = [(46, "echo out; echo err >&2", 3), (46, "exit 3", 11), (50, "int main(void) { return x; }", 6)];
    let mut wanted = BTreeMap::new();
    for (language, source, status) in programs {
        let body = json!({ "language_id": language, "source_code": source, "callback_url": receiver.url() });
        let answer = server.post("/submissions", &body);
        assert_eq!(answer.status, 201, "{}", answer.body);
        wanted.insert(text(&answer.body, "token"), status);
    }
    eventually("all callbacks came", || (receiver.received().len() == wanted.len()).then_some(()));
    for call in receiver.received() {
        assert_eq!((call.method.as_str(), call.headers["content-type"].as_str()), ("PUT", "application/json"));
        let body: Value = serde_json::from_slice(&call.body).expect("JSON");
        let token = text(&body, "token");
        assert_eq!(body["status"]["id"], json!(wanted[&token]), "{body:#}");
        assert_eq!(body, server.get(&format!("/submissions/{token}?base64_encoded=true")).body);
        if wanted[&token] == 3 {
            assert_eq!((text(&body, "stdout"), text(&body, "stderr")), ("b3V0Cg==\n".into(), "ZXJyCg==\n".into()));
        }
    }
}
