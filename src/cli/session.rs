//! What the commands that talk to a platform share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use events::api::{Problem, ProblemKind};
use serde_json::Value;

use super::Global;
use crate::api::Token;
use crate::client::Client;
use crate::config::{Config, Sources};
use crate::output::{Column, Output};

/// Most items that are asked for at a time.
const PAGE_ITEMS_MAX: usize = 500;

/// How much of a list is wanted.
#[derive(Debug, clap::Args)]
pub(super) struct Listing {
    /// Print at most so many, the newest.
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print all, however many there are.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Listing {
    fn items_max(&self) -> usize {
        if self.all { usize::MAX } else { self.limit.try_into().unwrap_or(usize::MAX) }
    }
}

/// A connection to a platform, and where to print.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) output: Output,
}

impl Session {
    /// Finds server and token: what the command line and the environment name, else what the data directory says.
    pub(super) fn open(global: &Global, output: Output) -> Result<Self, Problem> {
        let config = config(global, Vec::new())?;
        let server = match &global.server {
            Some(server) => server.clone(),
            None => listening(&config),
        };
        let client = Client::new(&server, token(global, &config)?, config.tls_ca.as_deref())?;
        let client = client.about(global.tenant.clone());
        Ok(Self { client, output })
    }

    /// Prints a list with the newest at its end.
    pub(super) async fn list<const N: usize>(
        &self,
        path: &str,
        filter: [(&'static str, Option<String>); N],
        listing: &Listing,
        columns: &[Column],
    ) -> Result<(), Problem> {
        let items_max = listing.items_max();
        let filter: Vec<_> = filter.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        let page = loop {
            let limit = items_max.saturating_sub(items.len()).min(PAGE_ITEMS_MAX);
            let mut query = filter.clone();
            query.extend([("order", "newest".to_owned()), ("limit", limit.to_string())]);
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page = self.client.get(path, &query).await?;
            if let Some(found) = page["items"].as_array_mut() {
                items.append(found);
            }
            cursor = match &page["next"] {
                Value::Null => None,
                Value::String(next) => Some(next.clone()),
                next => Some(next.to_string()),
            };
            if cursor.is_none() || items.len() >= items_max {
                items.reverse();
                page["items"] = Value::Array(items);
                break page;
            }
        };
        self.output.page(&page, columns)?;
        if cursor.is_some() {
            crate::output::remark(format_args!("these are the newest {items_max}; `--all` prints all"));
        }
        Ok(())
    }
}

/// The configuration of this command line; `flags` are those that only one command has.
pub(super) fn config(global: &Global, flags: Vec<(String, String)>) -> Result<Config, Problem> {
    let mut flags = [global.set.clone(), flags].concat();
    if let Some(dir) = &global.data_dir {
        flags.push(("data_dir".to_owned(), dir.display().to_string()));
    }
    let faults = match Sources::of_process(global.config.as_deref(), flags) {
        Ok(sources) => match Config::load(&sources) {
            Ok(config) => return Ok(config),
            Err(faults) => faults,
        },
        Err(fault) => vec![fault],
    };
    let mut problem = Problem::new(ProblemKind::Invalid, "the configuration is not right");
    problem.faults = faults.iter().map(|fault| serde_json::json!({"message": fault.to_string()})).collect();
    Err(problem)
}

/// The URL of the platform of the data directory, where it runs or would.
fn listening(config: &Config) -> String {
    let known = std::fs::read_to_string(config.address_file()).ok();
    let known = known.as_deref().map(str::trim).filter(|known| !known.is_empty());
    let (scheme, address) = match known {
        Some(known) => known.split_once("://").unwrap_or(("http", known)),
        None => (if config.tls().is_some() { "https" } else { "http" }, ""),
    };
    let mut address: SocketAddr = address.parse().unwrap_or(config.listen);
    if address.ip().is_unspecified() {
        let here: IpAddr =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(here);
    }
    format!("{scheme}://{address}")
}

fn token(global: &Global, config: &Config) -> Result<Token, Problem> {
    let invalid = |error: crate::api::TokenError| Problem::new(ProblemKind::Invalid, error.to_string());
    if let Some(file) = &global.token_file {
        return Token::read(file).map_err(invalid);
    }
    if let Ok(text) = std::env::var("HYPERCODE_TOKEN") {
        return Token::parse(&text, "`HYPERCODE_TOKEN`").map_err(invalid);
    }
    Token::read(&config.token_file()).map_err(|error| {
        let detail = format!(
            "{error}; is the platform of this data directory running? start it with `hypercode up`, or name another directory with `--data-dir`, or a token with `--token-file`"
        );
        Problem::new(ProblemKind::Unavailable, detail)
    })
}
