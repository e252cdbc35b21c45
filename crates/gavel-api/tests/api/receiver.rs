//! A receiver of callbacks, and not always a kind one.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What it does with a request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    Answer(u16),
    /// With these header lines besides.
    AnswerWith(u16, String),
    /// Takes the request and says nothing.
    Hang,
    /// A good head, and a body without end.
    Endless,
    /// A head without end.
    EndlessHead,
    /// Hangs up.
    Close,
    /// Says no HTTP.
    Nonsense,
    /// Answers 200 when the gate lets it.
    Gated,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    // Ends with the receiver.
    _serving: JoinSet<()>,
}

struct Shared {
    behaviour: Box<dyn Fn(usize) -> Behaviour + Send + Sync>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    gate: Semaphore,
}

impl Receiver {
    /// `behaviour` is asked with the number of the request, from 0.
    pub async fn start(behaviour: impl Fn(usize) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", None, behaviour).await
    }

    pub async fn at(
        address: &str,
        tls: Option<TlsAcceptor>,
        behaviour: impl Fn(usize) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Box::new(behaviour),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let mut serving = JoinSet::new();
        let accepting = shared.clone();
        serving.spawn(async move {
            let mut at_work = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, tls) = (accepting.clone(), tls.clone());
                at_work.spawn(async move {
                    match tls {
                        None => shared.serve(socket).await,
                        Some(tls) => match tls.accept(socket).await {
                            Ok(secured) => shared.serve(secured).await,
                            Err(_refused) => {}
                        },
                    }
                });
            }
        });
        Self { address, shared, _serving: serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?a=b%20c", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Connections that were ever made, whatever came over them.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn at_once(&self) -> usize {
        self.shared.at_once.load(Ordering::SeqCst)
    }

    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }

    /// Lets so many gated requests go.
    pub fn open_gate(&self, n: usize) {
        self.shared.gate.add_permits(n);
    }
}

impl Shared {
    async fn serve(&self, mut io: impl AsyncRead + AsyncWrite + Unpin) {
        let Some(received) = read_request(&mut io).await else { return };
        let number = {
            let mut all = self.received.lock().unwrap();
            all.push(received);
            all.len() - 1
        };
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        // The client going away is what ends most of these.
        let _gone = self.answer(&mut io, (self.behaviour)(number)).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
    }

    async fn answer(
        &self,
        io: &mut (impl AsyncRead + AsyncWrite + Unpin),
        behaviour: Behaviour,
    ) -> std::io::Result<()> {
        let head = |status: u16, more: &str| format!("HTTP/1.1 {status} X\r\n{more}content-length: 2\r\n\r\nok");
        match behaviour {
            Behaviour::Answer(status) => io.write_all(head(status, "").as_bytes()).await?,
            Behaviour::AnswerWith(status, more) => io.write_all(head(status, &more).as_bytes()).await?,
            Behaviour::Hang => pending().await,
            Behaviour::Close => {}
            Behaviour::Nonsense => io.write_all(b"220 mail.example ESMTP\r\n").await?,
            Behaviour::Endless => {
                io.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    io.write_all(&[b'x'; 4096]).await?;
                }
            }
            Behaviour::EndlessHead => {
                io.write_all(b"HTTP/1.1 200 OK\r\nx-more: ").await?;
                loop {
                    io.write_all(b"and more and more and more and more and more ").await?;
                }
            }
            Behaviour::Gated => {
                self.gate.acquire().await.unwrap().forget();
                io.write_all(head(200, "").as_bytes()).await?;
            }
        }
        io.flush().await?;
        io.shutdown().await
    }
}

async fn read_request(io: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if io.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if io.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { method, target, headers, body })
}
