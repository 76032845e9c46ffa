//! `hypercode agent logs`.

use std::time::Duration;

use clap::Args;
use events::api::Problem;
use serde_json::Value;

use crate::cli::session::Session;
use crate::client::escape;
use crate::output;

/// How often a log that is followed is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Shows what an agent's handler has written.
#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    /// The agent's id.
    agent: String,
    /// At most so many bytes, from its end.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    tail: u64,
    /// The log of this incarnation, also of one that has ended; the newest's unless given.
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
    incarnation: Option<u64>,
    /// Go on with what comes, through all incarnations, until interrupted.
    #[arg(long, short)]
    follow: bool,
}

impl Logs {
    pub(super) async fn run(&self, session: &Session) -> Result<(), Problem> {
        let log = self.look(session).await?;
        session.output.value(&log, |log| match log["log"].as_str() {
            Some(text) => output::harmless(text.trim_end()),
            None => "nothing of its log is kept".to_owned(),
        })?;
        match self.follow {
            true => self.go_on(session, log).await,
            false => Ok(()),
        }
    }

    async fn look(&self, session: &Session) -> Result<Value, Problem> {
        let mut query = vec![("tailBytes", self.tail.to_string())];
        query.extend(self.incarnation.map(|incarnation| ("incarnation", incarnation.to_string())));
        session.client.get(&format!("/v1/agents/{}/logs", escape(&self.agent)), &query).await
    }

    async fn go_on(&self, session: &Session, mut before: Value) -> Result<(), Problem> {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.look(session).await?;
            let is_next = now["incarnation"] != before["incarnation"];
            if is_next {
                output::remark(format_args!("incarnation {} begins", now["incarnation"]));
            }
            let known = if is_next { "" } else { before["log"].as_str().unwrap_or_default() };
            let new = news(known, now["log"].as_str().unwrap_or_default());
            if !new.is_empty() {
                let item = serde_json::json!({"incarnation": now["incarnation"], "log": new});
                session.output.item(&item, |_| output::harmless(new))?;
            }
            before = now;
        }
    }
}

/// What of `now` is new, where both are the end of one text that grows. What repeats itself over the whole of `before`
/// may be taken for what is known.
fn news<'a>(before: &str, now: &'a str) -> &'a str {
    let known = before.char_indices().map(|(start, _)| &before[start..]).find(|known| now.starts_with(known));
    &now[known.map_or(0, str::len)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_shown_once() {
        assert_eq!(news("", "a\n"), "a\n");
        assert_eq!(news("a\n", "a\n"), "");
        assert_eq!(news("a\nb\n", "a\nb\nc\n"), "c\n");
        assert_eq!(news("a\nb\n", "b\nc\n"), "c\n", "the beginning has moved out of sight");
        assert_eq!(news("a\n", "x\ny\n"), "x\ny\n", "nothing of it is known");
        assert_eq!(news("é\nb", "b\nü"), "\nü");
    }
}
