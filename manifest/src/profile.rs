//! The profile: a versioned template of an agent.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ApiVersion, Bytes, Cpu, Metadata, Millis, Name};

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// The version of the manifest's form.
    pub api_version: ApiVersion,
    /// What the profile is called and who owns it.
    pub metadata: Metadata,
    /// What an agent of this profile is.
    pub spec: ProfileSpec,
}

/// What an agent of a profile is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileSpec {
    /// What the agent does, in a line; its peers see it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub description: String,
    /// The image of container and native sandboxes. Absent: the platform's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The runtime that runs its container, by the name that the Docker daemon lists, such as `runsc`. Absent: the
    /// platform's default. Other kinds of sandboxes have none to choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
    pub runtime_class: Option<String>,
    /// The user's program and how it is driven.
    pub handler: Handler,
    /// The limits of the agent's sandbox.
    #[serde(default)]
    pub resources: Resources,
    /// The models that the agent may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub models: Vec<Model>,
    /// The tool servers that the agent may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tools: Vec<ToolServer>,
    /// The secrets that the agent is given when it is assigned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secrets: Vec<Secret>,
    /// When a task that failed is tried again.
    #[serde(default)]
    pub retry: Retry,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("propertyNames" = {"pattern": "^(?!HYPERCODE_)[A-Za-z_][A-Za-z0-9_]*$"}))]
    pub env: BTreeMap<String, String>,
}

impl ProfileSpec {
    /// The most entries in each of models, tools and secrets.
    pub const ENTRIES_MAX: usize = 64;
    /// The most environment variables.
    pub const ENV_MAX: usize = 256;
    /// The most bytes in the value of an environment variable.
    pub const ENV_VALUE_BYTES_MAX: usize = 32 * 1024;
    /// The most characters in a description.
    pub const DESCRIPTION_MAX: usize = 1_024;
    /// The most characters in a runtime's name.
    pub const RUNTIME_MAX: usize = 64;
}

/// The user's program and how it is driven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Handler {
    /// How the runner talks to the program.
    #[serde(default)]
    pub protocol: Protocol,
    /// The program and its arguments, started without a shell.
    #[schemars(length(min = 1, max = 256))]
    pub command: Vec<String>,
    /// A file or directory, relative to the manifest, that is packed and placed into the sandbox.
    /// Absent: the command is found in the image or on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The directory within the source in which the program starts. Absent: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// How many tasks one agent works on at once, 1 to 64.
    #[serde(default = "Handler::default_concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
    /// How long the program may take to become ready.
    #[serde(default = "Handler::default_start_timeout")]
    pub start_timeout: Millis,
    /// How long one attempt at a task may take. Absent: until the task's own deadline, and without one for ever. It is
    /// all that ends an `exec` or `http` handler that hangs, for those say nothing while they work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Millis>,
    /// How long a canceled or stopped program may take to end by itself.
    #[serde(default = "Handler::default_grace")]
    pub grace: Millis,
    /// `exec` only: what the program reads from its standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Stdin>,
    /// `exec` only: what the program writes to its standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Stdout>,
    /// `http` only: what a JSON answer is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Response>,
    /// `http` only: the port to listen on in a network namespace of its own. Absent: 8080. Where the
    /// sandbox shares the machine's network the port is ephemeral. The program reads it from `PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
}

impl Handler {
    /// The greatest concurrency.
    pub const CONCURRENCY_MAX: u32 = 64;
    /// The most words in a command.
    pub const COMMAND_MAX: usize = 256;
    /// The longest wait for readiness.
    pub const START_TIMEOUT_MAX: Millis = Millis::from_secs(3_600);
    /// The longest wait for a program to end.
    pub const GRACE_MAX: Millis = Millis::from_secs(600);

    /// The handler to go on with where none could be read.
    pub(crate) fn missing() -> Self {
        Self {
            protocol: Protocol::default(),
            command: Vec::new(),
            source: None,
            cwd: None,
            concurrency: Self::default_concurrency(),
            start_timeout: Self::default_start_timeout(),
            timeout: None,
            grace: Self::default_grace(),
            stdin: None,
            stdout: None,
            response: None,
            port: None,
        }
    }

    /// The concurrency where none is given: 1.
    pub const fn default_concurrency() -> u32 {
        1
    }

    /// The time to readiness where none is given: 60 seconds.
    pub const fn default_start_timeout() -> Millis {
        Millis::from_secs(60)
    }

    /// The time to end where none is given: 10 seconds.
    pub const fn default_grace() -> Millis {
        Millis::from_secs(10)
    }
}

/// How the runner talks to the handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// JSON-RPC 2.0 on standard input and output, one object a line.
    #[default]
    Stdio,
    /// The program has its own main loop and asks for work over HTTP.
    Pull,
    /// One process a task.
    Exec,
    /// The program is an HTTP server.
    Http,
}

impl Protocol {
    /// The protocol as a manifest writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Stdio => "stdio",
            Protocol::Pull => "pull",
            Protocol::Exec => "exec",
            Protocol::Http => "http",
        }
    }
}

/// What an `exec` handler reads from its standard input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stdin {
    /// The input's text.
    #[default]
    Text,
    /// The whole parameters of the task as JSON.
    Json,
}

/// What an `exec` handler writes to its standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stdout {
    /// The output as text.
    #[default]
    Text,
    /// The output as JSON.
    Json,
    /// A whole result of a task as JSON.
    Result,
}

/// What the JSON answer of an `http` handler is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// The output.
    #[default]
    Output,
    /// A whole result of a task.
    Result,
}

/// The limits of an agent's sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Bytes,
    /// Processes and threads, 4 to 32768.
    #[schemars(range(min = 4, max = 32768))]
    pub pids: u32,
    /// The size of the work directory.
    pub work: Bytes,
}

impl Resources {
    /// The most processor time: 64 cores.
    pub const CPU_MAX: Cpu = Cpu::from_millicores(64_000);
    /// The least processor time.
    pub const CPU_MIN: Cpu = Cpu::from_millicores(10);
    /// The most memory, and the largest work directory: 1 TiB.
    pub const MEMORY_MAX: Bytes = Bytes::from_mebibytes(1 << 20);
    /// The least memory, below which no runner and handler start: 16 MiB.
    pub const MEMORY_MIN: Bytes = Bytes::from_mebibytes(16);
    /// The smallest work directory.
    pub const WORK_MIN: Bytes = Bytes::from_mebibytes(1);
    /// The least number of processes: the runner's threads and the handler.
    pub const PIDS_MIN: u32 = 4;
    /// The most processes.
    pub const PIDS_MAX: u32 = 32_768;
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu: Cpu::from_millicores(500),
            memory: Bytes::from_mebibytes(256),
            pids: 64,
            work: Bytes::from_mebibytes(64),
        }
    }
}

/// A model that the agent may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Model {
    /// The name that the agent's SDK sends; `default` admits any name and has it rewritten.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// The most tokens of one answer. Absent: as the upstream allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_tokens: Option<u64>,
}

impl Model {
    /// The most characters in a model's name.
    pub const NAME_MAX: usize = 128;
    /// The most tokens that may be allowed to one answer.
    pub const TOKENS_MAX: u64 = 1_000_000_000;
}

/// A tool server that the agent may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ToolServer {
    /// The server's name in the platform's configuration.
    pub server: Name,
    /// The tools that may be called freely.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// The tools that may be called once a person approves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approve: Vec<String>,
}

impl ToolServer {
    /// The most tools in each of `allow` and `approve`.
    pub const TOOLS_MAX: usize = 256;
}

/// A secret that the agent is given when it is assigned. The manifest names where the value is
/// and never holds it. It is read anew for each life of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    /// The environment variable in which the handler finds it, or the path of the file that holds it.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Where the platform finds the value.
    pub from: SecretSource,
    /// How the handler finds it.
    #[serde(default, rename = "as", skip_serializing_if = "SecretForm::is_default")]
    pub form: SecretForm,
}

/// How a handler finds a secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretForm {
    /// Its variable holds the value.
    #[default]
    Env,
    /// Its variable holds the path of a file that holds the value, which only the agent can read.
    File,
}

impl SecretForm {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the platform finds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SecretSource {
    /// In this environment variable of the platform, one that its setting `secret_env` names.
    Env(String),
    /// In this file on the platform's machine, an absolute path within a directory of its setting
    /// `secret_files`.
    File(String),
    /// What the command of the platform's setting `secret_command` writes when it is given this key.
    VaultCommand(String),
    /// What the platform keeps under this name for the crew's tenant, given to it by `hypercode secret set`.
    Stored(String),
}

impl SecretSource {
    /// The kind of the source, in a word.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::File(_) => "file",
            Self::VaultCommand(_) => "vault_command",
            Self::Stored(_) => "stored",
        }
    }

    /// As what the secret is known there.
    pub fn reference(&self) -> &str {
        match self {
            Self::Env(name) | Self::File(name) | Self::VaultCommand(name) | Self::Stored(name) => name,
        }
    }

    /// Whether a stored secret may have this name: 1 to 64 letters, digits, `_`, `-` and `.`, a letter or digit first.
    pub fn is_stored_name(name: &str) -> bool {
        name.len() <= 64 && is_word(name, b"_-.")
    }

    /// Whether a command may be given this key: at most 256 letters, digits and `_-./:@#`, a letter or digit first, so
    /// that none is an option, and none with `..`, so that none leads out of where it begins.
    pub(crate) fn is_key(key: &str) -> bool {
        key.len() <= 256 && is_word(key, b"_-./:@#") && !key.contains("..")
    }
}

fn is_word(text: &str, beside: &[u8]) -> bool {
    text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || beside.contains(&byte))
}

/// When a task that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retry {
    /// The most attempts at one task after crashes and losses, 1 to 20.
    #[schemars(range(min = 1, max = 20))]
    pub max_attempts: u32,
    /// What a failure is that the handler did not classify: a repeated model run is money spent
    /// twice, so it is permanent unless the profile says otherwise.
    pub unclassified: RetryClass,
}

impl Retry {
    /// The most attempts that may be allowed.
    pub const ATTEMPTS_MAX: u32 = 20;
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_attempts: 3, unclassified: RetryClass::default() }
    }
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryClass {
    /// It may.
    Transient,
    /// It will not.
    #[default]
    Permanent,
}
