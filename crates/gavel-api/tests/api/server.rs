//! A server on port 0 with everything real but the sandbox.

use crate::client::{Answer, Call};
use crate::worker;
use gavel_api::{
    Auth, AuthOptions, Health, HealthOptions, HttpOptions, LanguageBook, LanguageState, Parts, ServeOptions, Service,
    ServiceOptions, router, serve,
};
use gavel_core::board::{WorkerEntry, WorkerState};
use gavel_core::language::{Compile, Sample};
use gavel_core::{Board, Catalogue, Language, Limits};
use gavel_store::faulty::{Call as StoreCall, Faulty, FaultyQueue};
use gavel_store::{LocalQueue, Queue, SqliteOptions, SqliteStore, StoreError};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

const USED_BY_THE_API: [StoreCall; 8] = [
    StoreCall::Insert,
    StoreCall::Find,
    StoreCall::List,
    StoreCall::Cancel,
    StoreCall::Delete,
    StoreCall::Depth,
    StoreCall::Recent,
    StoreCall::Check,
];

pub struct Options {
    pub service: ServiceOptions,
    pub http: HttpOptions,
    pub serve: ServeOptions,
    pub health: HealthOptions,
    pub workers: bool,
    pub max_depth: u64,
    /// Where the server's files are, when it shall outlive the server.
    pub directory: Option<Arc<tempfile::TempDir>>,
    /// Asks for tokens as these options say.
    pub auth: Option<AuthOptions>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service: ServiceOptions::default(),
            http: HttpOptions::default(),
            serve: ServeOptions { grace: Duration::from_secs(5), ..Default::default() },
            health: HealthOptions { keep: Duration::ZERO, ..Default::default() },
            workers: true,
            max_depth: 100_000,
            directory: None,
            auth: None,
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub store: Arc<Faulty<SqliteStore>>,
    pub queue: Arc<LocalQueue>,
    /// The bell as the API and the worker have it.
    pub bell: Arc<FaultyQueue>,
    pub board: Arc<Board>,
    pub languages: LanguageBook,
    pub service: Arc<Service>,
    /// Ends one job whose source begins with "hold".
    pub hold: Arc<Semaphore>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    worker: Option<JoinHandle<()>>,
    pub auth: Option<Auth>,
    keeping: Option<JoinHandle<()>>,
    _directory: Arc<tempfile::TempDir>,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        gavel_api::metrics::install().unwrap();
        let directory = options.directory.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let mut sqlite = SqliteOptions::new(directory.path().join("gavel.db"));
        sqlite.max_depth = options.max_depth;
        let store = Arc::new(Faulty::new(SqliteStore::open(sqlite).unwrap()));
        let (queue, board) = (Arc::new(LocalQueue::default()), Arc::new(Board::default()));
        let bell = Arc::new(FaultyQueue::new(queue.clone()));
        board.add(worker_entry());
        let languages = languages();
        let mut service = options.service;
        service.max_depth = options.max_depth;
        let service = Service::new(Parts {
            store: store.clone(),
            queue: bell.clone(),
            board: board.clone(),
            languages: languages.clone(),
            options: service,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut http, mut auth, mut keeping) = (options.http, None, None);
        if let Some(options) = options.auth {
            http.auth = Auth::load(store.clone(), options).await.unwrap();
            keeping = Some(tokio::spawn(http.auth.clone().keep_fresh()));
            auth = Some(http.auth.clone());
        }
        let router = router(service.clone(), Health::new(options.health), http);
        let (shutdown, wanted) = oneshot::channel();
        let serving = {
            let service = service.clone();
            tokio::spawn(async move {
                let wanted = async {
                    let _ = wanted.await;
                };
                serve(listener, router, service, options.serve, wanted).await.unwrap();
            })
        };
        let hold = Arc::new(Semaphore::new(0));
        let worker = options
            .workers
            .then(|| tokio::spawn(worker::play(store.clone(), bell.clone() as Arc<dyn Queue>, hold.clone())));
        Self {
            address,
            store,
            queue,
            bell,
            board,
            languages,
            service,
            hold,
            shutdown: Some(shutdown),
            serving: Some(serving),
            worker,
            auth,
            keeping,
            _directory: directory,
        }
    }

    pub fn get(&self, path: &str) -> Call {
        Call::new(self.address, "GET", path)
    }

    pub fn post(&self, path: &str) -> Call {
        Call::new(self.address, "POST", path)
    }

    pub fn call(&self, method: &str, path: &str) -> Call {
        Call::new(self.address, method, path)
    }

    /// The store fails in everything that the API asks of it; workers go on.
    pub fn break_store(&self, error: StoreError) {
        for call in USED_BY_THE_API {
            self.store.fail(call, error.clone());
        }
    }

    pub fn stall_store(&self, delay: Duration) {
        for call in USED_BY_THE_API {
            self.store.delay(call, delay);
        }
    }

    /// Submits and does not wait; gives the id.
    pub async fn submit(&self, job: Value) -> String {
        let answer = self.post("/api/v1/jobs").json(job.to_string()).send().await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/jobs/{id}")).send().await.json()
    }

    /// Waits until the job has this status.
    pub async fn reach(&self, id: &str, status: &str) -> Value {
        for _ in 0..500 {
            let job = self.job(id).await;
            if job["status"] == status {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} never became {status}: {}", self.job(id).await);
    }

    /// Waits until the job's callback has come to this; gives its delivery.
    pub async fn delivery(&self, id: &str, status: &str) -> Value {
        let mut shown = Value::Null;
        for _ in 0..1000 {
            shown = self.get(&format!("/api/v1/jobs/{id}/deliveries")).send().await.json();
            if shown["deliveries"][0]["status"] == status {
                return shown["deliveries"][0].clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the callback of {id} never became {status}: {shown}");
    }

    /// Waits until nobody listens any more and no place is taken.
    pub async fn nothing_held(&self) {
        for _ in 0..500 {
            if self.queue.channels() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} channels are still listened to", self.queue.channels());
    }

    /// Waits until the queue is as it should be.
    #[allow(dead_code, reason = "of the two binaries that this file is in, one does not use it")]
    pub async fn until_depth(&self, is_so: impl Fn(gavel_store::Depth) -> bool) {
        for _ in 0..500 {
            if is_so(gavel_store::Store::depth(&*self.store).await.unwrap()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the queue does not become so");
    }

    /// Waits until no event stream is open any more.
    pub async fn nobody_watches(&self) {
        for _ in 0..500 {
            if self.service.watching() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} streams are still open", self.service.watching());
    }

    pub fn begin_shutdown(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub async fn stopped(&mut self) {
        let serving = self.serving.take().unwrap();
        tokio::time::timeout(Duration::from_secs(20), serving).await.expect("it does not stop").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in [self.serving.take(), self.worker.take(), self.keeping.take()].into_iter().flatten() {
            task.abort();
        }
    }
}

/// Polls a condition until it holds.
pub async fn eventually(condition: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to that");
}

pub fn job(source: &str, stdin: &str) -> Value {
    json!({"language": "python3", "source_code": source, "stdin": stdin})
}

pub fn problem_fields(answer: &Answer) -> Vec<String> {
    let errors = answer.json()["errors"].clone();
    errors.as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap().to_owned()).collect()
}

fn worker_entry() -> WorkerEntry {
    WorkerEntry {
        id: 1,
        node: worker::NODE.into(),
        backend: "native".into(),
        state: WorkerState::Idle,
        job: None,
        jobs_done: 3,
        faults: 1,
        busy: Duration::from_secs(1),
        since: worker::now(),
        started_at: worker::now().minus(Duration::from_secs(10)),
    }
}

fn languages() -> LanguageBook {
    let python = language("python3", "Python", "main.py", "py", None);
    let compile = Compile {
        argv: vec!["/usr/bin/gcc".into(), "{options}".into(), "main.c".into()],
        artifacts: vec!["a.out".into()],
        only_with: vec![],
        limits: Limits::standard_compile(),
    };
    let c = language("c", "C", "main.c", "c", Some(compile));
    let cobol = language("cobol", "COBOL", "main.cob", "cob", None);
    let native = |version: &str| LanguageState {
        backend: Some("native".into()),
        version: Some(version.into()),
        unavailable: None,
    };
    let missing =
        LanguageState { unavailable: Some("/usr/bin/cobc is missing: install gnucobol".into()), ..Default::default() };
    LanguageBook::new(
        Catalogue::new([python, c, cobol]),
        [("python3".to_owned(), native("3.11.2")), ("c".to_owned(), native("12.2.0")), ("cobol".to_owned(), missing)],
    )
}

fn language(id: &str, name: &str, source_file: &str, extension: &str, compile: Option<Compile>) -> Language {
    Language {
        id: id.into(),
        name: name.into(),
        source_file: Some(source_file.into()),
        extensions: vec![extension.into()],
        compile,
        run: vec!["/usr/bin/run".into(), "{args}".into()],
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
        judge0_ids: Vec::new(),
        sample: Some(Sample { source: b"x".to_vec(), files: vec![], stdin: b"1".to_vec(), expected: b"1".to_vec() }),
    }
}
