//! The HTTP API as any client sees it.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use super::{Home, PATIENCE, eventually, eventually_within};

/// Longer than the platform may hold an answer.
const SILENCE: Duration = Duration::from_secs(90);

/// A client of whatever platform runs over a home at the moment.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    data: PathBuf,
    patience: Duration,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn done(self) -> Value {
        assert!(self.is_ok(), "refused: {self:?}");
        self.body
    }
}

impl Api {
    pub(crate) fn of(home: &Home) -> Self {
        // No connection is kept: the next platform is another one, and may have the port of the one before.
        let tls = match home.certificate() {
            Some(certificate) => hypercode::tls::client(Some(certificate)).expect("a certificate"),
            None => hypercode::tls::none(),
        };
        let client = Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .pool_max_idle_per_host(0)
            .timeout(SILENCE)
            .build();
        Self { client: client.expect("a client"), data: home.data(), patience: PATIENCE }
    }

    /// The same client, who insists for so long.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long it insists.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// The same client, who finds the platform by other files.
    pub(crate) fn with_data(self, data: PathBuf) -> Self {
        Self { data, ..self }
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, String> {
        let read = |name: &str| {
            std::fs::read_to_string(self.data.join(name)).map_err(|error| format!("{name}: {error}"))
        };
        let (address, token) = (read("http.address")?, read("admin.token")?);
        let scheme = if address.contains("://") { "" } else { "http://" };
        let url = format!("{scheme}{}{path}", address.trim());
        Ok(self.client.request(method, url).bearer_auth(token.trim()))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, String> {
        let response = request.send().await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.map_err(|error| error.to_string())?;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, body })
    }

    /// Asks once; an error is a platform that is not there, or went away in the middle.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, String> {
        self.send(self.request(Method::GET, path)?).await
    }

    /// Commands once.
    pub(crate) async fn post(&self, path: &str, body: &Value, key: Option<&str>) -> Result<Answer, String> {
        let mut request = self.request(Method::POST, path)?.json(body);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request).await
    }

    /// Commands once, as part of a trace.
    pub(crate) async fn post_traced(
        &self,
        path: &str,
        body: &Value,
        traceparent: &str,
    ) -> Result<Answer, String> {
        self.send(self.request(Method::POST, path)?.header("traceparent", traceparent).json(body)).await
    }

    /// Sends bytes of any kind.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<Answer, String> {
        let request = self.request(Method::POST, path)?.header("Content-Type", media_type).body(bytes);
        self.send(request).await
    }

    /// Commands until it is answered, as a client does whose connection may be lost: always under the same key.
    pub(crate) async fn insist(&self, path: &str, body: &Value, key: &str) -> Answer {
        eventually_within(self.patience, &format!("an answer to POST {path} under {key}"), async || {
            let answer = self.post(path, body, Some(key)).await.ok()?;
            (!is_passing(&answer)).then_some(answer)
        })
        .await
    }

    /// Asks until it is answered.
    pub(crate) async fn insist_get(&self, path: &str) -> Value {
        eventually(&format!("an answer to GET {path}"), async || {
            self.get(path).await.ok().filter(|answer| !is_passing(answer))
        })
        .await
        .done()
    }

    /// The task when it has ended.
    pub(crate) async fn ended(&self, task: &str) -> Value {
        let path = format!("/v1/tasks/{task}?waitMs=5000");
        eventually(&format!("the end of task {task}"), async || {
            let task = self.insist_get(&path).await;
            (task["isTerminal"] == true).then_some(task)
        })
        .await
    }

    /// All pages of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        let sign = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = self.insist_get(&format!("{path}{sign}limit=1000{cursor}")).await;
            items.extend(page["items"].as_array().expect("a list has items").iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    /// Waits until the crew has ended and none of its agents lives.
    pub(crate) async fn crew_gone(&self, crew: &str) {
        let agents = format!("/v1/agents?crew={crew}");
        eventually(&format!("the end of crew {crew}"), async || {
            let status = self.insist_get(&format!("/v1/crews/{crew}")).await["status"].clone();
            let agents = self.list(&agents).await;
            let ended = |agent: &Value| agent["status"] == "terminated" || agent["status"] == "failed";
            (status == "disbanded" && agents.iter().all(ended)).then_some(())
        })
        .await;
    }
}

/// Whether the same request may be answered otherwise a moment later: the platform starts, stops or has too much to do.
pub(crate) fn is_passing(answer: &Answer) -> bool {
    matches!(answer.status, 429 | 503)
}
