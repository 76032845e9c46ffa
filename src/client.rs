//! The command line's own client of the HTTP API.

use std::path::Path;
use std::time::Duration;

use events::Tenant;
use events::api::{Problem, ProblemKind};
use futures_util::{Stream, TryStreamExt as _};
use reqwest::{Method, RequestBuilder, Response, header};
use serde_json::Value;

use crate::api::{Details, PROBLEM_MEDIA_TYPE, TENANT, Token};
use crate::tls;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long nothing may come before the platform counts as gone; longer than its longest request.
const SILENCE: Duration = Duration::from_secs(330);
/// Largest answer that is read into memory, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A connection to a running platform.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Token,
    tenant: Option<Tenant>,
}

impl Client {
    /// A client of the platform at `base`, such as `http://127.0.0.1:7400`. With `https` its certificate must be trusted by
    /// the system, or be in, or signed by one in, the file `trusted`.
    pub fn new(base: &str, token: Token, trusted: Option<&Path>) -> Result<Self, Problem> {
        let invalid =
            |reason: String| Problem::new(ProblemKind::Invalid, format!("use the server `{base}`: {reason}"));
        let tls = match base.split_once("://") {
            Some(("http", _)) => tls::none(),
            Some(("https", _)) => tls::client(trusted).map_err(|error| invalid(error.to_string()))?,
            _ => return Err(invalid("expected an `http://` or `https://` URL".to_owned())),
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("hypercode/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { http, base: base.trim_end_matches('/').to_owned(), token, tenant: None })
    }

    /// The same, whose requests name this tenant.
    #[must_use]
    pub fn about(self, tenant: Option<Tenant>) -> Self {
        Self { tenant, ..self }
    }

    /// Reads what is at `path`.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Problem> {
        self.json(self.request(Method::GET, path, query)).await
    }

    /// Reads the bytes at `path`.
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, Problem> {
        self.read(self.send(self.request(Method::GET, path, &[])).await?).await
    }

    /// Gives a command; the key makes a repetition harmless.
    pub async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Value, Problem> {
        let mut request = self.request(Method::POST, path, &[]).json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.json(request).await
    }

    /// Sends bytes.
    pub async fn put_bytes(
        &self,
        path: &str,
        media_type: &str,
        bytes: impl Into<reqwest::Body>,
    ) -> Result<Value, Problem> {
        self.json(self.request(Method::POST, path, &[]).header(header::CONTENT_TYPE, media_type).body(bytes))
            .await
    }

    /// The bytes of an answer as they come.
    pub async fn stream(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<impl Stream<Item = Result<bytes::Bytes, Problem>> + Send + use<>, Problem> {
        let response = self.send(self.request(Method::GET, path, query)).await?;
        let base = self.base.clone();
        Ok(response.bytes_stream().map_err(move |error| unreachable(&base, &error)))
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut url = format!("{}{path}", self.base);
        for (i, (name, value)) in query.iter().enumerate() {
            url += if i == 0 { "?" } else { "&" };
            url += &format!("{name}={}", escape(value));
        }
        let request = self.http.request(method, url).bearer_auth(self.token.expose());
        match &self.tenant {
            Some(tenant) => request.header(TENANT, tenant.as_str()),
            None => request,
        }
    }

    async fn json(&self, request: RequestBuilder) -> Result<Value, Problem> {
        let bytes = self.read(self.send(request).await?).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.strange(&format!("its answer is not JSON: {error}")))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let response = request.send().await.map_err(|error| unreachable(&self.base, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if media_type != Some(PROBLEM_MEDIA_TYPE) {
            return Err(self.strange(&format!("it answered {status}")));
        }
        let bytes = self.read(response).await?;
        let details: Details = serde_json::from_slice(&bytes).map_err(|error| {
            self.strange(&format!("it answered {status}, and why cannot be read: {error}"))
        })?;
        Err(details.into())
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&self.base, &error))? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.strange("its answer is too large"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn strange(&self, what: &str) -> Problem {
        let detail =
            format!("what answers at {} is no HyperCode platform of this version: {what}", self.base);
        Problem::new(ProblemKind::Unavailable, detail)
    }
}

fn unreachable(base: &str, error: &reqwest::Error) -> Problem {
    let detail = match error.is_connect() {
        true if base.starts_with("https://") => format!(
            "no TLS connection to {base}: {}; is the platform running? If its certificate is your own, name it with `--set tls_ca=FILE`; if it is made out to a name, use that with `--server https://NAME:PORT`",
            root(error)
        ),
        true => format!("nothing answers at {base}: is the platform running? start it with `hypercode up`"),
        false => format!("the connection to {base} was lost: {}", root(error)),
    };
    Problem::new(ProblemKind::Unavailable, detail)
}

/// The innermost reason, which is the one that says something.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Text as it may stand in a path segment or a query (RFC 3986 §2.3).
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
