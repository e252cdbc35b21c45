//! A server with languages that have numbers, and a worker whose results a test writes itself.

use crate::client::{Answer, Call};
use crate::server::{Options, Server};
use crate::worker::{self, now};
use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use gavel_api::{LanguageState, judge0};
use gavel_core::language::Compile;
use gavel_core::{Catalogue, JobId, Language, Limits, Outcome};
use gavel_store::{Claimant, Event, Queue, Settlement, Store};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// A server of whose settings some were changed.
pub async fn with(change: impl FnOnce(&mut Options)) -> Server {
    let mut options = Options::default();
    change(&mut options);
    let server = Server::with(options).await;
    server.languages.replace(catalogue(), states());
    server
}

pub async fn start() -> Server {
    with(|_| ()).await
}

/// A server whose Judge0 API was changed.
pub async fn with_judge0(change: impl FnOnce(&mut judge0::Options)) -> Server {
    with(|options| change(&mut options.http.judge0)).await
}

/// Nobody works: what is submitted waits until the test settles it.
pub async fn idle() -> Server {
    with(|options| options.workers = false).await
}

fn catalogue() -> Catalogue {
    let compile = |file: &str| Compile {
        argv: ["/usr/bin/gcc", "{options}", file].map(str::to_owned).to_vec(),
        artifacts: vec!["main".into()],
        only_with: vec![],
        limits: Limits::standard_compile(),
    };
    Catalogue::new([
        language("bash", "Bash", "main.sh", &[46], None),
        language("c", "C (GCC)", "main.c", &[48, 49, 50, 103], Some(compile("main.c"))),
        language("cobol", "COBOL (GnuCOBOL)", "main.cob", &[77], Some(compile("main.cob"))),
        language("cpp", "C++ (GCC)", "main.cpp", &[52, 54, 105], Some(compile("main.cpp"))),
        language("multi-file", "Multi-file program", "", &[89], None),
        language("nim", "Nim", "main.nim", &[], Some(compile("main.nim"))),
        language("python3", "Python (CPython)", "main.py", &[71, 113], None),
        language("text", "Plain text", "main.txt", &[43], None),
    ])
}

fn states() -> Vec<(String, LanguageState)> {
    let state = |id: &str, version: &str| {
        (id.to_owned(), LanguageState { version: Some(version.into()), ..LanguageState::default() })
    };
    let missing = LanguageState { unavailable: Some("cobc is missing".into()), ..LanguageState::default() };
    vec![
        state("bash", "5.2.15"),
        state("c", "12.2.0"),
        state("cpp", "12.2.0"),
        state("python3", "3.11.2"),
        state("text", "9.1"),
        ("cobol".to_owned(), missing),
    ]
}

fn language(id: &str, name: &str, source_file: &str, judge0_ids: &[u32], compile: Option<Compile>) -> Language {
    Language {
        id: id.into(),
        name: name.into(),
        // None: a program is all in its files.
        source_file: Some(source_file.to_owned()).filter(|name| !name.is_empty()),
        extensions: Vec::new(),
        compile,
        run: vec!["/usr/bin/run".into(), source_file.into(), "{args}".into()],
        env: Default::default(),
        limits: Limits::standard(),
        cap: Limits::standard_cap(),
        oom_markers: Vec::new(),
        image: None,
        rootfs: None,
        backend: None,
        requires: Vec::new(),
        packages: Vec::new(),
        version_command: Vec::new(),
        judge0_ids: judge0_ids.to_vec(),
        sample: None,
    }
}

/// A submission in Bash that says back its input.
pub fn echo(stdin: &str) -> Value {
    json!({ "source_code": "echo", "language_id": 46, "stdin": stdin })
}

/// The same with other attributes.
pub fn changed(changes: Value) -> Value {
    let mut body = json!({ "source_code": "echo", "language_id": 46 });
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

impl Server {
    pub async fn create(&self, query: &str, body: &Value) -> Answer {
        self.post(&format!("/submissions{query}")).json(body.to_string()).send().await
    }

    /// Creates and gives the token.
    pub async fn created(&self, query: &str, body: &Value) -> String {
        let answer = self.create(query, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        token_of(&answer.json())
    }

    pub async fn read(&self, token: &str, query: &str) -> Answer {
        self.get(&format!("/submissions/{token}{query}")).send().await
    }

    /// Everything that is known of a submission, as plain text.
    pub async fn all_of(&self, token: &str) -> Value {
        let answer = self.read(token, "?fields=*").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Ends the only waiting job.
    pub async fn settle(&self, end: Settlement) {
        let by = Claimant { node: worker::NODE.into(), workers: vec![1] };
        let claim = self.store.claim(by, now(), Duration::from_secs(60)).await.unwrap().remove(0);
        self.store.settle(claim.key, now(), end).await.unwrap();
        self.bell.publish(claim.key.id, Event::Ended(None));
    }

    /// Takes the only waiting job and keeps it.
    pub async fn take(&self) -> JobId {
        let by = Claimant { node: worker::NODE.into(), workers: vec![1] };
        self.store.claim(by, now(), Duration::from_secs(60)).await.unwrap().remove(0).key.id
    }

    /// What the native API kept of a submission.
    pub async fn job_behind(&self, token: &str) -> gavel_core::Job {
        self.store.find(gavel_api::judge0::token::read(token).unwrap()).await.unwrap().unwrap().job
    }
}

/// The native API's name for a submission.
pub fn id_of(token: &str) -> String {
    gavel_api::judge0::token::read(token).unwrap().to_string()
}

pub fn token_of(body: &Value) -> String {
    body["token"].as_str().unwrap_or_else(|| panic!("no token: {body}")).to_owned()
}

/// A run that went well and wrote nothing, changed.
pub fn completed(change: impl FnOnce(&mut Outcome)) -> Settlement {
    let job = gavel_store::contract::plain_job();
    let mut outcome = worker::outcome(&job);
    (outcome.stdout, outcome.stderr, outcome.files) = (Vec::new(), Vec::new(), Vec::new());
    change(&mut outcome);
    Settlement::Completed(Arc::new(outcome))
}

pub fn form(call: Call, body: &str) -> Call {
    call.header("content-type", "application/x-www-form-urlencoded").body(body.to_owned())
}

/// An archive of one file, as `additional_files` wants it.
pub fn packed(name: &str, content: &[u8]) -> String {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    let data = encoder.finish().unwrap();
    let mut local = b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0".to_vec();
    let mut central = b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0".to_vec();
    for record in [&mut local, &mut central] {
        for word in [rawzip::crc32(content), data.len() as u32, content.len() as u32] {
            record.extend(word.to_le_bytes());
        }
        record.extend((name.len() as u16).to_le_bytes());
        record.extend([0, 0]);
    }
    central.extend([0; 14]);
    local.extend(name.as_bytes());
    local.extend(data);
    central.extend(name.as_bytes());
    let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
    end.extend((central.len() as u32).to_le_bytes());
    end.extend((local.len() as u32).to_le_bytes());
    end.extend([0, 0]);
    BASE64_STANDARD.encode([local, central, end].concat())
}
