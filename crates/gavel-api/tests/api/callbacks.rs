//! Callbacks, to receivers that are kind, broken and hostile.

use crate::receiver::{Behaviour, Received, Receiver};
use crate::server::{Options, Server, job, problem_fields};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gavel_api::callbacks::{CallbackOptions, CallbackParts, Deliverer, Resolver, Secret};
use gavel_api::{Owner, ServiceOptions, service};
use gavel_core::job::{Callback, CallbackForm};
use gavel_core::{CallbackRules, Draft, JobId, Rules};
use gavel_store::faulty::Call;
use gavel_store::{JobRecord, StoreError};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// Names of tests, and how often they were asked for.
#[derive(Default)]
struct Names {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Names {
    /// Each question gets the next answer; the last one stays.
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let read = |addresses: &&[&str]| addresses.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Self { answers: Mutex::new(answers.iter().map(read).collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        assert!(name.ends_with(".test"), "{name} is asked for");
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        if answer.is_empty() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(answer) }
    }
}

fn secret(key: &[u8]) -> Secret {
    Secret::parse(&format!("whsec_{}", STANDARD.encode(key))).unwrap()
}

fn rules(ports: &[u16], networks: &[&str]) -> CallbackRules {
    CallbackRules { ports: ports.to_vec(), networks: networks.iter().map(|network| network.parse().unwrap()).collect() }
}

/// Loopback receivers, and pauses that a test can wait for.
fn quick(receiver: &Receiver) -> CallbackOptions {
    CallbackOptions {
        node: "test-node".into(),
        rules: rules(&[receiver.address.port()], &["127.0.0.0/8"]),
        secrets: vec![secret(KEY)],
        timeout: Duration::from_secs(5),
        backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(40),
        ..CallbackOptions::default()
    }
}

struct Setup {
    server: Server,
    deliverer: Option<Deliverer>,
}

impl Setup {
    async fn with(options: CallbackOptions) -> Self {
        Self::with_parts(options, |parts| parts).await
    }

    async fn with_parts(options: CallbackOptions, change: impl FnOnce(CallbackParts) -> CallbackParts) -> Self {
        let rules = Rules { callbacks: Some(options.rules.clone()), ..Rules::default() };
        let service = ServiceOptions { rules, ..ServiceOptions::default() };
        let server = Server::with(Options { service, ..Options::default() }).await;
        let parts = CallbackParts {
            store: server.store.clone(),
            queue: server.bell.clone(),
            resolver: Names::new(&[&[]]),
            roots: RootCertStore::empty(),
            judge0: None,
        };
        let deliverer = Deliverer::start(change(parts), options).unwrap();
        Self { server, deliverer: Some(deliverer) }
    }

    async fn submit(&self, source: &str, url: &str) -> String {
        let mut job = job(source, "7\n");
        job["callback_url"] = url.into();
        self.server.submit(job).await
    }

    /// Ends a job that wants this URL called, and waits until the callback has come to this.
    async fn deliver(&self, url: &str, status: &str) -> Value {
        let id = self.submit("print", url).await;
        self.server.delivery(&id, status).await
    }
}

fn errors(delivery: &Value) -> Vec<(Option<u64>, &str)> {
    let attempts = delivery["attempts"].as_array().unwrap();
    attempts.iter().map(|a| (a["status_code"].as_u64(), a["error"].as_str().unwrap_or(""))).collect()
}

/// HMAC-SHA256 as RFC 2104 has it, written down once more so that the server's own is not its own judge.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |byte: u8| (0..64).map(|n| key.get(n).copied().unwrap_or(0) ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

fn signature(key: &[u8], received: &Received) -> String {
    let header = |name: &str| received.headers[name].as_bytes().to_vec();
    let signed = [header("webhook-id"), header("webhook-timestamp"), received.body.clone()].join(&b'.');
    format!("v1,{}", STANDARD.encode(hmac(key, &signed)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_five_times_gets_the_callback_in_the_end() {
    let receiver = Receiver::start(|n| match n {
        0 => Behaviour::Answer(500),
        1 => Behaviour::Close,
        2 => Behaviour::Nonsense,
        3 => Behaviour::AnswerWith(429, "retry-after: 0\r\n".into()),
        4 => Behaviour::Answer(404),
        _ => Behaviour::Answer(204),
    })
    .await;
    let setup = Setup::with(quick(&receiver)).await;
    let id = setup.submit("print", &receiver.url()).await;
    let delivery = setup.server.delivery(&id, "delivered").await;
    let broken = "the answer is not HTTP, or the connection broke off before it";
    let expected = [(Some(500), ""), (None, broken), (None, broken), (Some(429), ""), (Some(404), ""), (Some(204), "")];
    assert_eq!(errors(&delivery), expected);
    assert_eq!((&delivery["id"], &delivery["form"]), (&json!(id), &json!("native")));
    assert_eq!((&delivery["url"], &delivery["next_attempt_at"]), (&json!(receiver.url()), &Value::Null));
    assert!(delivery["completed_at"].is_string() && delivery["created_at"].is_string());

    let job = setup.server.job(&id).await;
    let received = receiver.received();
    assert_eq!(received.len(), 6);
    for request in &received {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/hook?a=b%20c"));
        assert_eq!(request.headers["host"], receiver.address.to_string());
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.headers["user-agent"], concat!("gavel/", env!("CARGO_PKG_VERSION")));
        assert_eq!(request.headers["webhook-id"], id);
        assert_eq!(request.headers["webhook-signature"], signature(KEY, request));
        assert_eq!(request.body, received[0].body, "the same in each attempt");
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["type"], "job.completed");
        assert_eq!(body["timestamp"], job["completed_at"]);
        assert_eq!(body["data"], job, "the job as GET shows it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_end_is_told_and_each_key_signs() {
    let receiver = Receiver::start(|_| Behaviour::Answer(200)).await;
    let options = CallbackOptions { secrets: vec![secret(KEY), secret(&[9; 24])], ..quick(&receiver) };
    let setup = Setup::with(options).await;
    for (source, kind) in [("print", "job.completed"), ("fault", "job.failed"), ("hold", "job.cancelled")] {
        let id = setup.submit(source, &receiver.url()).await;
        let none = setup.server.get(&format!("/api/v1/jobs/{id}/deliveries")).send().await;
        if source == "hold" {
            assert_eq!(none.json(), json!({"deliveries": []}), "it has not ended");
            setup.server.reach(&id, "running").await;
            setup.server.post(&format!("/api/v1/jobs/{id}/cancel")).send().await;
        }
        setup.server.delivery(&id, "delivered").await;
        let request = receiver.received().pop().unwrap();
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!((&body["type"], &body["data"]["id"]), (&json!(kind), &json!(id)));
        let both = format!("{} {}", signature(KEY, &request), signature(&[9; 24], &request));
        assert_eq!(request.headers["webhook-signature"], both);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_costs_the_time_limit_and_no_more() {
    let receiver = Receiver::start(|n| if n == 0 { Behaviour::Hang } else { Behaviour::Answer(200) }).await;
    let options = CallbackOptions { timeout: Duration::from_secs(1), ..quick(&receiver) };
    let delivery = Setup::with(options).await.deliver(&receiver.url(), "delivered").await;
    assert_eq!(errors(&delivery), [(None, "no answer in time"), (Some(200), "")]);
    let took = delivery["attempts"][0]["duration_ms"].as_f64().unwrap();
    assert!((1000.0..10_000.0).contains(&took), "{took}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let receiver = Receiver::start(|n| if n == 0 { Behaviour::EndlessHead } else { Behaviour::Endless }).await;
    let began = Instant::now();
    let options = CallbackOptions { timeout: Duration::from_secs(20), ..quick(&receiver) };
    let delivery = Setup::with(options).await.deliver(&receiver.url(), "delivered").await;
    let broken = "the answer is not HTTP, or the connection broke off before it";
    assert_eq!(errors(&delivery), [(None, broken), (Some(200), "")]);
    assert!(began.elapsed() < Duration::from_secs(20), "it was read until the time was up");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_not_followed() {
    let inside = Receiver::start(|_| Behaviour::Answer(200)).await;
    let location = format!("location: http://{}/secret\r\n", inside.address);
    let statuses = [301, 302, 303, 307, 308];
    let receiver = Receiver::start(move |n| Behaviour::AnswerWith(statuses[n], location.clone())).await;
    let ports = [receiver.address.port(), inside.address.port()];
    let options = CallbackOptions { max_attempts: 5, rules: rules(&ports, &["127.0.0.0/8"]), ..quick(&receiver) };
    let delivery = Setup::with(options).await.deliver(&receiver.url(), "given_up").await;
    let expected = statuses.map(|status| (Some(u64::from(status)), "redirects are not followed"));
    assert_eq!(errors(&delivery), expected);
    assert_eq!(inside.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_inside_is_not_called() {
    let inside = Receiver::start(|_| Behaviour::Answer(200)).await;
    let url = format!("http://hook.test:{}/", inside.address.port());
    let addresses: [&[&str]; 7] = [
        &["127.0.0.1"],
        &["169.254.169.254"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["10.0.0.1"],
        // One is enough, wherever it stands.
        &["8.8.8.8", "127.0.0.1"],
        // A name that nobody knows looks the same from outside.
        &[],
    ];
    for found in addresses {
        let options =
            CallbackOptions { rules: rules(&[inside.address.port()], &[]), max_attempts: 2, ..quick(&inside) };
        let names = Names::new(&[found]);
        let resolver = names.clone();
        let setup = Setup::with_parts(options, |parts| CallbackParts { resolver, ..parts }).await;
        let delivery = setup.deliver(&url, "given_up").await;
        let refused = (None, "the host has no address that this server may call");
        assert_eq!(errors(&delivery), [refused, refused], "{found:?}");
        assert_eq!(names.asked(), 2);
    }
    assert_eq!(inside.connections(), 0, "somebody was connected to");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_checked_is_what_is_connected_to() {
    // The name leads to an allowed address first and inside from then on.
    let outside = Receiver::at("127.0.0.2:0", None, |_| Behaviour::Answer(503)).await;
    let port = outside.address.port();
    let inside = Receiver::at(&format!("127.0.0.1:{port}"), None, |_| Behaviour::Answer(200)).await;
    let options = CallbackOptions { rules: rules(&[port], &["127.0.0.2/32"]), max_attempts: 3, ..quick(&outside) };
    let names = Names::new(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let resolver = names.clone();
    let setup = Setup::with_parts(options, |parts| CallbackParts { resolver, ..parts }).await;
    let delivery = setup.deliver(&format!("http://hook.test:{port}/"), "given_up").await;
    let refused = (None, "the host has no address that this server may call");
    assert_eq!(errors(&delivery), [(Some(503), ""), refused, refused]);
    assert_eq!((outside.connections(), inside.connections()), (1, 0));
    assert_eq!(names.asked(), 3, "once for each attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_may_end_it_and_so_does_the_last_attempt() {
    let receiver = Receiver::start(|n| Behaviour::Answer(if n == 1 { 410 } else { 500 })).await;
    let options = CallbackOptions { max_attempts: 3, ..quick(&receiver) };
    let setup = Setup::with(options).await;
    let gone = setup.deliver(&receiver.url(), "given_up").await;
    assert_eq!(errors(&gone), [(Some(500), ""), (Some(410), "the receiver wants no more callbacks")]);
    let failed = setup.deliver(&receiver.url(), "given_up").await;
    assert_eq!(errors(&failed), [(Some(500), ""); 3]);
    assert_eq!(receiver.received().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_may_ask_for_time() {
    let receiver = Receiver::start(|n| match n {
        0 => Behaviour::AnswerWith(503, "retry-after: 86400\r\n".into()),
        _ => Behaviour::Answer(200),
    })
    .await;
    let options = CallbackOptions { max_backoff: Duration::from_millis(700), ..quick(&receiver) };
    let began = Instant::now();
    let delivery = Setup::with(options).await.deliver(&receiver.url(), "delivered").await;
    assert_eq!(errors(&delivery), [(Some(503), ""), (Some(200), "")]);
    assert!(began.elapsed() >= Duration::from_millis(700), "it was called again after {:?}", began.elapsed());
}

fn certificate(name: &str) -> (TlsAcceptor, RootCertStore) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), roots)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_must_be_for_the_name() {
    for (certified, good) in [("hook.test", true), ("other.test", false)] {
        let (tls, roots) = certificate(certified);
        let receiver = Receiver::at("127.0.0.1:0", Some(tls), |_| Behaviour::Answer(200)).await;
        let options = CallbackOptions { max_attempts: 1, ..quick(&receiver) };
        let resolver = Names::new(&[&["127.0.0.1"]]);
        let setup = Setup::with_parts(options, |parts| CallbackParts { resolver, roots, ..parts }).await;
        let url = format!("https://hook.test:{}/", receiver.address.port());
        let delivery = setup.deliver(&url, if good { "delivered" } else { "given_up" }).await;
        let expected = match good {
            true => (Some(200), ""),
            false => (None, "no secure connection to the host: is its certificate valid for its name?"),
        };
        assert_eq!(errors(&delivery), [expected], "a certificate for {certified}");
        assert_eq!(receiver.received().len(), usize::from(good), "nothing is sent to somebody else");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_host_gets_few_calls_at_once_and_holds_up_nobody() {
    let slow = Receiver::start(|_| Behaviour::Gated).await;
    let other = Receiver::start(|_| Behaviour::Answer(200)).await;
    let ports = [slow.address.port(), other.address.port()];
    let options = CallbackOptions {
        rules: rules(&ports, &["127.0.0.0/8"]),
        concurrency: 4,
        per_host: 2,
        timeout: Duration::from_secs(20),
        ..quick(&slow)
    };
    let setup = Setup::with(options).await;
    let mut waiting = Vec::new();
    for _ in 0..12 {
        waiting.push(setup.submit("print", &slow.url()).await);
    }
    for _ in 0..12 {
        setup.deliver(&other.url(), "delivered").await;
    }
    assert_eq!(slow.at_once(), 2);
    slow.open_gate(12);
    for id in waiting {
        setup.server.delivery(&id, "delivered").await;
    }
    assert_eq!((slow.most_at_once(), slow.received().len()), (2, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ring_and_a_broken_store_cost_time_only() {
    let receiver = Receiver::start(|_| Behaviour::Answer(200)).await;
    let options = CallbackOptions { poll: Duration::from_millis(50), ..quick(&receiver) };
    let setup = Setup::with(options).await;
    setup.server.bell.set_mute(true);
    setup.deliver(&receiver.url(), "delivered").await;
    assert_eq!(receiver.received().len(), 1);

    let broken = || StoreError::Unavailable("on purpose".into());
    setup.server.store.fail_nth(Call::ClaimDeliveries, 1, broken());
    setup.server.store.fail_nth(Call::SettleDelivery, 1, broken()).lose_answer_nth(Call::SettleDelivery, 3, broken());
    for _ in 0..3 {
        let delivery = setup.deliver(&receiver.url(), "delivered").await;
        assert_eq!(errors(&delivery), [(Some(200), "")]);
    }
    assert_eq!(receiver.received().len(), 4, "nobody was called twice");
    assert_eq!(setup.server.store.calls(Call::SettleDelivery), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_gives_back_what_is_under_way() {
    let receiver = Receiver::start(|_| Behaviour::Hang).await;
    let mut setup = Setup::with(CallbackOptions { timeout: Duration::from_secs(60), ..quick(&receiver) }).await;
    let id = setup.submit("print", &receiver.url()).await;
    while receiver.received().is_empty() {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    setup.deliverer.take().unwrap().drain(Duration::from_millis(50)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "it waits for the receiver");
    let delivery = setup.server.delivery(&id, "pending").await;
    assert!(delivery["next_attempt_at"].is_string(), "it is not leased any more: {delivery}");
    assert_eq!(delivery["attempts"], json!([]), "an attempt that was broken off does not count");
}

#[tokio::test(flavor = "multi_thread")]
async fn judge0_is_told_with_a_put() {
    let receiver = Receiver::start(|n| Behaviour::Answer(if n == 0 { 500 } else { 200 })).await;
    let body = |record: &JobRecord| format!("{{\"token\":\"{}\"}}", record.id).into_bytes();
    let setup =
        Setup::with_parts(quick(&receiver), |parts| CallbackParts { judge0: Some(Arc::new(body)), ..parts }).await;
    let draft = Draft {
        language: "python3".into(),
        source: b"print".to_vec(),
        callback: Some(Callback { url: receiver.url(), form: CallbackForm::Judge0 }),
        ..Draft::default()
    };
    let service::Submitted::New(receipt) = setup.server.service.submit(&Owner::operator(), draft, None).await.unwrap()
    else {
        panic!("it is new");
    };
    let delivery = setup.server.delivery(&receipt.id.to_string(), "delivered").await;
    assert_eq!(delivery["form"], "judge0");
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    for request in received {
        assert_eq!((request.method.as_str(), &request.body), ("PUT", &body_of(receipt.id)));
        assert_eq!(request.headers["content-type"], "application/json");
        assert!(request.headers.keys().all(|name| !name.starts_with("webhook-")), "{:?}", request.headers);
    }
}

fn body_of(id: JobId) -> Vec<u8> {
    format!("{{\"token\":\"{id}\"}}").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_are_too_large_for_a_receiver_are_left_out() {
    let receiver = Receiver::start(|_| Behaviour::Answer(200)).await;
    let setup = Setup::with(quick(&receiver)).await;
    for (size, omitted) in [(1 << 20, false), (5 << 20, true)] {
        let mut job = job("print", "");
        job["stdin"] = "x".repeat(size).into();
        job["callback_url"] = receiver.url().into();
        let id = setup.server.submit(job).await;
        setup.server.delivery(&id, "delivered").await;
        let body: Value = serde_json::from_slice(&receiver.received().pop().unwrap().body).unwrap();
        assert_eq!(body["data"]["output_omitted"] == true, omitted, "{size}");
        assert_eq!(body["data"]["stdout"].is_string(), !omitted, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_called_is_refused_at_the_door() {
    let receiver = Receiver::start(|_| Behaviour::Answer(200)).await;
    let setup = Setup::with(CallbackOptions { rules: rules(&[80, 443], &[]), ..quick(&receiver) }).await;
    let refused = async |url: &str| {
        let mut job = job("print", "");
        job["callback_url"] = url.into();
        let answer = setup.server.post("/api/v1/jobs").json(job.to_string()).send().await;
        assert_eq!((answer.status.as_u16(), problem_fields(&answer)), (422, vec!["callback_url".to_owned()]), "{url}");
        answer.text()
    };
    assert!(refused(&receiver.url()).await.contains("port 80 or 443 only"));
    assert!(refused("http://169.254.169.254/latest/meta-data").await.contains("link-local"));
    assert!(refused("gopher://example.org/").await.contains("must begin with http"));
    let unknown = setup.server.get("/api/v1/jobs/00000000-0000-7000-8000-000000000000/deliveries").send().await;
    assert_eq!(unknown.status, 404);
    // A job without a callback has nothing to show.
    let id = setup.server.submit(job("print", "")).await;
    setup.server.reach(&id, "completed").await;
    let none = setup.server.get(&format!("/api/v1/jobs/{id}/deliveries")).send().await;
    assert_eq!((none.status.as_u16(), none.json()), (200, json!({"deliveries": []})));
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_the_deliveries_of_somebody_else() {
    let receiver = Receiver::start(|_| Behaviour::Answer(200)).await;
    let setup = Setup::with(quick(&receiver)).await;
    let [ada, bob] = ["ada", "bob"].map(Owner::named);
    let draft = Draft {
        language: "python3".into(),
        source: b"print".to_vec(),
        callback: Some(Callback { url: receiver.url(), form: CallbackForm::Native }),
        ..Draft::default()
    };
    let service::Submitted::New(receipt) = setup.server.service.submit(&ada, draft, None).await.unwrap() else {
        panic!("it is new");
    };
    setup.server.delivery(&receipt.id.to_string(), "delivered").await;
    let (_, delivery) = setup.server.service.delivery(&ada, receipt.id).await.unwrap();
    assert!(delivery.is_some());
    let refused = setup.server.service.delivery(&bob, receipt.id).await;
    assert!(matches!(refused, Err(gavel_api::ServiceError::UnknownJob)), "{refused:?}");
}
