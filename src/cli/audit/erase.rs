//! Erasing a data subject.

use clap::Args;
use events::api::Problem;
use serde_json::json;

use crate::cli::session::Session;

#[derive(Debug, Args)]
pub(in crate::cli) struct Erase {
    /// The data subject, as tasks named it with `--subject`.
    #[arg(long, value_name = "SUBJECT")]
    subject: String,
    /// Why, for the log. It stays there: it names nobody.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The same key and content erases once.
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Erase {
    pub(super) async fn run(self, session: &Session) -> Result<(), Problem> {
        let asked = json!({"subject": self.subject, "reason": self.reason});
        let done = session.client.post("/v1/audit/erase", &asked, self.idempotency_key.as_deref()).await?;
        session.output.value(&done, |done| {
            let body = &done["body"];
            format!(
                "erased: key {} is destroyed, with the data of {} tasks and {} artifacts (position {})\n\
                 copies of the key store that are older than this can still open it: destroy those too",
                body["key"].as_str().unwrap_or_default(),
                body["tasks"],
                body["artifacts"],
                done["position"]
            )
        })?;
        Ok(())
    }
}
