//! Which artifacts the log refers to, and who does.

use std::collections::BTreeSet;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Error};

use crate::id::{AgentId, Digest};

/// `log_of` is the agent whose log an artifact is, and empty for all other references.
const SCHEMA: &str = "
    CREATE TABLE seen (digest TEXT, log_of TEXT, PRIMARY KEY (digest, log_of)) WITHOUT ROWID;
    CREATE INDEX logs ON seen (log_of) WHERE log_of <> ''";

/// One reference: the artifact, and the agent whose log it is, if it is one.
pub(super) type Reference = (Digest, Option<AgentId>);

/// References that are not the data subject's: in a database without a name, which SQLite keeps in memory as long as it
/// is small, then in a file that is gone when this is dropped.
pub(super) struct Seen(SqliteConnection);

impl Seen {
    pub(super) async fn new() -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename("")
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off);
        let mut connection = options.connect().await?;
        sqlx::raw_sql(SCHEMA).execute(&mut connection).await?;
        Ok(Self(connection))
    }

    pub(super) async fn add(&mut self, references: &BTreeSet<Reference>) -> Result<(), Error> {
        if references.is_empty() {
            return Ok(());
        }
        let row = |(digest, agent): &Reference| {
            (digest.to_string(), agent.as_ref().map_or("", AgentId::as_str).to_owned())
        };
        let rows: Vec<_> = references.iter().map(row).collect();
        let rows = serde_json::to_string(&rows).expect("texts are JSON");
        let sql = "INSERT OR IGNORE INTO seen SELECT value ->> 0, value ->> 1 FROM json_each($1)";
        sqlx::query(sql).bind(rows).execute(&mut self.0).await.map(drop)
    }

    /// The logs that are kept of an agent.
    pub(super) async fn logs(&mut self, agent: &AgentId) -> Result<Vec<Digest>, Error> {
        let sql = "SELECT digest FROM seen WHERE log_of = $1 AND log_of <> ''";
        let found: Vec<String> = sqlx::query_scalar(sql).bind(agent.as_str()).fetch_all(&mut self.0).await?;
        Ok(found.iter().filter_map(|digest| digest.parse().ok()).collect())
    }

    /// Whether anybody refers to an artifact but as a log of one of `agents`.
    pub(super) async fn has_others(
        &mut self,
        digest: Digest,
        agents: &BTreeSet<AgentId>,
    ) -> Result<bool, Error> {
        let sql = "SELECT log_of FROM seen WHERE digest = $1";
        let found: Vec<String> =
            sqlx::query_scalar(sql).bind(digest.to_string()).fetch_all(&mut self.0).await?;
        Ok(!found.iter().all(|log_of| log_of.parse().is_ok_and(|agent: AgentId| agents.contains(&agent))))
    }
}
