//! Certificates of the tests' own making.

use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedKey, IsCa, KeyPair,
    generate_simple_self_signed,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::*;

/// A certificate for this machine that nobody has signed, and its key, in files of this directory.
pub(crate) fn self_signed(directory: &Path) -> Files {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    written(directory, &cert, &signing_key)
}

fn written(directory: &Path, cert: &Certificate, key: &KeyPair) -> Files {
    let files = Files { cert: directory.join("cert.pem"), key: directory.join("key.pem") };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

/// One connection to whom shows it, by a client that trusts what is in `trusted`.
async fn connect(acceptor: &tokio_rustls::TlsAcceptor, trusted: &Path) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = acceptor.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = acceptor.accept(stream).await {
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    let connector = TlsConnector::from(Arc::new(client(Some(trusted)).unwrap()));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
    Ok(())
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_a_broken_one_is_not() {
    let (directory, earlier) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = self_signed(directory.path());
    let acceptor = Shown::looking_every(Duration::ZERO, files.clone()).unwrap().acceptor();
    let before = earlier.path().join("before.pem");
    std::fs::copy(&files.cert, &before).unwrap();
    connect(&acceptor, &before).await.unwrap();

    std::fs::write(&files.cert, "half a certif").unwrap();
    connect(&acceptor, &before).await.unwrap();

    self_signed(directory.path());
    connect(&acceptor, &files.cert).await.unwrap();
    let error = connect(&acceptor, &before).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

/// As `openssl req -x509` makes it: an authority's, and made out to somebody else at that.
#[tokio::test]
async fn a_certificate_that_is_named_is_taken_for_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let files = written(directory.path(), &params.self_signed(&key).unwrap(), &key);
    let acceptor = Shown::read(files.clone()).unwrap().acceptor();
    connect(&acceptor, &files.cert).await.unwrap();
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, theirs) = (self_signed(one.path()), self_signed(other.path()));
    let error = |cert: &Path, key: &Path| {
        let files = Files { cert: cert.to_owned(), key: key.to_owned() };
        Shown::read(files).unwrap_err().to_string()
    };
    let place = mine.cert.display().to_string();
    assert!(
        error(&mine.cert, &theirs.key).starts_with(&format!("show the certificate `{place}` with the key `"))
    );
    assert!(error(&mine.key, &mine.key).contains("no certificate is in it; expected PEM"));
    assert!(error(&mine.cert, &mine.cert).starts_with(&format!("read a private key from `{place}`: ")));
    assert!(error(&one.path().join("none"), &mine.key).contains("none`: "));
}
