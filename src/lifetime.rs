//! What a node writes down of itself: that it started, stopped, made a key, or is set up otherwise than before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use events::api::{Caller, Problem, ProblemKind};
use events::domain::platform::{KeyCreated, SettingChanged, SettingsChanged, Started, Stopped};
use events::store::Appended;
use events::{Digest, EventStore, Principal, Tenant};

use crate::acts;
use crate::config::Config;

/// The file that is there while the platform runs on a data directory, and when it ended without a word.
const RUNNING_FILE: &str = "running";
/// The file with the settings that were recorded last.
const SETTINGS_FILE: &str = "settings.recorded";
/// How long the log may take with the last event of a platform that stops.
const LAST_WORD: Duration = Duration::from_secs(5);
/// Digits of a fingerprint.
const FINGERPRINT_CHARS: usize = 16;

/// A node that runs, from its start to its stop.
pub(crate) struct Lifetime {
    node: String,
    running: PathBuf,
    caller: Caller,
}

/// Who a node is in the events that it writes of itself.
fn caller_of(node: &str) -> Caller {
    let principal = format!("node:{node}").parse();
    Caller {
        tenant: Tenant::default(),
        principal: principal.unwrap_or_else(|_| Principal::system("node")),
        idempotency_key: None,
        traceparent: None,
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Problem {
    let place = path.display().to_string();
    move |error| Problem::new(ProblemKind::Unavailable, format!("use `{place}`: {error}"))
}

impl Lifetime {
    /// Records that `node` starts, and what is set otherwise than at its last start.
    pub(crate) async fn begin(store: &dyn EventStore, config: &Config, node: &str) -> Result<Self, Problem> {
        let running = config.data_dir.join(RUNNING_FILE);
        let lifetime = Self { node: node.to_owned(), caller: caller_of(node), running };
        let after_crash = lifetime.running.exists();
        let started =
            Started { node: node.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned(), after_crash };
        fs::write(&lifetime.running, b"").map_err(failed(&lifetime.running))?;
        lifetime.record(store, started).await?;
        lifetime.compare(store, config).await?;
        Ok(lifetime)
    }

    async fn record(
        &self,
        store: &dyn EventStore,
        event: impl Into<events::domain::platform::Event>,
    ) -> Result<Appended, Problem> {
        acts::record(store, &self.caller, &format!("node.{}", self.node), event).await
    }

    async fn compare(&self, store: &dyn EventStore, config: &Config) -> Result<(), Problem> {
        let file = config.data_dir.join(SETTINGS_FILE);
        let now: BTreeMap<String, String> =
            weighty(config).filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        let (is_known, text) = match fs::read_to_string(&file) {
            Ok(text) => (true, text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (false, "{}".to_owned()),
            Err(error) => return Err(failed(&file)(error)),
        };
        let before: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_else(|error| {
            tracing::warn!(file = %file.display(), %error, "it cannot be read: every setting is recorded as new");
            BTreeMap::new()
        });
        if before == now {
            return Ok(());
        }
        if is_known {
            let node = self.node.clone();
            self.record(store, SettingsChanged { node, changed: differences(&before, &now) }).await?;
        }
        let text = serde_json::to_string_pretty(&now).expect("texts are plain data");
        // Whole or not at all: from half a file every setting would seem to be new.
        let fresh = file.with_extension("new");
        let write = || {
            let mut out = fs::File::create(&fresh)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            fs::rename(&fresh, &file)
        };
        write().map_err(failed(&file))
    }

    /// Records that a key was made. Of a secret only a fingerprint is told.
    pub(crate) async fn made_key(
        &self,
        store: &dyn EventStore,
        key: &str,
        fingerprint: String,
    ) -> Result<(), Problem> {
        let node = self.node.clone();
        self.record(store, KeyCreated { node, key: key.to_owned(), fingerprint }).await.map(drop)
    }

    /// Records that the node stops in good order. A log that does not take it any more does not keep it from stopping.
    pub(crate) async fn end(&self, store: &dyn EventStore) {
        let stopped = Stopped { node: self.node.clone() };
        match tokio::time::timeout(LAST_WORD, self.record(store, stopped)).await {
            Ok(Ok(_)) => {
                if let Err(error) = fs::remove_file(&self.running) {
                    tracing::warn!(file = %self.running.display(), %error, "it cannot be removed");
                }
            }
            Ok(Err(problem)) => tracing::warn!(%problem, "the stop was not recorded"),
            Err(_) => tracing::warn!("the stop was not recorded: the log does not answer"),
        }
    }
}

/// What tells a secret of 128 bits or more from others and does not give it away.
pub(crate) fn fingerprint(secret: &[u8]) -> String {
    let mut text = Digest::of(secret).to_string();
    text.truncate(FINGERPRINT_CHARS);
    text
}

/// The settings on which it depends who can do what, and what can be proven; none with a secret in it.
fn weighty(config: &Config) -> impl Iterator<Item = (&'static str, Option<String>)> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let (nats, docker) = (&config.nats, &config.docker);
    let shares = config.sandbox_shares.iter().map(|share| share.display().to_string()).collect::<Vec<_>>();
    let shares = (!shares.is_empty()).then(|| shares.join(", "));
    // What follows a `?` may be a secret.
    let place = |url: &String| url.split('?').next().unwrap_or_default().to_owned();
    let url = |url: &Option<String>| url.as_ref().map(place);
    let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
    [
        ("listen", Some(config.listen.to_string())),
        ("tls_cert", path(&config.tls_cert)),
        ("tls_key", path(&config.tls_key)),
        ("sandbox", Some(format!("{:?}", config.sandbox).to_lowercase())),
        ("sandbox_shares", shares),
        ("sandbox_image", path(&config.sandbox_image)),
        ("sandbox_unproven", Some(if config.sandbox_unproven { "accept" } else { "refuse" }.to_owned())),
        ("docker_socket", Some(docker.socket.display().to_string())),
        ("docker_image", Some(docker.image.clone())),
        ("docker_runtime", docker.runtime.clone()),
        ("docker_runner", path(&docker.runner)),
        ("docker_link", Some(format!("{:?}", docker.link).to_lowercase())),
        ("docker_subnets", Some(docker.subnets.to_string())),
        ("run_dir", path(&config.run_dir)),
        ("requests_per_second", Some(config.requests_per_second.to_string())),
        ("strangers_per_second", Some(config.strangers_per_second.to_string())),
        ("secret_env", list(config.secrets.env.clone())),
        ("secret_files", list(config.secrets.files.iter().map(|dir| dir.display().to_string()).collect())),
        ("secret_command", path(&config.secrets.command)),
        ("database_url", config.database_url.as_ref().map(ToString::to_string)),
        ("checkpoint_file", path(&config.checkpoint_file)),
        ("checkpoint_dir", path(&config.checkpoint_dir)),
        ("checkpoint_program", path(&config.checkpoint_program)),
        ("checkpoint_url", url(&config.checkpoint_url)),
        ("checkpoint_headers_file", path(&config.checkpoint_headers_file)),
        ("checkpoint_events", Some(config.checkpoint_events.to_string())),
        ("checkpoint_ms", Some(config.checkpoint_ms.to_string())),
        ("checkpoint_witness", list(config.checkpoint_witness.iter().map(place).collect())),
        (
            "checkpoint_witness_key",
            list(config.checkpoint_witness_key.iter().map(ToString::to_string).collect()),
        ),
        ("checkpoint_nats", Some(config.checkpoint_nats.to_string())),
        ("master_key_file", path(&config.master_key_file)),
        ("issuers_file", config.issuers_file.as_deref().map(with_content)),
        ("nats_url", nats.url.as_ref().map(ToString::to_string)),
        ("nats_nkey", path(&nats.nkey)),
        ("nats_credentials", path(&nats.credentials)),
        ("nats_ca", path(&nats.authorities)),
        ("nats_certificate", path(&nats.certificate)),
        ("nats_key", path(&nats.key)),
    ]
    .into_iter()
}

/// A file by its name and what is in it: who may do what is said there.
fn with_content(file: &Path) -> String {
    let content = fs::read(file).map_or_else(|error| error.to_string(), |bytes| fingerprint(&bytes));
    format!("{} ({content})", file.display())
}

fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<SettingChanged> {
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
    changed
        .map(|key| SettingChanged {
            setting: key.clone(),
            from: before.get(key).cloned(),
            to: now.get(key).cloned(),
        })
        .collect()
}

/// Records that the log was brought to another schema, in the name of who ran the command.
pub(crate) async fn record_migration(store: &dyn EventStore) -> Result<(), Problem> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let event = events::domain::platform::Migrated { version };
    acts::record(store, &acts::command_line(), "schema", event).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Position;
    use events::store::Memory;

    /// What is no matter of who can do what, or of what can be proven.
    const TRIFLES: [&str; 10] = [
        "data_dir",
        "log",
        "log_format",
        "drain_ms",
        "request_ms",
        "body_bytes_max",
        "connections_max",
        "nats_replicas",
        "tls_ca",
        "secret_command_ms",
    ];

    #[test]
    fn every_setting_is_recorded_or_known_for_a_trifle() {
        let config = Config::default();
        let recorded: Vec<&str> = weighty(&config).map(|(key, _)| key).collect();
        for setting in crate::config::SETTINGS {
            let (key, is_trifle) = (setting.key, TRIFLES.contains(&setting.key));
            assert_ne!(recorded.contains(&key), is_trifle, "`{key}` belongs to one of the two");
        }
    }

    async fn kinds(store: &Memory) -> Vec<String> {
        let events = store.read(Position(0), 100).await.unwrap();
        events.iter().map(|event| format!("{} {}", event.kind, event.payload)).collect()
    }

    #[tokio::test]
    async fn a_node_tells_how_it_ended_and_what_is_set_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let store = Memory::new();
        let mut config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
        Lifetime::begin(&store, &config, "n1").await.unwrap().end(&store).await;
        drop(Lifetime::begin(&store, &config, "n1").await.unwrap());
        config.checkpoint_dir = Some("/mnt/worm".into());
        config.listen = "127.0.0.1:1".parse().unwrap();
        let lifetime = Lifetime::begin(&store, &config, "n1").await.unwrap();
        lifetime.made_key(&store, "admin_token", fingerprint(b"secret")).await.unwrap();
        drop(lifetime);
        fs::write(directory.path().join(SETTINGS_FILE), "{").unwrap();
        drop(Lifetime::begin(&store, &config, "n1").await.unwrap());
        let told = kinds(&store).await;
        let short: Vec<&str> = told.iter().map(|event| event.split(' ').next().unwrap()).collect();
        let started = "platform_started";
        let changed = "settings_changed";
        assert_eq!(
            short,
            [started, "platform_stopped", started, started, changed, "key_created", started, changed]
        );
        let crashed = told.iter().map(|event| event.contains("\"after_crash\":true")).collect::<Vec<_>>();
        assert_eq!(crashed, [false, false, false, true, false, false, true, false]);
        assert!(told[4].contains(r#"{"setting":"checkpoint_dir","from":null,"to":"/mnt/worm"}"#), "{told:?}");
        assert!(told[4].contains("127.0.0.1:7400") && !told[5].contains("secret"), "{told:?}");
    }
}
