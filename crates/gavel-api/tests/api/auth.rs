//! Tokens: what each may do, whose jobs it sees, how much it may have.

use crate::client::{Answer, Call};
use crate::server::{Options, Server, eventually, job};
use gavel_api::auth::{self, Required};
use gavel_api::{AuthOptions, HttpOptions, Origins};
use gavel_core::Timestamp;
use gavel_store::faulty::Call as StoreCall;
use gavel_store::{Quota, Rate, Scopes, Store, StoreError, Token};
use serde_json::json;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// A secret that is told from others by its name.
fn secret(name: &str) -> String {
    auth::secret(blake3_24(name))
}

fn blake3_24(name: &str) -> [u8; 24] {
    let mut random = [0; 24];
    random.copy_from_slice(&auth::hash(name)[..24]);
    random
}

fn token(name: &str, scopes: &str) -> Token {
    Token {
        id: uuid::Uuid::now_v7(),
        name: name.to_owned(),
        owner: name.to_owned(),
        hash: auth::hash(&secret(name)),
        scopes: scopes.parse().unwrap(),
        rate: None,
        quota: Quota::default(),
        created_at: now(),
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}

async fn server(tokens: &[Token]) -> Server {
    with(tokens, Options { auth: Some(AuthOptions::default()), ..Options::default() }).await
}

async fn with(tokens: &[Token], options: Options) -> Server {
    let server = Server::with(options).await;
    for token in tokens {
        server.store.create_token(token.clone()).await.unwrap();
    }
    // It would look by itself soon.
    server.auth.as_ref().unwrap().refresh().await.unwrap();
    server
}

/// The tokens were looked at since this was called.
async fn looked(server: &Server) {
    let looks = || server.store.calls(StoreCall::TokenChanges);
    let before = looks();
    eventually(async || looks() > before + 1).await;
}

fn bearer(call: Call, name: &str) -> Call {
    call.header("authorization", &format!("Bearer {}", secret(name)))
}

async fn submit(server: &Server, name: &str, source: &str) -> Answer {
    bearer(server.post("/api/v1/jobs"), name).json(job(source, "").to_string()).send().await
}

async fn submitted(server: &Server, name: &str, source: &str) -> String {
    let answer = submit(server, name, source).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn without_tokens_everybody_is_the_operator_and_with_the_first_one_nobody_is() {
    let server = Server::with(Options { auth: Some(AuthOptions::default()), ..Options::default() }).await;
    let id = server.submit(job("print(1)", "")).await;
    let junk = server.get("/api/v1/jobs").header("x-auth-token", "junk").send().await;
    assert_eq!(junk.status, 200, "what a gateway adds does not matter");
    server.store.create_token(token("a", "submit,read")).await.unwrap();
    eventually(async || server.get("/api/v1/jobs").send().await.status == 401).await;
    // Nobody's jobs are for operators only.
    assert_eq!(bearer(server.get(&format!("/api/v1/jobs/{id}")), "a").send().await.status, 404);
    // Were the last token the end of all questions, revoking it would open the server.
    server.store.revoke_token("a".into(), now()).await.unwrap();
    eventually(async || bearer(server.get("/api/v1/jobs"), "a").send().await.status == 401).await;
    assert_eq!(server.get("/api/v1/jobs").send().await.status, 401);
}

#[tokio::test]
async fn each_scope_opens_its_routes_and_no_others() {
    let tokens =
        [token("submit", "submit"), token("read", "read"), token("both", "submit,read"), token("admin", "admin")];
    let server = server(&tokens).await;
    let unknown = "/api/v1/jobs/01890000-0000-7000-8000-000000000000";
    let cancel = format!("{unknown}/cancel");
    let events = format!("{unknown}/events");
    // Per route: what no token, submit, read, both and admin are answered.
    let table: &[(&str, &str, [u16; 5])] = &[
        ("GET", "/healthz", [200, 200, 200, 200, 200]),
        ("HEAD", "/healthz", [200, 200, 200, 200, 200]),
        ("GET", "/readyz", [200, 200, 200, 200, 200]),
        ("GET", "/openapi.json", [200, 200, 200, 200, 200]),
        ("GET", "/docs", [200, 200, 200, 200, 200]),
        ("GET", "/docs/index.css", [200, 200, 200, 200, 200]),
        ("GET", "/nowhere", [404, 404, 404, 404, 404]),
        ("GET", "/metrics", [401, 403, 403, 403, 200]),
        ("GET", "/api/v1/languages", [401, 200, 200, 200, 200]),
        ("GET", "/api/v1/languages/python3", [401, 200, 200, 200, 200]),
        ("GET", "/api/v1/workers", [401, 403, 403, 403, 200]),
        ("GET", "/api/v1/stats", [401, 403, 403, 403, 200]),
        ("GET", "/api/v1/jobs", [401, 403, 200, 200, 200]),
        ("GET", unknown, [401, 403, 404, 404, 404]),
        ("HEAD", unknown, [401, 403, 404, 404, 404]),
        ("GET", &events, [401, 403, 404, 404, 404]),
        ("POST", "/api/v1/jobs", [401, 415, 403, 415, 415]),
        ("POST", "/api/v1/jobs/batch", [401, 415, 403, 415, 415]),
        ("POST", "/api/v1/jobs/stream", [401, 415, 403, 415, 415]),
        ("POST", &cancel, [401, 404, 403, 404, 404]),
        ("DELETE", unknown, [401, 404, 403, 404, 404]),
        ("PUT", "/api/v1/jobs", [401, 403, 403, 403, 405]),
    ];
    for (method, path, expected) in table {
        let names = [None, Some("submit"), Some("read"), Some("both"), Some("admin")];
        for (name, expected) in names.into_iter().zip(expected) {
            let call = server.call(method, path);
            let answer = name.map_or(server.call(method, path), |name| bearer(call, name)).send().await;
            assert_eq!(answer.status, *expected, "{method} {path} {name:?}: {}", answer.text());
            if *method == "HEAD" || !matches!(expected, 401 | 403) {
                continue;
            }
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let challenge = answer.header("www-authenticate");
            assert!(challenge.starts_with("Bearer realm=\"gavel\""), "{challenge}");
            assert_eq!(challenge.contains("insufficient_scope"), *expected == 403, "{challenge}");
        }
    }
}

#[tokio::test]
async fn a_token_sees_its_own_jobs_only_and_an_admin_sees_all() {
    let server = server(&[token("ada", "submit,read"), token("bob", "submit,read"), token("root", "admin")]).await;
    let of_ada = submitted(&server, "ada", "hold").await;
    let of_bob = submitted(&server, "bob", "print(1)").await;
    let path = format!("/api/v1/jobs/{of_ada}");
    let ids = async |name: &str| {
        let listed = bearer(server.get("/api/v1/jobs"), name).send().await.json();
        let jobs = listed["jobs"].as_array().unwrap().iter();
        jobs.map(|job| job["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("ada").await, std::slice::from_ref(&of_ada));
    assert_eq!(ids("bob").await, std::slice::from_ref(&of_bob));
    assert_eq!(ids("root").await, [of_bob, of_ada.clone()]);
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}?wait=true&timeout_ms=0")),
        ("GET", format!("{path}/events")),
        ("POST", format!("{path}/cancel")),
        ("DELETE", path.clone()),
    ] {
        let answer = bearer(server.call(method, &path), "bob").send().await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    assert_eq!(bearer(server.get(&path), "ada").send().await.json()["id"], of_ada.as_str());
    assert_eq!(bearer(server.get(&path), "root").send().await.status, 200);
    // A key belongs to its owner: bob's is another one.
    let keyed = async |name: &str| {
        let call = bearer(server.post("/api/v1/jobs"), name).header("idempotency-key", "k");
        let answer = call.json(job("print(1)", "").to_string()).send().await;
        (answer.status.as_u16(), answer.json()["id"].as_str().unwrap().to_owned())
    };
    let (first, other, again) = (keyed("ada").await, keyed("bob").await, keyed("ada").await);
    assert_eq!((first.0, other.0, again.0), (201, 201, 200));
    assert!(first.1 == again.1 && first.1 != other.1);
    // An operator stops what others started.
    let cancelled = bearer(server.post(&format!("{path}/cancel")), "root").send().await;
    assert!([200, 202].contains(&cancelled.status.as_u16()), "{}", cancelled.text());
    server.hold.add_permits(1);
}

#[tokio::test]
async fn a_revoked_or_expired_token_is_refused_within_seconds() {
    let soon = now().plus(Duration::from_secs(3));
    let server = server(&[
        token("a", "submit,read"),
        token("b", "submit,read"),
        Token { expires_at: Some(soon), ..token("short", "read") },
    ])
    .await;
    let status = async |name: &str| bearer(server.get("/api/v1/jobs"), name).send().await.status.as_u16();
    assert_eq!((status("a").await, status("b").await), (200, 200));
    eventually(async || status("short").await == 401).await;
    let refused = bearer(server.get("/api/v1/jobs"), "short").send().await;
    assert!(refused.header("www-authenticate").contains("has expired"), "{}", refused.header("www-authenticate"));

    let revoked = server.store.revoke_token("a".into(), now()).await.unwrap();
    assert_eq!(revoked.map(|token| token.name).as_deref(), Some("a"));
    eventually(async || status("a").await == 401).await;
    assert_eq!(status("b").await, 200, "others go on");
    // While the store is away, nobody who was known is refused.
    server.store.fail(StoreCall::TokenChanges, StoreError::Full);
    looked(&server).await;
    assert_eq!((status("a").await, status("b").await), (401, 200));
}

#[tokio::test]
async fn a_stream_that_outlives_its_token_takes_no_more_jobs() {
    let server = server(&[token("a", "submit,read")]).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<String>(4);
    let mut stream = crate::client::streamed(server.address, "/api/v1/jobs/stream", &secret("a"), receiver).await;
    sender.send("{\"language\":\"python3\",\"source_code\":\"x\"}\n".into()).await.unwrap();
    let first = stream.until("\n").await.unwrap();
    assert!(first.contains("\"status\":\"completed\""), "{first}");
    server.store.revoke_token("a".into(), now()).await.unwrap();
    eventually(async || bearer(server.get("/api/v1/jobs"), "a").send().await.status == 401).await;
    sender.send("{\"language\":\"python3\",\"source_code\":\"x\"}\n".into()).await.unwrap();
    let second = stream.until("\n").await.unwrap();
    assert!(second.contains("urn:gavel:problem:unauthenticated"), "{second}");
}

#[tokio::test]
async fn a_token_may_come_in_any_of_its_forms_and_not_in_halves() {
    let server = server(&[token("a", "submit,read"), token("root", "admin")]).await;
    let (a, wrong) = (secret("a"), secret("nobody"));
    let good = [
        vec![("authorization", format!("Bearer {a}"))],
        vec![("authorization", format!("bEaReR   {a} "))],
        vec![("x-auth-token", a.clone())],
        // What a gateway puts into Authorization is the gateway's business.
        vec![("x-auth-token", a.clone()), ("authorization", "Bearer of-the-gateway".to_owned())],
        vec![("x-auth-token", a.clone()), ("x-auth-user", wrong.clone())],
        vec![("x-auth-token", String::new()), ("authorization", format!("Bearer {a}"))],
    ];
    for headers in good {
        let call = headers.iter().fold(server.get("/api/v1/jobs"), |call, (name, value)| call.header(name, value));
        let answer = call.send().await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
    }
    let bad = [
        vec![("authorization", wrong.clone())],
        vec![("authorization", a.clone())],
        vec![("authorization", format!("Basic {a}"))],
        vec![("authorization", format!("Bearer {}", &a[..a.len() - 1]))],
        vec![("authorization", format!("Bearer {a}x"))],
        vec![("authorization", "Bearer ".to_owned())],
        vec![("authorization", format!("Bearer {}", "x".repeat(5000)))],
        vec![("authorization", format!("Bearer {a}")), ("authorization", format!("Bearer {a}"))],
        vec![("x-auth-token", String::new()), ("authorization", format!("Basic {a}"))],
        vec![("x-auth-user", a.clone())],
        vec![("x-auth-token", a.clone()), ("x-auth-token", a.clone())],
    ];
    for headers in bad {
        let call = headers.iter().fold(server.get("/api/v1/jobs"), |call, (name, value)| call.header(name, value));
        assert_eq!(call.send().await.status, 401, "{headers:?}");
    }
    // In the query it is taken out, or the strict routes would refuse a parameter that they do not know.
    let answer = server.get(&format!("/api/v1/jobs?limit=1&X-Auth-Token={a}")).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.get(&format!("/api/v1/jobs?X-Auth-Token={a}&limi=1")).send().await.status, 422);
    assert_eq!(server.get(&format!("/api/v1/jobs?x-auth-token={a}")).send().await.status, 401);
    // Judge0's second level.
    let stats =
        |user: String| server.get("/api/v1/stats").header("x-auth-token", &secret("a")).header("x-auth-user", &user);
    assert_eq!(stats(secret("root")).send().await.status, 200);
    assert_eq!(stats(secret("a")).send().await.status, 403);
    assert_eq!(stats(wrong).send().await.status, 403);
}

#[tokio::test]
async fn a_rate_is_kept_and_told_when_it_ends() {
    let some = |n| NonZeroU32::new(n).unwrap();
    let rate = Rate { per_second: some(1), burst: some(3) };
    let server = server(&[token("free", "read"), Token { rate: Some(rate), ..token("slow", "read") }]).await;
    let ask = async || bearer(server.get("/api/v1/languages"), "slow").send().await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(ask().await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = ask().await;
    assert_eq!(refused.header("retry-after"), "1", "{}", refused.text());
    assert_eq!(refused.json()["type"], "urn:gavel:problem:rate_limited");
    // Another token comes and goes: what this one has used is not forgotten.
    server.store.create_token(token("new", "read")).await.unwrap();
    eventually(async || bearer(server.get("/api/v1/languages"), "new").send().await.status == 200).await;
    let (first, second) = (ask().await.status, ask().await.status);
    assert!(first == 429 || second == 429, "{first} {second}");
    eventually(async || ask().await.status == 200).await;
    for _ in 0..20 {
        assert_eq!(bearer(server.get("/api/v1/languages"), "free").send().await.status, 200, "the rate of another");
    }
}

#[tokio::test]
async fn quotas_hold_across_a_restart_and_say_when_they_end() {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let options = || Options {
        auth: Some(AuthOptions::default()),
        directory: Some(directory.clone()),
        workers: false,
        ..Options::default()
    };
    let two = Token { quota: Quota { concurrent: Some(2), ..Quota::default() }, ..token("two", "submit,read") };
    let three = Token { quota: Quota { jobs_per_day: Some(3), ..Quota::default() }, ..token("three", "submit,read") };
    let mut server = with(&[two, three], options()).await;
    let first = submitted(&server, "two", "x").await;
    submitted(&server, "two", "x").await;
    for _ in 0..3 {
        submitted(&server, "three", "x").await;
    }
    let check = async |server: &Server| {
        let open = submit(server, "two", "x").await;
        assert_eq!((open.status.as_u16(), open.header("retry-after")), (429, "1"), "{}", open.text());
        assert!(open.text().contains("quota concurrent of 2"), "{}", open.text());
        let day = submit(server, "three", "x").await;
        assert_eq!(day.status, 429, "{}", day.text());
        assert!(day.text().contains("quota jobs_per_day of 3") && day.text().contains("T00:00:00"), "{}", day.text());
        let left: u64 = day.header("retry-after").parse().unwrap();
        assert!((1..=86_400).contains(&left), "{left}");
    };
    check(&server).await;
    // Of a batch, what is too much is refused; where all is, the batch is.
    let batch = json!({ "jobs": [job("x", ""), job("x", "")] }).to_string();
    let refused = bearer(server.post("/api/v1/jobs/batch"), "two").json(batch.clone()).send().await;
    assert_eq!(refused.status, 429, "{}", refused.text());

    server.begin_shutdown();
    server.stopped().await;
    server.store.close().await;
    drop(server);
    let server = Server::with(options()).await;
    check(&server).await;
    let cancelled = bearer(server.post(&format!("/api/v1/jobs/{first}/cancel")), "two").send().await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    let partly = bearer(server.post("/api/v1/jobs/batch"), "two").json(batch).send().await;
    assert_eq!(partly.status, 201, "{}", partly.text());
    let jobs = partly.json()["jobs"].clone();
    assert!(jobs[0]["id"].is_string(), "{jobs}");
    assert_eq!(jobs[1]["error"]["type"], "urn:gavel:problem:quota_exceeded", "{jobs}");
    check(&server).await;
}

#[tokio::test]
async fn a_stream_is_slowed_down_by_its_quota_and_not_failed() {
    let quota = Quota { concurrent: Some(2), ..Quota::default() };
    let server = server(&[Token { quota, ..token("a", "submit,read") }]).await;
    let lines: String = (0..10).map(|_| format!("{}\n", job("x", ""))).collect();
    let call = bearer(server.post("/api/v1/jobs/stream"), "a").header("content-type", "application/x-ndjson");
    let answer = call.body(lines).send().await;
    assert_eq!(answer.text().matches("\"status\":\"completed\"").count(), 10, "{}", answer.text());
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_and_nobody_else_is_locked_out() {
    let fixed = vec![("chosen-by-a-person-1".to_owned(), "submit,read".parse::<Scopes>().unwrap())];
    let auth = Some(AuthOptions { fixed, ..AuthOptions::default() });
    let server = with(&[token("a", "read")], Options { auth, ..Options::default() }).await;
    let show = async |secret: &str| server.get("/api/v1/jobs").header("x-auth-token", secret).send().await;
    assert_eq!(show("chosen-by-a-person-1").await.status, 200);
    let mut answers = Vec::new();
    for n in 0..60 {
        answers.push(show(&format!("guess number {n}")).await);
    }
    let limited = answers.iter().filter(|answer| answer.status == 429).count();
    let refused = answers.iter().filter(|answer| answer.status == 401).count();
    assert!(limited >= 40 && refused >= 1 && limited + refused == 60, "{limited} {refused}");
    let last = answers.last().unwrap();
    assert!((1..=60).contains(&last.header("retry-after").parse::<u64>().unwrap()));
    // What could be guessed is kept from this address for now, what cannot is not.
    assert_eq!(show("chosen-by-a-person-1").await.status, 429);
    assert_eq!(show(&secret("a")).await.status, 200);
}

#[tokio::test]
async fn the_configuration_decides_about_tokens_and_metrics() {
    let fixed = vec![("a secret that was configured".to_owned(), Scopes::all())];
    let options = AuthOptions { fixed, open_metrics: true, ..AuthOptions::default() };
    let server = Server::with(Options { auth: Some(options), ..Options::default() }).await;
    assert_eq!(server.get("/metrics").send().await.status, 200);
    assert_eq!(server.get("/api/v1/jobs").send().await.status, 401, "a configured token is a token");
    let call = server.get("/api/v1/stats").header("authorization", "Bearer a secret that was configured");
    assert_eq!(call.send().await.status, 200);
    let always = AuthOptions { required: Required::Always, ..AuthOptions::default() };
    let server = Server::with(Options { auth: Some(always), ..Options::default() }).await;
    assert_eq!(server.get("/api/v1/jobs").send().await.status, 401);
    let never = AuthOptions { required: Required::Never, ..AuthOptions::default() };
    let server = Server::with(Options { auth: Some(never), ..Options::default() }).await;
    server.store.create_token(token("a", "read")).await.unwrap();
    looked(&server).await;
    assert_eq!(server.get("/api/v1/jobs").send().await.status, 200);
}

#[tokio::test]
async fn a_browser_may_ask_before_it_has_a_token_and_read_a_refusal() {
    let origins = Origins::parse(&["*".to_owned()]).unwrap();
    let options = Options {
        auth: Some(AuthOptions { required: Required::Always, ..AuthOptions::default() }),
        http: HttpOptions { origins, ..HttpOptions::default() },
        ..Options::default()
    };
    let server = Server::with(options).await;
    let asked = server
        .call("OPTIONS", "/api/v1/jobs")
        .header("origin", "https://anything.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,x-rapidapi-key")
        .send()
        .await;
    assert_eq!((asked.status.as_u16(), asked.text()), (200, String::new()));
    assert_eq!(asked.header("access-control-allow-origin"), "*");
    assert_eq!(asked.header("access-control-allow-headers"), "authorization,x-rapidapi-key");
    assert_eq!(asked.header("access-control-max-age"), "7200");
    let methods = asked.header("access-control-allow-methods");
    let methods: Vec<&str> = methods.split(',').collect();
    assert_eq!(methods, ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
    assert_eq!(asked.header("access-control-allow-credentials"), "");
    let refused = server.get("/api/v1/jobs").header("origin", "https://anything.example").send().await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-allow-origin")), (401, "*"));
    assert!(refused.header("vary").to_lowercase().contains("origin"), "{}", refused.header("vary"));
}

#[tokio::test]
async fn the_last_use_of_a_token_is_written_down() {
    let server = server(&[token("a", "read"), token("b", "read")]).await;
    let used = async |name: &str| {
        let tokens = server.store.tokens().await.unwrap();
        tokens.into_iter().find(|token| token.name == name).unwrap().last_used_at
    };
    assert_eq!(used("b").await, None);
    let before = now();
    assert_eq!(bearer(server.get("/api/v1/jobs"), "b").send().await.status, 200);
    server.auth.as_ref().unwrap().write_uses().await;
    let at = used("b").await.expect("it was used");
    assert!(at >= before && at <= now(), "{at:?}");
}
