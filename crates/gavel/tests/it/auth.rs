//! Tokens and TLS, as an operator sets them up and clients use them.

use crate::harness::{Answer, Server, among_others, eventually, gavel, spawn, text};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = gavel(dir);
    command.args(args).arg("--data-dir").arg(dir.join("data"));
    command.output().expect("gavel runs")
}

/// Runs a command that must go well; its stdout.
fn said(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn create(dir: &Path, args: &[&str]) -> String {
    let token = said(dir, &[&["token", "create"], args].concat()).trim().to_owned();
    assert!(token.starts_with("gvl_") && token.len() == 36, "{token}");
    token
}

/// Starts a server that is expected to refuse; returns its exit code and what it said.
fn refused(dir: &Path, settings: &[&str]) -> (Option<i32>, String) {
    let (mut child, ready, log) = spawn(dir, settings);
    let status = eventually("the server has ended", || child.try_wait().expect("a child can be waited for"));
    assert!(!ready.exists(), "it said that it is ready");
    (status.code(), std::fs::read_to_string(log).expect("a log"))
}

fn get(server: &Server, path: &str, token: &str) -> Answer {
    server.get_with(path, &[("authorization", &format!("Bearer {token}"))])
}

#[test]
fn an_address_that_others_reach_is_refused_until_there_is_a_token() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let public = "server.bind=0.0.0.0:0";
    let (code, log) = refused(dir.path(), &[public]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("0.0.0.0:0") && log.contains("gavel token create"), "{log}");
    let (code, log) = refused(dir.path(), &["server.cors_origins=*"]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("server.cors_origins") && log.contains("gavel token create"), "{log}");
    let (code, log) = refused(dir.path(), &[public, "auth.required=false"]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("auth.required"), "{log}");

    let token = create(dir.path(), &["ci"]);
    let mut server = Server::start_in(dir.path(), &[public, "server.cors_origins=*"]);
    server.url = server.url.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(server.get("/api/v1/jobs").status, 401);
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(get(&server, "/api/v1/jobs", &token).status, 200);
    for forgotten in ["tokens travel unencrypted", "server.allowed_hosts"] {
        assert!(server.log().contains(forgotten), "{forgotten}: {}", server.log());
    }
    server.stop();
    // One that was revoked opens nothing, not even for its operator.
    said(dir.path(), &["token", "revoke", "ci"]);
    let (code, log) = refused(dir.path(), &[public]);
    assert_eq!(code, Some(3), "{log}");
    let server = Server::start_in(dir.path(), &[]);
    assert_eq!(server.get("/api/v1/jobs").status, 401, "tokens were made once");
}

#[test]
fn tokens_are_made_and_revoked_beside_a_running_server_and_never_logged() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Server::start_in(dir.path(), &["telemetry.log=trace"]);
    let job = json!({ "language": "bash", "source_code": "echo hi" });
    let before = server.submit(&job);

    let args = ["token", "create", "ci", "--scope", "submit,read", "--owner", "team", "--expires", "30d", "--json"];
    let made: Value = serde_json::from_str(&said(dir.path(), &args)).expect("JSON");
    let ci = text(&made, "token");
    assert_eq!((&made["owner"], &made["scopes"]), (&json!("team"), &json!(["submit", "read"])), "{made}");
    let admin = create(dir.path(), &["root", "--scope", "admin"]);
    let slow = create(dir.path(), &["slow", "--rate", "1", "--burst", "2", "--jobs-per-day", "0", "--concurrent", "3"]);
    eventually("the server asks for a token", || (server.get("/api/v1/jobs").status == 401).then_some(()));
    eventually("the tokens work", || (get(&server, "/api/v1/stats", &admin).status == 200).then_some(()));

    let bearer = format!("Bearer {ci}");
    let answer = server.post_with("/api/v1/jobs?wait=true", &job, &[("authorization", &bearer)]);
    assert_eq!((answer.status, &answer.body["stdout"]), (200, &json!("hi\n")), "{}", answer.body);
    let id = text(&answer.body, "id");
    assert_eq!(get(&server, &format!("/api/v1/jobs/{before}"), &ci).status, 404, "it is nobody's");
    assert_eq!(get(&server, &format!("/api/v1/jobs/{before}"), &admin).status, 200);
    assert_eq!(get(&server, &format!("/api/v1/jobs/{id}"), &admin).status, 200);
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}?X-Auth-Token={ci}")).status, 200);
    assert_eq!(server.get_with(&format!("/api/v1/jobs/{id}"), &[("x-auth-token", &ci)]).status, 200);
    assert_eq!(get(&server, "/api/v1/jobs", "gvl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").status, 401);
    let over = server.post_with("/api/v1/jobs", &job, &[("x-auth-token", &slow)]);
    assert_eq!((over.status, &over.body["type"]), (429, &json!("urn:gavel:problem:quota_exceeded")), "{}", over.body);
    let rates: Vec<u16> = (0..3).map(|_| get(&server, "/api/v1/jobs", &slow).status).collect();
    assert!(rates.contains(&429), "{rates:?}");

    let taken = run(dir.path(), &["token", "create", "ci"]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("ci already"), "{taken:?}");
    let table = said(dir.path(), &["token", "list"]);
    for part in ["ci", "team", "submit,read", "active", "root", "admin", "1/s (2)"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    said(dir.path(), &["token", "revoke", &text(&made, "id")]);
    eventually("the server refuses it", || (get(&server, "/api/v1/jobs", &ci).status == 401).then_some(()));
    assert_eq!(get(&server, "/api/v1/jobs", &admin).status, 200);
    assert!(!said(dir.path(), &["token", "list"]).contains("team"));
    assert!(said(dir.path(), &["token", "list", "--all"]).contains("revoked"));
    assert_eq!(run(dir.path(), &["token", "revoke", "ci"]).status.code(), Some(1));
    // Pasted by mistake: not repeated.
    let pasted = run(dir.path(), &["token", "revoke", &admin]);
    assert!(!String::from_utf8_lossy(&pasted.stderr).contains(&admin), "{pasted:?}");

    server.stop();
    let listed: Value = serde_json::from_str(&said(dir.path(), &["token", "list", "--json"])).expect("JSON");
    let tokens = listed["tokens"].as_array().expect("a list");
    assert!(tokens.iter().all(|token| token["last_used_at"].is_string()), "{listed}");
    assert!(tokens.iter().all(|token| token.get("token").is_none() && token.get("hash").is_none()), "{listed}");
    let log = server.log();
    assert!(log.contains("/api/v1/jobs") && log.contains("a wrong token"), "this log shows requests");
    for secret in [&ci, &admin, &slow, &"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()] {
        assert!(!log.contains(&**secret), "a token is in the log");
    }
    // Nor in the database.
    for file in std::fs::read_dir(dir.path().join("data")).expect("its directory").flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        let held = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(![&ci, &admin, &slow].into_iter().any(|secret| held(secret)), "{}", file.path().display());
    }
}

#[test]
fn what_cannot_be_a_token_is_refused_with_a_reason() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (args, expected) in [
        (&["a b"][..], "1 to 64 letters"),
        (&["01890000-0000-7000-8000-000000000000"], "is no id"),
        (&["x", "--scope", "write"], "use submit, read or admin"),
        (&["x", "--expires", "soon"], "--expires soon"),
        (&["x", "--expires", "0s"], "above 0"),
        (&["x", "--rate", "0"], "--rate"),
        (&["x", "--burst", "5"], "--rate"),
        (&["x", "--owner", "a/b"], "--owner"),
    ] {
        let output = run(dir.path(), &[&["token", "create"], args].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    assert!(said(dir.path(), &["token", "list"]).contains("gavel token create"));
}

#[test]
fn a_token_of_the_configuration_works_and_is_never_shown() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (user, operator) = ("0123456789abcdef-user", "0123456789abcdef-operator");
    let file = format!("[auth]\ntokens = [\"{user}\"]\nadmin_tokens = [\"{operator}\"]\n");
    std::fs::write(dir.path().join("gavel.toml"), file).expect("a file");
    let server = Server::start_in(dir.path(), &["telemetry.log=trace"]);
    assert_eq!(server.get("/api/v1/jobs").status, 401);
    assert_eq!(get(&server, "/api/v1/jobs", user).status, 200);
    assert_eq!(get(&server, "/api/v1/stats", user).status, 403);
    assert_eq!(get(&server, "/api/v1/stats", operator).status, 200);
    let shown = [said(dir.path(), &["config"]), said(dir.path(), &["config", "--json"]), server.log()].concat();
    assert!(!shown.contains("0123456789abcdef") && shown.contains("****"), "{shown}");
    let wrong = gavel(dir.path()).args(["config"]).env("GAVEL_AUTH_TOKENS", "my-short-token").output().expect("runs");
    let error = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && !error.contains("my-short-token"), "{error}");
    assert!(error.contains("GAVEL_AUTH_TOKENS") && error.contains("16 visible characters"), "{error}");
}

/// A certificate for localhost, written to `cert.pem` and `key.pem`.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "judge.example".to_owned()]).expect("one");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("a certificate");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("a key");
    made.cert.der().clone()
}

/// One request over TLS by a client that trusts this certificate only; `None`: the handshake failed.
fn over_tls(address: SocketAddr, trusted: &CertificateDer<'static>, host: &str, head: &str) -> Option<(u16, String)> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(client, TcpStream::connect(address).expect("a connection"));
    stream.write_all(format!("{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

#[test]
fn with_a_certificate_the_server_speaks_tls_and_reads_a_new_one_without_a_restart() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = certificate(dir.path());
    let token = create(dir.path(), &["ci"]);
    let settings = ["server.tls_cert=cert.pem", "server.tls_key=key.pem", "server.allowed_hosts=judge.example"];
    let server = Server::start_in(dir.path(), &settings);
    let address: SocketAddr = server.url.strip_prefix("https://").expect("a URL of HTTPS").parse().expect("an address");
    let ask = |trusted: &CertificateDer<'static>| over_tls(address, trusted, "localhost", "GET /healthz");
    let status = |host: &str, head: &str| over_tls(address, &first, host, head).map(|(status, _)| status);
    assert_eq!(ask(&first).map(|(status, _)| status), Some(200));
    assert_eq!(status("judge.example", "GET /healthz"), Some(200));
    assert_eq!(status("evil.example", "GET /healthz"), Some(421), "the look at the host stays");
    assert_eq!(status("localhost", "GET /api/v1/jobs"), Some(401));
    assert_eq!(status("localhost", &format!("GET /api/v1/jobs?X-Auth-Token={token}")), Some(200));
    // Plain HTTP gets no answer that is one.
    let mut plain = TcpStream::connect(address).expect("a connection");
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("written");
    let mut answer = Vec::new();
    _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");

    let second = certificate(dir.path());
    server.signal(Signal::HUP);
    eventually("the new certificate is used", || ask(&second));
    assert!(ask(&first).is_none(), "the old one is not");
    // A file that cannot be used costs nothing but a line in the log.
    std::fs::write(dir.path().join("cert.pem"), "nothing").expect("written");
    server.signal(Signal::HUP);
    eventually("the log says so", || server.log().contains("cannot be read again").then_some(()));
    assert_eq!(ask(&second).map(|(status, _)| status), Some(200));
    // And nobody needs to send a signal.
    let third = certificate(dir.path());
    eventually("the third certificate is used", || ask(&third));
}

#[test]
fn files_of_tls_that_cannot_be_used_are_named() {
    let _turn = among_others();
    let dir = tempfile::tempdir().expect("a temporary directory");
    certificate(dir.path());
    std::fs::write(dir.path().join("empty.pem"), "").expect("a file");
    for (cert, key, expected) in [
        ("cert.pem", "missing.pem", "server.tls_key missing.pem: No such file"),
        ("missing.pem", "key.pem", "server.tls_cert missing.pem: No such file"),
        ("empty.pem", "key.pem", "server.tls_cert empty.pem: there is no certificate in it"),
        ("cert.pem", "cert.pem", "server.tls_key cert.pem: there is no private key in it"),
    ] {
        let (cert, key) = (format!("server.tls_cert={cert}"), format!("server.tls_key={key}"));
        let (code, log) = refused(dir.path(), &[&cert, &key]);
        assert_eq!(code, Some(3), "{log}");
        assert!(log.contains(expected), "{expected}: {log}");
        let output = gavel(dir.path()).args(["doctor", "--set", &cert, "--set", &key]).output().expect("gavel runs");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && found.contains(expected), "{expected}: {found}");
        _ = std::fs::remove_file(dir.path().join("server.log"));
    }
    let other = rcgen::KeyPair::generate().expect("a key");
    std::fs::write(dir.path().join("other.pem"), other.serialize_pem()).expect("a file");
    let (code, log) = refused(dir.path(), &["server.tls_cert=cert.pem", "server.tls_key=other.pem"]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("cannot be used together"), "{log}");
}
