//! HTTPS: a certificate and its key from two files, read again when they change.

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

/// Why a certificate cannot be used; for the operator.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key} {}: {cause}", path.display())]
    Unreadable { key: &'static str, path: PathBuf, cause: std::io::Error },
    #[error("{key} {}: there is no {what} in it: it must be PEM", path.display())]
    Empty { key: &'static str, what: &'static str, path: PathBuf },
    #[error("{key} {}: it is no valid PEM", path.display())]
    Malformed { key: &'static str, path: PathBuf },
    #[error("server.tls_cert {} and server.tls_key {} cannot be used together: {cause}", cert.display(), secret.display())]
    Unusable { cert: PathBuf, secret: PathBuf, cause: rustls::Error },
}

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// What new connections are served with. Those that are open keep what they began with.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    cert: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
}

/// What changes when a file is written or replaced, also through a link.
type Seen = [Option<(u64, u64, i64, i64, u64)>; 2];

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("cert", &self.0.cert).finish_non_exhaustive()
    }
}

impl Tls {
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let (cert, key) = (cert.to_owned(), key.to_owned());
        let seen = Mutex::new(look(&cert, &key));
        let config = RwLock::new(read(&cert, &key)?);
        Ok(Self(Arc::new(Inner { cert, key, config, seen })))
    }

    /// Reads the files again. Where that fails, what was read before goes on.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Inner { cert, key, config, seen } = &*self.0;
        let now = look(cert, key);
        let read = read(cert, key);
        // Also when it failed: a file that is broken is told of once.
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
        *config.write().unwrap_or_else(PoisonError::into_inner) = read?;
        Ok(())
    }

    /// Reads the files again when they change, until it is dropped.
    pub async fn follow(self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let seen = *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if look(&self.0.cert, &self.0.key) != seen {
                self.reload_and_tell();
            }
        }
    }

    pub fn reload_and_tell(&self) {
        match self.reload() {
            Ok(()) => info!(cert = %self.0.cert.display(), "the certificate was read again"),
            Err(cause) => error!(%cause, "the certificate cannot be read again; the one before stays in use"),
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn look(cert: &Path, key: &Path) -> Seen {
    [cert, key].map(|path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
    })
}

fn read(cert: &Path, secret: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let chain: Vec<CertificateDer> = items("server.tls_cert", "certificate", cert)?;
    let key: Vec<PrivateKeyDer> = items("server.tls_key", "private key", secret)?;
    let unusable = |cause| TlsError::Unusable { cert: cert.to_owned(), secret: secret.to_owned(), cause };
    let key = key.into_iter().next().ok_or_else(|| empty("server.tls_key", "private key", secret))?;
    // Named, and not the process's default: that may be set by whichever part of it comes first.
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config = builder
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn items<T: PemObject>(key: &'static str, what: &'static str, path: &Path) -> Result<Vec<T>, TlsError> {
    let text = std::fs::read(path).map_err(|cause| TlsError::Unreadable { key, path: path.to_owned(), cause })?;
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&text).collect();
    let items = items.map_err(|_| TlsError::Malformed { key, path: path.to_owned() })?;
    if items.is_empty() { Err(empty(key, what, path)) } else { Ok(items) }
}

fn empty(key: &'static str, what: &'static str, path: &Path) -> TlsError {
    TlsError::Empty { key, what, path: path.to_owned() }
}
