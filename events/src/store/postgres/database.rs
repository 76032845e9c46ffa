//! Which database, and how to reach it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;

/// How long a transaction of ours may stand idle before the server ends it, in milliseconds: a node that is paused
/// while it holds the head would otherwise hold up all others.
const IDLE_IN_TRANSACTION_MS: u64 = 1_000;

/// What a URL may say behind the question mark.
const PARAMETERS: [&str; 15] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
];

/// A Postgres database and the way to it. Shows itself without its secrets.
#[derive(Clone)]
pub struct Database {
    url: Arc<str>,
    settings: PgConnectOptions,
}

/// The text is not the URL of a Postgres database. It is not repeated, since it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; expected `postgres://USER:PASSWORD@HOST:PORT/DATABASE`")]
pub struct InvalidUrl {
    reason: String,
}

impl Database {
    /// How to connect, where the server may work at a statement for so long.
    pub(crate) fn settings(&self, statement_ms: u64) -> PgConnectOptions {
        self.settings.clone().application_name("hypercode").options([
            ("statement_timeout", statement_ms.to_string()),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_MS.to_string()),
        ])
    }
}

impl FromStr for Database {
    type Err = InvalidUrl;

    fn from_str(url: &str) -> Result<Self, InvalidUrl> {
        let invalid = |reason: &str| InvalidUrl { reason: reason.to_owned() };
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(invalid("the URL does not begin with `postgres://`"));
        }
        if let Some((_, parameters)) = url.split_once('?') {
            let names = parameters.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
            let mut unknown = names.filter(|name| !PARAMETERS.contains(name) && !name.starts_with("options"));
            if unknown.next().is_some() {
                // It is not named: what follows a `?` may be the rest of a password that was not encoded.
                return Err(invalid("a parameter of the URL is not known"));
            }
        }
        let settings: PgConnectOptions = url.parse().map_err(|_| invalid("the URL cannot be read"))?;
        Ok(Self { url: url.into(), settings })
    }
}

impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for Database {}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, database) = (self.settings.get_username(), self.settings.get_database());
        match self.settings.get_socket() {
            Some(socket) => write!(f, "postgres://{user}@{}", socket.display())?,
            None => write!(f, "postgres://{user}@{}:{}", self.settings.get_host(), self.settings.get_port())?,
        }
        write!(f, "/{}", database.unwrap_or(user))
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_shows_itself_without_its_secrets() {
        let url = "postgres://node:s3cret@db.example:5433/log?sslmode=require&password=s3cret";
        let database: Database = url.parse().expect("a URL");
        assert_eq!(database.to_string(), "postgres://node@db.example:5433/log");
        assert!(!format!("{database:?}").contains("s3cret"));
        let local: Database = "postgres://node:s3cret@%2Frun%2Fpg/log".parse().expect("a URL");
        assert_eq!(local.to_string(), "postgres://node@/run/pg/log");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_the_url() {
        for url in [
            "mysql://root:s3cret@db/log",
            "postgres://node:s3cret@db:port/log",
            "postgres://node:s3cret@db/log?sslmode=s3cret",
            "postgres://node@db/log?passwort=s3cret",
            "postgres://node:12?s3cret@db/log",
            "s3cret",
        ] {
            let refused = url.parse::<Database>().expect_err(url).to_string();
            assert!(!refused.contains("s3cret") && refused.contains("postgres://USER"), "{refused}");
        }
    }
}
