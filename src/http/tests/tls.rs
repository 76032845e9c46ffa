//! The API in TLS.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::double::Server;
use crate::api::Token;
use crate::client::Client;
use crate::tls::tests::self_signed;

#[tokio::test]
async fn the_api_is_in_tls_and_a_client_takes_no_certificate_that_it_does_not_trust() {
    let directory = tempfile::tempdir().unwrap();
    let files = self_signed(directory.path());
    let server = Server::start_with(1_000, Some(files.clone())).await;
    assert!(server.base().starts_with("https://127.0.0.1:"), "{}", server.base());
    assert!(server.get("/v1/crews").await["items"].is_array());

    let token = || Token::parse(server.token(), "a test").unwrap();
    let knows = Client::new(server.base(), token(), Some(&files.cert)).unwrap();
    assert!(knows.get("/v1/crews", &[]).await.unwrap()["items"].is_array());
    let stranger = Client::new(server.base(), token(), None).unwrap();
    let problem = stranger.get("/v1/crews", &[]).await.unwrap_err();
    assert!(problem.detail.contains("--set tls_ca=FILE"), "{problem:?}");
    assert!(problem.detail.contains("certificate"), "{problem:?}");
}

#[tokio::test]
async fn who_speaks_no_tls_gets_no_answer_and_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(1_000, Some(self_signed(directory.path()))).await;
    let address = server.base().trim_start_matches("https://");
    let _says_nothing = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // It is shut in whichever way the system likes.
    let read = plain.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(30), read).await.expect("the connection is shut");
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    assert!(server.get("/v1/crews").await["items"].is_array());
}
