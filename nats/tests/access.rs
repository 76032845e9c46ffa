//! Who is let in: by TLS, nkeys, credentials files and passwords, and with the permissions that we hand out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::store::Memory;
use events::store::conformance::{request, stream};
use events::{EventStore as _, Expected};
use hypercode_nats::bus::StreamSpec;
use hypercode_nats::relay::{self, Relay, STREAM, State};
use hypercode_nats::server::Server;
use hypercode_nats::{
    Bus, BusError, Connection, Credentials, Message, Nats, Options, Streams, Subject, Tls, subject,
};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// The log gets to the stream.
async fn assert_relayed(options: Options) {
    let store = Memory::new();
    store.append(request(&stream("s"), Expected::Any, &["1", "2"])).await.expect("it is appended");
    let relay = Relay::new(Arc::new(store), Nats::connect(options), relay::Options::default());
    let (mut status, stop) = (relay.status(), CancellationToken::new());
    let _end = stop.clone().drop_guard();
    tokio::spawn(relay.run(stop));
    let done = status.wait_for(|status| status.position.0 == 2 && status.state == State::Following);
    let done = tokio::time::timeout(PATIENCE, done).await.map(|done| done.map(|status| status.clone()));
    done.unwrap_or_else(|_| panic!("the relay stands at {:?}", status.borrow())).expect("the relay runs");
}

/// Why the server cannot be joined.
async fn refusal(options: Options) -> String {
    let nats = Nats::connect(options);
    let mut connection = nats.connection();
    let is_refused =
        |now: &Connection| matches!(now, Connection::Down { reason } if reason.contains("connect to nats"));
    let refused = tokio::time::timeout(PATIENCE, connection.wait_for(is_refused)).await;
    match &*refused.expect("it is refused in time").expect("the bus lives") {
        Connection::Down { reason } => reason.to_string(),
        Connection::Up => unreachable!("it was waited for"),
    }
}

/// An authority, and certificates of it for a server and for the platform.
struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Files with a certificate for `name`, and its key.
    fn issue(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        let pem = write(dir, &format!("{name}.pem"), &certificate);
        (pem, write(dir, &format!("{name}.key"), &key.serialize_pem()))
    }
}

fn with_authorities(server: &Server, path: PathBuf) -> Options {
    let tls = Tls { required: true, authorities: Some(path), identity: None };
    Options { tls, ..server.options() }
}

#[tokio::test]
async fn a_server_is_believed_by_its_certificate() {
    let (own, other) = (Authority::new(), Authority::new());
    let server = Server::with(|dir| {
        let (certificate, key) = own.issue(dir, "127.0.0.1");
        format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", certificate.display(), key.display())
    });
    let trusted = write(server.dir(), "ca.pem", &own.certificate);
    assert_relayed(with_authorities(&server, trusted)).await;

    let stranger = write(server.dir(), "other.pem", &other.certificate);
    let reason = refusal(with_authorities(&server, stranger)).await;
    assert!(reason.contains("certificate"), "{reason}");
    let reason = refusal(with_authorities(&server, server.dir().join("none.pem"))).await;
    assert!(reason.contains("none.pem"), "{reason}");
}

#[tokio::test]
async fn a_server_that_does_not_encrypt_is_refused_where_it_must() {
    let (server, authority) = (Server::start(), Authority::new());
    let trusted = write(server.dir(), "ca.pem", &authority.certificate);
    let reason = refusal(with_authorities(&server, trusted)).await;
    assert!(reason.to_lowercase().contains("tls"), "{reason}");
}

#[tokio::test]
async fn the_platform_shows_a_certificate_where_one_is_wanted() {
    let authority = Authority::new();
    let server = Server::with(|dir| {
        let (certificate, key) = authority.issue(dir, "127.0.0.1");
        let ca = write(dir, "ca.pem", &authority.certificate);
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
            certificate.display(),
            key.display(),
            ca.display()
        )
    });
    let mut options = with_authorities(&server, server.dir().join("ca.pem"));
    refusal(options.clone()).await;
    options.tls.identity = Some(authority.issue(server.dir(), "platform"));
    assert_relayed(options).await;
}

#[tokio::test]
async fn an_nkey_lets_in_and_another_does_not() {
    let (own, other) = (KeyPair::new_user(), KeyPair::new_user());
    let public = own.public_key();
    let server = Server::with(|_| format!("authorization {{ users: [{{ nkey: \"{public}\" }}] }}"));
    let seed = |pair: &KeyPair| format!("{}\n", pair.seed().expect("a seed"));
    let with = |file: &Path| Options { credentials: Credentials::Nkey(file.to_owned()), ..server.options() };
    assert_relayed(with(&write(server.dir(), "own.nk", &seed(&own)))).await;

    let reason = refusal(with(&write(server.dir(), "other.nk", &seed(&other)))).await;
    assert!(reason.to_lowercase().contains("authorization"), "{reason}");
    let secret = "SUNOTASEEDBUTASECRET";
    let reason = refusal(with(&write(server.dir(), "broken.nk", secret))).await;
    assert!(!reason.contains(secret), "{reason}");
    let reason = refusal(with(&server.dir().join("none.nk"))).await;
    assert!(reason.contains("none.nk"), "{reason}");
}

/// A JWT as NATS has them, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &str, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = json!({
        "jti": "TEST", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": "test",
        "nats": claims,
    });
    let signed = format!("{}.{}", encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encode(&body));
    let signature = issuer.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn account(operator: &KeyPair, account: &KeyPair, storage: i64) -> String {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": -1, "consumer": -1,
    });
    jwt(operator, &account.public_key(), &json!({"type": "account", "version": 2, "limits": limits}))
}

#[tokio::test]
async fn a_credentials_file_lets_in() {
    let (operator, own, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let user = KeyPair::new_user();
    let server = Server::with(|_| {
        format!(
            "operator: {}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload: {{\n {}: {}\n {}: {}\n}}",
            jwt(&operator, &operator.public_key(), &json!({"type": "operator", "version": 2})),
            system.public_key(),
            system.public_key(),
            account(&operator, &system, 0),
            own.public_key(),
            account(&operator, &own, -1),
        )
    });
    let claims =
        json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}});
    let file = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(&own, &user.public_key(), &claims),
        user.seed().expect("a seed")
    );
    let file = write(server.dir(), "platform.creds", &file);
    assert_relayed(Options { credentials: Credentials::File(file), ..server.options() }).await;
    refusal(server.options()).await;
}

async fn joined(server: &Server, user: &str) -> Nats {
    let options = Options::new(server.url_of(user).parse().expect("an address"));
    let nats = Nats::connect(options);
    hypercode_nats::conformance::up(&nats).await;
    nats
}

#[tokio::test]
async fn the_server_that_we_describe_lets_each_do_its_own() {
    let server = Server::deployed();
    let reason = refusal(server.options()).await;
    assert!(reason.to_lowercase().contains("authorization"), "{reason}");
    let address = server.url_of("platform").replace(":platform@", ":wrong@");
    let reason = refusal(Options::new(address.parse().expect("an address"))).await;
    assert!(!reason.contains("wrong"), "{reason}");

    assert_relayed(Options::new(server.url_of("platform").parse().expect("an address"))).await;
    let platform = joined(&server, "platform").await;
    let mut commands =
        platform.subscribe(subject::COMMANDS.parse().expect("a pattern"), None).await.expect("it hears");

    // An observer reads events, and can neither command, forge, nor take anything away.
    let client = async_nats::ConnectOptions::new()
        .user_and_password("observer".to_owned(), "observer".to_owned())
        .custom_inbox_prefix("_INBOX_observer")
        .request_timeout(Some(Duration::from_millis(500)))
        .connect(server.url())
        .await
        .expect("an observer is let in");
    let stream = async_nats::jetstream::new(client.clone());
    let mut info = stream.get_stream(STREAM).await.expect("an observer sees the stream");
    let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
    let consumer = info.create_consumer(config).await.expect("an observer follows");
    let mut messages = consumer.messages().await.expect("messages");
    let first = tokio::time::timeout(PATIENCE, futures_util::StreamExt::next(&mut messages)).await;
    let first = first.expect("in time").expect("a message").expect("it is read");
    assert_eq!(
        first.headers.as_ref().and_then(|headers| headers.get("ce-position")).map(|at| at.as_str()),
        Some("1")
    );
    for forbidden in ["hypercode.cmd.crew.pause", "hypercode.evt.default.crew.x.crew_disbanded"] {
        client.publish(forbidden, "x".into()).await.expect("the server says nothing");
    }
    client.flush().await.expect("it has been through");
    assert!(stream.delete_stream(STREAM).await.is_err(), "an observer deletes nothing");
    assert_eq!(info.info().await.expect("it is there").state.messages, 2, "nothing was forged");

    // What a client asks is the first thing that is heard.
    let asking = async_nats::ConnectOptions::new()
        .user_and_password("client".to_owned(), "client".to_owned())
        .custom_inbox_prefix("_INBOX_client")
        .connect(server.url())
        .await
        .expect("a client is let in");
    let answering = async {
        let heard =
            tokio::time::timeout(PATIENCE, commands.next()).await.expect("in time").expect("a command");
        assert_eq!(heard.body, "mine");
        platform.publish(Message::new(heard.reply.expect("it asks"), "done")).await.expect("it is answered");
    };
    let (answer, ()) = tokio::join!(asking.request("hypercode.cmd.crew.pause", "mine".into()), answering);
    assert_eq!(answer.expect("an answer").payload, "done");
}

/// The stream that the platform makes holds what it got.
#[tokio::test]
async fn nothing_is_taken_out_of_the_middle_of_the_stream() {
    let server = Server::start();
    let nats = Nats::connect(server.options());
    hypercode_nats::conformance::up(&nats).await;
    let spec = StreamSpec { name: "S".into(), ..hypercode_nats::conformance::spec() };
    nats.open_stream(&spec).await.expect("a stream");
    let sent =
        nats.append("S", Message::new(Subject::of(["kept", "x"]), ""), "1", 0).await.expect("it is sent");
    assert_eq!(sent.await, Ok(1));
    let client = async_nats::connect(server.url()).await.expect("a connection");
    let stream = async_nats::jetstream::new(client).get_stream("S").await.expect("the stream");
    assert!(stream.delete_message(1).await.is_err() && stream.purge().await.is_err());
    let late =
        nats.append("S", Message::new(Subject::of(["kept", "x"]), ""), "2", 0).await.expect("it is sent");
    assert!(matches!(late.await, Err(BusError::Moved { .. })));
}
