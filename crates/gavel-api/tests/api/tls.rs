//! Connections of TLS have the same bounds as others.

use crate::client::PATIENCE;
use crate::server::{Options, Server};
use gavel_api::{ServeOptions, Tls};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_gives_its_place_back() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Some(Tls::load(&cert, &key).unwrap());
    let handshake_timeout = Duration::from_millis(300);
    let serve = ServeOptions { max_connections: 1, tls, handshake_timeout, ..ServeOptions::default() };
    let server = Server::with(Options { serve, ..Options::default() }).await;
    for _ in 0..3 {
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        let mut nothing = [0; 16];
        // Closed by the server: the second one is served although there is one place only.
        let read = timeout(PATIENCE, silent.read(&mut nothing)).await.expect("it is kept for ever");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}
