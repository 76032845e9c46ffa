//! Checkpoints as objects of a store that is reached over HTTP: one object each, never written twice (RFC 9110 §13.1.2,
//! `If-None-Match: *`). With object lock or a retention policy on the store, not even the operator can take one back.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use events::audit::{Note, Sink, SinkError};

use super::http::{Answer, Http, SettingError};

/// How long the store may take with one checkpoint.
const LIMIT: Duration = Duration::from_secs(30);

/// A store of objects under one URL.
pub struct Bucket {
    http: Http,
    /// The file with headers of every request: read anew each time, since what is in it expires.
    headers: Option<PathBuf>,
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
    pub fn new(url: &str, headers: Option<PathBuf>) -> Result<Self, SettingError> {
        let http = Http::new("checkpoint_url", url)?;
        Ok(Self { headers, name: format!("url:{}", http.place()), http })
    }

    /// The path of a checkpoint's object, and the query.
    fn target(&self, note: &Note) -> String {
        let (url, checkpoint) = (&self.http.url, note.checkpoint());
        let origin: String = checkpoint.origin.split('/').map(escaped).collect::<Vec<_>>().join("/");
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = url.path().trim_end_matches('/');
        format!("{path}/{origin}/{:020}.checkpoint{query}", checkpoint.size)
    }

    async fn keep(&self, note: &Note) -> Result<(), String> {
        let target = self.target(note);
        let only_new = (header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        let text = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        let body = Bytes::copy_from_slice(note.as_str().as_bytes());
        let answer = self.send(Method::PUT, &target, vec![only_new, text], body).await?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            // It is there already: the answer to an earlier try was lost, or somebody else has put it.
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => self.compare(note, &target).await,
            _ => Err(answer.complaint()),
        }
    }

    async fn compare(&self, note: &Note, target: &str) -> Result<(), String> {
        let answer = self.send(Method::GET, target, Vec::new(), Bytes::new()).await?;
        match answer.status {
            StatusCode::OK if answer.body == note.as_str().as_bytes() => Ok(()),
            StatusCode::OK => {
                Err(format!("another checkpoint of size {} is there already", note.checkpoint().size))
            }
            _ => Err(format!("something is there already and cannot be read: {}", answer.complaint())),
        }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        own: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
    ) -> Result<Answer, String> {
        let mut headers = match &self.headers {
            Some(file) => read_headers(file).await?,
            None => HeaderMap::new(),
        };
        headers.extend(own);
        self.http.send(method, target, headers, body).await
    }
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
