//! Checkpoints as objects of a store that is reached over HTTP: one object each, never written twice (RFC 9110 §13.1.2,
//! `If-None-Match: *`). With object lock or a retention policy on the store, not even the operator can take one back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use bytes::Bytes;
use events::audit::{Note, Sink, SinkError};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long the store may take with one checkpoint.
const LIMIT: Duration = Duration::from_secs(30);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most characters of a refusal that are told.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Why a store cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("use the setting `checkpoint_url`: {0}")]
pub struct BucketError(String);

/// A store of objects under one URL.
pub struct Bucket {
    url: Uri,
    /// The file with headers of every request: read anew each time, since what is in it expires.
    headers: Option<PathBuf>,
    tls: TlsConnector,
    name: String,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Bucket {
    /// The store at `url`, which may have a query, such as a signature, that goes with every request. `headers` is a
    /// file with a header a line.
    ///
    /// # Errors
    /// When the text is no such URL.
    pub fn new(url: &str, headers: Option<PathBuf>) -> Result<Self, BucketError> {
        let invalid = |reason: &str| BucketError(reason.to_owned());
        let url: Uri = url.parse().map_err(|_| invalid("expected an `http://` or `https://` URL"))?;
        let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(invalid("expected an `http://` or `https://` URL"));
        };
        if authority.as_str().contains('@') {
            return Err(invalid("a user and password do not belong there: name a `checkpoint_headers_file`"));
        }
        let scheme = url.scheme_str().unwrap_or_default();
        // What follows a `?` may be a secret.
        let name = format!("url:{scheme}://{authority}{}", url.path());
        Ok(Self { tls: tls(), headers, name, url })
    }

    /// The path of a checkpoint's object, and the query.
    fn target(&self, note: &Note) -> String {
        let checkpoint = note.checkpoint();
        let origin: String = checkpoint.origin.split('/').map(escaped).collect::<Vec<_>>().join("/");
        let query = self.url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = self.url.path().trim_end_matches('/');
        format!("{path}/{origin}/{:020}.checkpoint{query}", checkpoint.size)
    }

    async fn keep(&self, note: &Note) -> Result<(), String> {
        let target = self.target(note);
        let only_new = (header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        let text = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        let body = Bytes::copy_from_slice(note.as_str().as_bytes());
        let (status, said) = self.send(Method::PUT, &target, vec![only_new, text], body).await?;
        match status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            // It is there already: the answer to an earlier try was lost, or somebody else has put it.
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => self.compare(note, &target).await,
            _ => Err(complaint(status, &said)),
        }
    }

    async fn compare(&self, note: &Note, target: &str) -> Result<(), String> {
        let (status, kept) = self.send(Method::GET, target, Vec::new(), Bytes::new()).await?;
        match status {
            StatusCode::OK if kept == note.as_str().as_bytes() => Ok(()),
            StatusCode::OK => {
                Err(format!("another checkpoint of size {} is there already", note.checkpoint().size))
            }
            _ => Err(format!("something is there already and cannot be read: {}", complaint(status, &kept))),
        }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let host = self.url.host().unwrap_or_default();
        let is_tls = self.url.scheme_str() == Some("https");
        let port = self.url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.url.authority().map_or(host, |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("hypercode/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        if let Some(file) = &self.headers {
            request.headers_mut().extend(read_headers(file).await?);
        }
        request.headers_mut().extend(headers);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| format!("connect: {error}"))?;
        let response = match is_tls {
            false => exchange(TokioIo::new(stream), request).await?,
            true => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
                let stream =
                    self.tls.connect(name, stream).await.map_err(|error| format!("connect: {error}"))?;
                exchange(TokioIo::new(stream), request).await?
            }
        };
        Ok(response)
    }
}

/// Sends one request over a connection of its own.
async fn exchange<S>(stream: TokioIo<S>, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: 'static,
{
    let failed = |error: hyper::Error| format!("ask: {error}");
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let talk = async {
        let response: Response<_> = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| format!("read the answer: {error}"))?.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::select! {
        answer = talk => answer,
        // Without a connection the answer, if there was one, has come.
        ended = &mut connection => Err(ended.err().map_or_else(|| "the connection was closed".to_owned(), failed)),
    }
}

fn tls() -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config =
        ClientConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Headers of a file, `Name: value` a line. It may hold a token, so nobody else may read it.
async fn read_headers(file: &Path) -> Result<HeaderMap, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let place = file.display();
    let failed = |error: io::Error| format!("read `{place}`: {error}");
    let mode = tokio::fs::metadata(file).await.map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!("use `{place}`: others may read it (mode {mode:04o}); run `chmod 600` on it"));
    }
    let text = tokio::fs::read_to_string(file).await.map_err(failed)?;
    let mut headers = HeaderMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let malformed = || format!("read `{place}`: line {number} is not `Name: value`");
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        let name: HeaderName = name.trim().parse().map_err(|_| malformed())?;
        let mut value = HeaderValue::from_str(value.trim()).map_err(|_| malformed())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// A part of an object's name, in which only unreserved characters stand for themselves (RFC 3986 §2.3).
fn escaped(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for byte in part.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn complaint(status: StatusCode, said: &[u8]) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let said: String =
        String::from_utf8_lossy(said).chars().take(COMPLAINT_CHARS_MAX).map(printable).collect();
    format!("the store answered {status} {}", said.trim()).trim_end().to_owned()
}

#[async_trait]
impl Sink for Bucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(&self, note: &Note) -> Result<(), SinkError> {
        let failed = |reason: String| SinkError { sink: self.name.clone(), reason };
        match tokio::time::timeout(LIMIT, self.keep(note)).await {
            Ok(done) => done.map_err(failed),
            Err(_) => Err(failed(format!("it took longer than {} s", LIMIT.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests;
