//! Reading the spec of a profile.

use crate::decode::{
    At, Fields, choice, distinct, environment, is_variable, list, missing_name, name, quantity,
};
use crate::decode::{check_own_variable, text, whole};
use crate::fault::{Code, Fault, Faults};
use crate::tree::Value;
use crate::{
    Handler, Millis, Model, ProfileSpec, Protocol, Resources, Response, Retry, RetryClass, Secret,
    SecretForm, SecretSource, Stdin, Stdout, ToolServer,
};

const PATH_CHARS_MAX: usize = 1_024;
const WORD_CHARS_MAX: usize = 256;

pub(crate) fn profile_spec(at: &At<'_>, faults: &mut Faults) -> ProfileSpec {
    let mut fields = Fields::of(at, faults);
    let spec = ProfileSpec {
        description: fields.optional("description", text(ProfileSpec::DESCRIPTION_MAX)).unwrap_or_default(),
        image: fields.optional("image", image),
        runtime_class: fields.optional("runtimeClass", runtime_class),
        handler: fields.required("handler", handler).unwrap_or_else(Handler::missing),
        resources: fields.optional("resources", resources).unwrap_or_default(),
        models: fields.optional("models", list(0..=ProfileSpec::ENTRIES_MAX, model)).unwrap_or_default(),
        tools: fields.optional("tools", list(0..=ProfileSpec::ENTRIES_MAX, tool_server)).unwrap_or_default(),
        secrets: fields.optional("secrets", list(0..=ProfileSpec::ENTRIES_MAX, secret)).unwrap_or_default(),
        retry: fields.optional("retry", retry).unwrap_or_default(),
        env: fields.optional("env", environment).unwrap_or_default(),
    };
    fields.finish();
    spec
}

fn handler(at: &At<'_>, faults: &mut Faults) -> Option<Handler> {
    let long = Millis::new(1)..=Millis::from_secs(30 * 86_400);
    let mut fields = Fields::of(at, faults);
    let handler = Handler {
        protocol: fields.optional("protocol", protocol).unwrap_or_default(),
        command: fields.required("command", command).unwrap_or_default(),
        source: fields.optional("source", inner_path),
        cwd: fields.optional("cwd", inner_path),
        concurrency: fields
            .optional("concurrency", whole(1..=Handler::CONCURRENCY_MAX))
            .unwrap_or_else(Handler::default_concurrency),
        start_timeout: fields
            .optional("startTimeout", quantity(Millis::new(100)..=Handler::START_TIMEOUT_MAX))
            .unwrap_or_else(Handler::default_start_timeout),
        timeout: fields.optional("timeout", quantity(long)),
        grace: fields
            .optional("grace", quantity(Millis::new(0)..=Handler::GRACE_MAX))
            .unwrap_or_else(Handler::default_grace),
        stdin: fields.optional("stdin", choice(&[("text", Stdin::Text), ("json", Stdin::Json)])),
        stdout: fields.optional(
            "stdout",
            choice(&[("text", Stdout::Text), ("json", Stdout::Json), ("result", Stdout::Result)]),
        ),
        response: fields
            .optional("response", choice(&[("output", Response::Output), ("result", Response::Result)])),
        port: fields.optional("port", whole(1..=u16::MAX)),
    };
    fields.finish();
    Some(handler)
}

fn protocol(at: &At<'_>, faults: &mut Faults) -> Option<Protocol> {
    let words = [Protocol::Stdio, Protocol::Pull, Protocol::Exec, Protocol::Http];
    choice(&words.map(|protocol| (protocol.as_str(), protocol)))(at, faults)
}

/// Reads a command. One that is written as a line is refused with its words as the hint, because
/// no shell would split it.
fn command(at: &At<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    if let Some((_, line)) = at.scalar() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let fault = at.error(Code::WrongType, "expected a list of words, since no shell splits a line");
        at.report(fault.nearest(Some(format!("[{}]", words.join(", ")))), faults);
        return None;
    }
    list(1..=Handler::COMMAND_MAX, text(PATH_CHARS_MAX * 16))(at, faults)
}

/// Reads a path that stays within the directory it is relative to.
fn inner_path(at: &At<'_>, faults: &mut Faults) -> Option<String> {
    let path = text(PATH_CHARS_MAX)(at, faults)?;
    match path.starts_with('/') || path.split('/').any(|part| part == "..") {
        true => at.refuse(Code::InvalidValue, "expected a relative path without `..`", faults),
        false => Some(path),
    }
}

/// Reads the reference of an image.
pub(super) fn image(at: &At<'_>, faults: &mut Faults) -> Option<String> {
    text(WORD_CHARS_MAX)(at, faults)
}

/// Reads the name of a runtime. Which there are only the daemon knows.
pub(super) fn runtime_class(at: &At<'_>, faults: &mut Faults) -> Option<String> {
    let name = text(ProfileSpec::RUNTIME_MAX)(at, faults)?;
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_inner) {
        true => Some(name),
        false => at.refuse(Code::InvalidValue, "expected the name of a runtime, such as `runsc`", faults),
    }
}

pub(super) fn resources(at: &At<'_>, faults: &mut Faults) -> Option<Resources> {
    let default = Resources::default();
    let mut fields = Fields::of(at, faults);
    let resources = Resources {
        cpu: fields.optional("cpu", quantity(Resources::CPU_MIN..=Resources::CPU_MAX)).unwrap_or(default.cpu),
        memory: fields
            .optional("memory", quantity(Resources::MEMORY_MIN..=Resources::MEMORY_MAX))
            .unwrap_or(default.memory),
        pids: fields
            .optional("pids", whole(Resources::PIDS_MIN..=Resources::PIDS_MAX))
            .unwrap_or(default.pids),
        work: fields
            .optional("work", quantity(Resources::WORK_MIN..=Resources::MEMORY_MAX))
            .unwrap_or(default.work),
    };
    fields.finish();
    Some(resources)
}

fn model(at: &At<'_>, faults: &mut Faults) -> Option<Model> {
    let mut fields = Fields::of(at, faults);
    let model = Model {
        name: fields.required("name", text(Model::NAME_MAX)).unwrap_or_default(),
        max_tokens: fields.optional("maxTokens", whole(1..=Model::TOKENS_MAX)),
    };
    fields.finish();
    Some(model)
}

fn tool_server(at: &At<'_>, faults: &mut Faults) -> Option<ToolServer> {
    let tools = || distinct(0..=ToolServer::TOOLS_MAX, text(WORD_CHARS_MAX));
    let mut fields = Fields::of(at, faults);
    let server = ToolServer {
        server: fields.required("server", name).unwrap_or_else(missing_name),
        allow: fields.optional("allow", tools()).unwrap_or_default(),
        approve: fields.optional("approve", tools()).unwrap_or_default(),
    };
    fields.finish();
    Some(server)
}

fn secret(at: &At<'_>, faults: &mut Faults) -> Option<Secret> {
    let mut fields = Fields::of(at, faults);
    let secret = Secret {
        name: fields.required("name", secret_name).unwrap_or_default(),
        from: fields.required("from", secret_source).unwrap_or_else(|| SecretSource::Env(String::new())),
        form: fields.optional("as", secret_form).unwrap_or_default(),
    };
    fields.finish();
    Some(secret)
}

fn secret_form(at: &At<'_>, faults: &mut Faults) -> Option<SecretForm> {
    choice(&[("env", SecretForm::Env), ("file", SecretForm::File)])(at, faults)
}

fn secret_name(at: &At<'_>, faults: &mut Faults) -> Option<String> {
    let name = text(WORD_CHARS_MAX)(at, faults)?;
    if let Err(expected) = check_own_variable(&name) {
        at.report(at.error(Code::InvalidValue, expected), faults);
    }
    Some(name)
}

/// Reads where a secret is. Somebody may have written the secret itself here, so no fault shows
/// what it found.
fn secret_source(at: &At<'_>, faults: &mut Faults) -> Option<SecretSource> {
    let hide = |at: &At<'_>, expected: &str, faults: &mut Faults| {
        at.report(Fault::error(Code::InvalidValue, &at.path, expected), faults);
        None
    };
    if !matches!(at.value(), Some(Value::Map(_))) {
        return hide(at, "expected a reference such as {env: API_KEY}, never the secret itself", faults);
    }
    let mut fields = Fields::of(at, faults);
    let env = fields.optional("env", |at, faults| match at.scalar() {
        Some((_, name)) if is_variable(name) => Some(SecretSource::Env(name.to_owned())),
        _ => hide(at, "expected the name of an environment variable of the platform", faults),
    });
    let file = fields.optional("file", |at, faults| match at.scalar() {
        Some((_, path)) if path.starts_with('/') && path.len() <= PATH_CHARS_MAX => {
            Some(SecretSource::File(path.to_owned()))
        }
        _ => hide(at, "expected the absolute path of a file on the platform's machine", faults),
    });
    let command = fields.optional("vaultCommand", |at, faults| match at.scalar() {
        Some((_, key)) if SecretSource::is_key(key) => Some(SecretSource::VaultCommand(key.to_owned())),
        _ => hide(at, "expected a key such as team/api-key: letters, digits and _-./:@#, no `..`", faults),
    });
    let stored = fields.optional("stored", |at, faults| match at.scalar() {
        Some((_, name)) if SecretSource::is_stored_name(name) => Some(SecretSource::Stored(name.to_owned())),
        _ => hide(at, "expected the name of a secret that `hypercode secret list` shows", faults),
    });
    let given = ["env", "file", "vaultCommand", "stored"].map(|source| fields.at(source));
    let given = given.iter().filter(|at| at.is_present()).count();
    fields.finish();
    if given != 1 {
        return hide(at, "expected exactly one of env, file, vaultCommand, stored", faults);
    }
    env.or(file).or(command).or(stored)
}

fn retry(at: &At<'_>, faults: &mut Faults) -> Option<Retry> {
    let default = Retry::default();
    let classes = choice(&[("transient", RetryClass::Transient), ("permanent", RetryClass::Permanent)]);
    let mut fields = Fields::of(at, faults);
    let retry = Retry {
        max_attempts: fields
            .optional("maxAttempts", whole(1..=Retry::ATTEMPTS_MAX))
            .unwrap_or(default.max_attempts),
        unclassified: fields.optional("unclassified", classes).unwrap_or(default.unclassified),
    };
    fields.finish();
    Some(retry)
}
