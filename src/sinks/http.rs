//! Requests of sinks over HTTP: each over a connection of its own, with the system's certificates, and bounded.

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::tls;

/// Connections with the system's certificates, which are read once.
static TLS: LazyLock<TlsConnector> = LazyLock::new(|| {
    let trusting = tls::client(None).expect("only further certificates could be unreadable");
    TlsConnector::from(Arc::new(trusting))
});

/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Most characters of a refusal that are told.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Why a sink cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("use the setting `{setting}`: {reason}")]
pub struct SettingError {
    pub(super) setting: &'static str,
    pub(super) reason: String,
}

/// Whom requests go to: everything under one URL.
pub(super) struct Http {
    pub(super) url: Uri,
}

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A refusal in words.
    pub(super) fn complaint(&self) -> String {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let said: String =
            String::from_utf8_lossy(&self.body).chars().take(COMPLAINT_CHARS_MAX).map(printable).collect();
        format!("it answered {} {}", self.status, said.trim()).trim_end().to_owned()
    }
}

impl Http {
    /// Requests to `url`, which `setting` names.
    pub(super) fn new(setting: &'static str, url: &str) -> Result<Self, SettingError> {
        let invalid = |reason: &str| SettingError { setting, reason: reason.to_owned() };
        let url: Uri = url.parse().map_err(|_| invalid("expected an `http://` or `https://` URL"))?;
        let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return Err(invalid("expected an `http://` or `https://` URL"));
        };
        if authority.as_str().contains('@') {
            return Err(invalid("a user and password do not belong there"));
        }
        Ok(Self { url })
    }

    /// The URL without what follows a `?`, which may be a secret.
    pub(super) fn place(&self) -> String {
        let authority = self.url.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}{}", self.url.scheme_str().unwrap_or_default(), self.url.path())
    }

    /// Asks for `target`, a path and query.
    pub(super) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, String> {
        let host = self.url.host().unwrap_or_default();
        let is_tls = self.url.scheme_str() == Some("https");
        let port = self.url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, self.url.authority().map_or(host, |authority| authority.as_str()))
            .header(
                header::USER_AGENT,
                HeaderValue::from_static(concat!("hypercode/", env!("CARGO_PKG_VERSION"))),
            )
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        request.headers_mut().extend(headers);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await.map_err(|error| format!("connect: {error}"))?;
        match is_tls {
            false => exchange(TokioIo::new(stream), request).await,
            true => {
                let name = ServerName::try_from(bare.to_owned()).map_err(|error| error.to_string())?;
                let stream = TLS.connect(name, stream).await.map_err(|error| format!("connect: {error}"))?;
                exchange(TokioIo::new(stream), request).await
            }
        }
    }
}

/// Sends one request over a connection of its own.
async fn exchange<S>(stream: TokioIo<S>, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: 'static,
{
    let failed = |error: hyper::Error| format!("ask: {error}");
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let talk = async {
        let response: Response<_> = sender.send_request(request).await.map_err(failed)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("read the answer: {error}"))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(connection, talk);
    tokio::select! {
        answer = &mut talk => answer,
        // An answer that ended the connection has come with it.
        ended = &mut connection => {
            ended.map_err(failed)?;
            talk.await
        }
    }
}
