//! The table of what can be set.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Config, LogFormat, SandboxKind, docker, nats, secrets};

/// One thing that can be set.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the file, and with `--set`.
    pub key: &'static str,
    /// What a value looks like.
    pub form: &'static str,
    /// What holds when nothing is set.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Reads a value into the configuration; says what would be right if it cannot.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Setting {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("HYPERCODE_{}", self.key.to_ascii_uppercase())
    }

    /// Whether a value may hold a secret, and is never repeated.
    pub(super) fn is_secret(&self) -> bool {
        matches!(self.key, "database_url" | "checkpoint_url")
    }
}

/// The kinds of sandboxes, by name.
const KINDS: [(&str, SandboxKind); 4] = [
    ("auto", SandboxKind::Auto),
    ("docker", SandboxKind::Docker),
    ("native", SandboxKind::Native),
    ("process", SandboxKind::Process),
];

/// Everything that can be set.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "data_dir",
        form: "directory",
        default: "`$XDG_DATA_HOME/hypercode`, else `~/.local/share/hypercode`",
        meaning: "Where the log, the views, the artifacts and the admin token are kept. With less than 1 MiB free there, `/readyz` is 503 and `doctor` says so, unless `database_url` keeps the log elsewhere.",
        set: |config, text| path(text).map(|dir| config.data_dir = dir),
    },
    Setting {
        key: "database_url",
        form: "`postgres://USER:PASSWORD@HOST:PORT/DATABASE`",
        default: "none",
        meaning: "The Postgres database that holds the log and the views, in place of files in the data directory. Several nodes may share it.",
        set: |config, text| {
            text.parse()
                .map(|database| config.database_url = Some(database))
                .map_err(|error| format!("{error}"))
        },
    },
    Setting {
        key: "listen",
        form: "address:port",
        default: "`127.0.0.1:7400`",
        meaning: "Where the HTTP API listens: a loopback address, or any with `tls_cert` and `tls_key`. Port 0 takes a free one.",
        set: |config, text| listen(text).map(|address| config.listen = address),
    },
    Setting {
        key: "tls_cert",
        form: "file",
        default: "none",
        meaning: "The certificate that the HTTP API shows, in PEM, followed by those that lead to a trusted one. Read again within ten seconds when it changes. Without it the API speaks no TLS.",
        set: |config, text| path(text).map(|file| config.tls_cert = Some(file)),
    },
    Setting {
        key: "tls_key",
        form: "file",
        default: "none",
        meaning: "Its private key, in PEM.",
        set: |config, text| path(text).map(|file| config.tls_key = Some(file)),
    },
    Setting {
        key: "tls_ca",
        form: "file",
        default: "the system's alone",
        meaning: "Certificates that commands trust beside the system's when they talk to a platform, in PEM: authorities', or the platform's own.",
        set: |config, text| path(text).map(|file| config.tls_ca = Some(file)),
    },
    Setting {
        key: "sandbox",
        form: "`auto`, `docker`, `native` or `process`",
        default: "`auto`",
        meaning: "What kind of sandbox agents run in. `docker` and `native` shut them off from the host, in containers or by namespaces alone; `process` does not isolate them. `auto` is `native` where a canary finds no way out, else `process`.",
        set: |config, text| one_of(text, &KINDS).map(|kind| config.sandbox = kind),
    },
    Setting {
        key: "sandbox_shares",
        form: "directories, joined by `:`",
        default: "none",
        meaning: "Directories of this host that agents in native sandboxes may read, each under its own path.",
        set: |config, text| {
            config.sandbox_shares = text.split(':').map(path).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Setting {
        key: "sandbox_image",
        form: "directory",
        default: "none",
        meaning: "An unpacked image whose programs native sandboxes see in place of this host's.",
        set: |config, text| path(text).map(|dir| config.sandbox_image = Some(dir)),
    },
    Setting {
        key: "sandbox_unproven",
        form: "`refuse` or `accept`",
        default: "`refuse`",
        meaning: "Whether agents are started in sandboxes of the kind that was asked for although a canary found a way out of one.",
        set: |config, text| {
            one_of(text, &[("refuse", false), ("accept", true)])
                .map(|accept| config.sandbox_unproven = accept)
        },
    },
    docker::SOCKET,
    docker::IMAGE,
    docker::RUNTIME,
    docker::RUNNER,
    docker::LINK,
    docker::SUBNETS,
    Setting {
        key: "run_dir",
        form: "directory",
        default: "`/tmp/hypercode-<uid>`",
        meaning: "Where the sandboxes' sockets are. Keep it short: a socket's path has 108 bytes at most.",
        set: |config, text| path(text).map(|dir| config.run_dir = Some(dir)),
    },
    Setting {
        key: "log",
        form: "filter directives",
        default: "`info`",
        meaning: "What the platform writes to its own log, such as `warn,hypercode=debug`.",
        set: |config, text| {
            config.log = text.to_owned();
            Ok(())
        },
    },
    Setting {
        key: "log_format",
        form: "`text` or `json`",
        default: "`text`",
        meaning: "How the platform writes its own log.",
        set: |config, text| {
            one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
                .map(|format| config.log_format = format)
        },
    },
    Setting {
        key: "drain_ms",
        form: "milliseconds, 0 to 3600000",
        default: "`10000`",
        meaning: "How long answers that are under way may take after SIGTERM. Agents work on, and are adopted by the next start.",
        set: |config, text| number(text, 0, 3_600_000).map(|ms| config.drain_ms = ms),
    },
    Setting {
        key: "request_ms",
        form: "milliseconds, 100 to 600000",
        default: "`30000`",
        meaning: "How long an HTTP request may take; assembling a crew and moving an artifact may take ten times as long.",
        set: |config, text| number(text, 100, 600_000).map(|ms| config.request_ms = ms),
    },
    Setting {
        key: "body_bytes_max",
        form: "bytes, 1024 to 67108864",
        default: "`2097152`",
        meaning: "Largest body of an HTTP request that is not an artifact.",
        set: |config, text| {
            number(text, 1_024, 67_108_864).map(|bytes| config.body_bytes_max = bytes as usize)
        },
    },
    Setting {
        key: "connections_max",
        form: "number, 1 to 65536",
        default: "`1024`",
        meaning: "Most HTTP connections at once; further ones wait.",
        set: |config, text| number(text, 1, 65_536).map(|count| config.connections_max = count as usize),
    },
    Setting {
        key: "requests_per_second",
        form: "number, 1 to 1000000",
        default: "`1000`",
        meaning: "Requests over HTTP and commands over NATS that one principal may make in a second; twice as many at once. What is more is answered 429, but for the kill switch.",
        set: |config, text| number(text, 1, 1_000_000).map(|count| config.requests_per_second = count as u32),
    },
    Setting {
        key: "strangers_per_second",
        form: "number, 1 to 1000000",
        default: "`50`",
        meaning: "Requests with tokens that turn out not to be known, in a second, all together; twice as many at once. While there are more, only tokens that were recognised before are taken, and others are answered 429.",
        set: |config, text| {
            number(text, 1, 1_000_000).map(|count| config.strangers_per_second = count as u32)
        },
    },
    Setting {
        key: "checkpoint_events",
        form: "number, 1 to 1000000",
        default: "`1000`",
        meaning: "Events after which a checkpoint of the log is signed.",
        set: |config, text| number(text, 1, 1_000_000).map(|count| config.checkpoint_events = count),
    },
    Setting {
        key: "checkpoint_ms",
        form: "milliseconds, 10 to 3600000",
        default: "`1000`",
        meaning: "How long an event waits for its checkpoint at most. Where nothing is new, nothing is signed.",
        set: |config, text| number(text, 10, 3_600_000).map(|ms| config.checkpoint_ms = ms),
    },
    Setting {
        key: "checkpoint_file",
        form: "file",
        default: "`checkpoints` in the data directory",
        meaning: "The file that every checkpoint is appended to. Best on another machine, or `chattr +a`.",
        set: |config, text| path(text).map(|file| config.checkpoint_file = Some(file)),
    },
    Setting {
        key: "checkpoint_dir",
        form: "directory",
        default: "none",
        meaning: "A directory that gets every checkpoint as a file of its own, such as the mount of a bucket with object lock.",
        set: |config, text| path(text).map(|dir| config.checkpoint_dir = Some(dir)),
    },
    Setting {
        key: "checkpoint_program",
        form: "file",
        default: "none",
        meaning: "A program that gets the newest checkpoint on its standard input and takes it out of the operator's hands.",
        set: |config, text| path(text).map(|file| config.checkpoint_program = Some(file)),
    },
    Setting {
        key: "checkpoint_url",
        form: "`https://HOST/PATH`",
        default: "none",
        meaning: "An object store that gets every checkpoint as an object of its own, by `PUT` with `If-None-Match: *`. With object lock nobody can take one back. A query, such as a signature, goes with every request.",
        set: |config, text| {
            crate::sinks::check_url("checkpoint_url", text).map_err(|error| error.to_string())?;
            config.checkpoint_url = Some(text.to_owned());
            Ok(())
        },
    },
    Setting {
        key: "checkpoint_headers_file",
        form: "file",
        default: "none",
        meaning: "Headers of every request to that store, `Name: value` a line, mode 0600: a token, or what the store asks for beside. Read anew each time.",
        set: |config, text| path(text).map(|file| config.checkpoint_headers_file = Some(file)),
    },
    Setting {
        key: "checkpoint_witness",
        form: "`https://HOST/PATH`, several with commas between",
        default: "none",
        meaning: "Witnesses (C2SP `tlog-witness`), each of which cosigns every newest checkpoint once it was proven to continue the one before; asked at `<url>/add-checkpoint`.",
        set: |config, text| {
            config.checkpoint_witness = list(text);
            for url in &config.checkpoint_witness {
                crate::sinks::check_url("checkpoint_witness", url).map_err(|error| error.to_string())?;
            }
            Ok(())
        },
    },
    Setting {
        key: "checkpoint_witness_key",
        form: "`NAME+ID+KEY`, several with commas between",
        default: "none",
        meaning: "The public keys of those witnesses, in the same order, as their operators hand them out.",
        set: |config, text| {
            let keys =
                list(text).iter().map(|key| events::audit::WitnessKey::parse(key)).collect::<Result<_, _>>();
            config.checkpoint_witness_key = keys.map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Setting {
        key: "checkpoint_nats",
        form: "`true` or `false`",
        default: "`true`",
        meaning: "Whether checkpoints go to the stream `HYPERCODE_CHECKPOINTS` of the NATS servers, where there are any.",
        set: |config, text| {
            one_of(text, &[("true", true), ("false", false)]).map(|value| config.checkpoint_nats = value)
        },
    },
    Setting {
        key: "master_key_file",
        form: "file",
        default: "`master.key` in the data directory",
        meaning: "The key that wraps the keys of data subjects and those that sign agents' tokens, made where there is none. Nodes that share a database need the same. Back it up apart from the rest.",
        set: |config, text| path(text).map(|file| config.master_key_file = Some(file)),
    },
    Setting {
        key: "issuers_file",
        form: "file",
        default: "none",
        meaning: "The OpenID Connect issuers whose tokens are taken beside the platform's own, and what their groups may do. See [access](access.md).",
        set: |config, text| path(text).map(|file| config.issuers_file = Some(file)),
    },
    secrets::ENV,
    secrets::FILES,
    secrets::COMMAND,
    secrets::COMMAND_MS,
    nats::URL,
    nats::NKEY,
    nats::CREDENTIALS,
    nats::AUTHORITIES,
    nats::CERTIFICATE,
    nats::KEY,
    nats::REPLICAS,
];

/// A path as it is from everywhere: sandboxes are started, and mounts made, in other directories than this one.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("expected a path".to_owned()),
        false => std::path::absolute(text).map_err(|error| format!("expected a path: {error}")),
    }
}

pub(super) fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

/// What stands between commas.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

pub(super) fn one_of<T: Copy>(text: &str, values: &[(&str, T)]) -> Result<T, String> {
    let names = || values.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
    values
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("expected {}", names()))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "expected an address and a port, such as `127.0.0.1:7400`".to_owned())
}

/// The settings as the table in `docs/configuration.md`.
pub fn table() -> String {
    let mut text = String::from("| key | variable | value | default | meaning |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let Setting { key, form, default, meaning, .. } = setting;
        let variable = setting.variable();
        let _ = writeln!(text, "| `{key}` | `{variable}` | {form} | {default} | {meaning} |");
    }
    text
}
