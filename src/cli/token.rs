//! `hypercode token`: who may come in, and by what.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::Outcome;
use super::role::place;
use super::session::Session;
use crate::client::escape;
use crate::output::Column;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token; its secret is printed once and kept nowhere.
    Mint {
        /// A role that it is for, such as `auditor`; may be repeated.
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<String>,
        /// Who is to come in by it [default: `user:` and the first role].
        #[arg(long, value_name = "PRINCIPAL")]
        principal: Option<String>,
        /// How far it reaches, whatever its roles: `platform`, `tenant:NAME` or `crew:ID` [default: the tenant if one
        /// is named or one's own roles name one, else the platform].
        #[arg(long)]
        scope: Option<String>,
        /// What it is for, in words for people.
        #[arg(long, value_name = "TEXT", default_value = "")]
        purpose: String,
        /// How long it lives, such as `12h` or `30d`; a year at most.
        #[arg(long, value_name = "DURATION", default_value = "30d")]
        expires: String,
    },
    /// List the tokens that were made, without their secrets.
    List,
    /// End a token at once.
    Revoke {
        /// Its id.
        token: String,
        /// Why, for the log.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
}

const COLUMNS: [Column; 7] = [
    Column::new("ID", "/id"),
    Column::new("PRINCIPAL", "/principal"),
    Column::new("STATE", "/state"),
    Column::new("ROLES", "/roles"),
    Column::new("SCOPE", "/scope"),
    Column::new("EXPIRES", "/expiresAt"),
    Column::new("PURPOSE", "/purpose"),
];

impl Token {
    pub(super) async fn run(self, session: &Session) -> Outcome {
        match self {
            Self::Mint { roles, principal, scope, purpose, expires } => {
                let principal = principal.unwrap_or_else(|| format!("user:{}", roles[0]));
                let body = json!({
                    "principal": principal, "roles": roles, "scope": scope, "purpose": purpose, "expires": expires,
                });
                let done = session.client.post("/v1/tokens", &body, None).await?;
                session.output.value(&done, minted)?;
            }
            Self::List => session.output.page(&session.client.get("/v1/tokens", &[]).await?, &COLUMNS)?,
            Self::Revoke { token, reason } => {
                let path = format!("/v1/tokens/{}/revoke", escape(&token));
                let done = session.client.post(&path, &json!({"reason": reason}), None).await?;
                session.output.value(&done, |_| format!("token {token} opens nothing any more"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn minted(done: &Value) -> String {
    let text = |field: &str| done["body"][field].as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| {
        let items = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(", ")
    };
    format!(
        "{}\n\ntoken {} of {} for {}{} until {}; this is the only time that its secret is shown.\nUse it as HYPERCODE_TOKEN, or put it into a file for --token-file.",
        text("secret"),
        text("token"),
        text("principal"),
        list(&done["body"]["roles"]),
        place(done),
        text("expiresAt"),
    )
}
