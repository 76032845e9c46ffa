//! From the sources to the configuration, all faults at once.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Config, SETTINGS, Setting, default_data_dir};

/// Variables of this name space that are no settings: the client's own, and those that a handler is given.
const OTHER_VARIABLES: [&str; 11] = [
    "HYPERCODE_CONFIG",
    "HYPERCODE_SERVER",
    "HYPERCODE_TENANT",
    "HYPERCODE_TOKEN",
    "HYPERCODE_OUTPUT",
    "HYPERCODE_API",
    "HYPERCODE_CREW",
    "HYPERCODE_MEMBER",
    "HYPERCODE_AGENT",
    "HYPERCODE_INCARNATION",
    "HYPERCODE_WORK",
];

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where: `FILE:LINE:COLUMN`, a variable or a flag.
    pub place: String,
    /// What was found, and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What the configuration is read from, later fields over earlier ones.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's name and its text, in TOML.
    pub file: Option<(PathBuf, String)>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Keys and values from the command line.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The process's own environment, the flags, and the file that is named by `file`, by `HYPERCODE_CONFIG`, or is
    /// `~/.config/hypercode/config.toml`; that last one may be missing.
    pub fn of_process(file: Option<&Path>, flags: Vec<(String, String)>) -> Result<Self, Fault> {
        let environment: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let mut sources = Self { file: None, environment, flags };
        let named =
            file.map(Path::to_owned).or_else(|| sources.variable("HYPERCODE_CONFIG").map(PathBuf::from));
        let path = named.clone().or_else(|| sources.usual_file());
        if let Some(path) = path {
            sources.file = match std::fs::read_to_string(&path) {
                Ok(text) => Some((path, text)),
                Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => {
                    let message = format!("read the configuration: {error}");
                    return Err(Fault { place: path.display().to_string(), message });
                }
            };
        }
        Ok(sources)
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    fn usual_file(&self) -> Option<PathBuf> {
        let home = || self.variable("HOME").map(|home| Path::new(home).join(".config"));
        let base = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
        Some(base.join("hypercode/config.toml"))
    }
}

impl Config {
    /// Reads the sources, each over the one before.
    ///
    /// Errors: everything that is wrong, in the order of the sources.
    pub fn load(sources: &Sources) -> Result<Self, Vec<Fault>> {
        let data_dir = default_data_dir(sources.variable("XDG_DATA_HOME"), sources.variable("HOME"));
        let mut load = Load { config: Self { data_dir, ..Self::default() }, faults: Vec::new() };
        if let Some((path, text)) = &sources.file {
            load.file(&path.display().to_string(), text);
        }
        let mut variables: Vec<_> = sources
            .environment
            .iter()
            .filter(|(name, value)| name.starts_with("HYPERCODE_") && !value.is_empty())
            .collect();
        variables.sort();
        for (name, value) in variables {
            if !OTHER_VARIABLES.contains(&name.as_str()) {
                load.set(name.clone(), name, value, Setting::variable);
            }
        }
        for (key, value) in &sources.flags {
            load.set("command line".to_owned(), key, value, |setting| setting.key.to_owned());
        }
        if let Some(message) = load.config.contradiction() {
            load.faults.push(Fault { place: "the settings together".to_owned(), message });
        }
        match load.faults.is_empty() {
            true => Ok(load.config),
            false => Err(load.faults),
        }
    }
}

struct Load {
    config: Config,
    faults: Vec<Fault>,
}

impl Load {
    fn file(&mut self, name: &str, text: &str) {
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let place = place(name, text, error.span().map_or(0, |span| span.start));
                self.faults.push(Fault { place, message: format!("read as TOML: {}", error.message()) });
                return;
            }
        };
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let place = place(name, text, key.span().start);
            match scalar(value.get_ref()) {
                Some(value) => self.set(place, key.get_ref(), &value, |setting| setting.key.to_owned()),
                None => {
                    let found = value.get_ref().type_str();
                    let message = format!("`{}`: found {found}, expected a single value", key.get_ref());
                    self.faults.push(Fault { place, message });
                }
            }
        }
    }

    fn set(&mut self, place: String, name: &str, value: &str, naming: fn(&Setting) -> String) {
        let outcome = match SETTINGS.iter().find(|setting| naming(setting) == name) {
            Some(setting) => {
                (setting.set)(&mut self.config, value).map_err(|expected| match setting.is_secret() {
                    true => format!("`{name}`: {expected}"),
                    false => format!("`{name}`: found `{}`, {expected}", shown(value)),
                })
            }
            None => Err(unknown(name, naming)),
        };
        if let Err(message) = outcome {
            self.faults.push(Fault { place, message });
        }
    }
}

/// A value as it may be shown: without the user and password of a URL.
fn shown(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").unwrap_or(("", value));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}").escape_debug().to_string(),
        None => value.escape_debug().to_string(),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn place(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{name}:{line}:{column}")
}

fn unknown(name: &str, naming: fn(&Setting) -> String) -> String {
    let plain = |text: &str| text.replace('-', "_").to_ascii_lowercase();
    let nearest = SETTINGS
        .iter()
        .map(naming)
        .map(|known| (strsim::damerau_levenshtein(&plain(&known), &plain(name)), known))
        .filter(|(distance, _)| *distance <= (name.len() / 4).max(1))
        .min();
    match nearest {
        Some((_, nearest)) => format!("unknown setting `{}`; did you mean `{nearest}`?", name.escape_debug()),
        None => {
            let known: Vec<String> = SETTINGS.iter().map(naming).collect();
            format!("unknown setting `{}`; the settings are {}", name.escape_debug(), known.join(", "))
        }
    }
}
