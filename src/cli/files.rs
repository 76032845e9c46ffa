//! Files that commands read: manifests and others.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use events::api::{Problem, ProblemKind};
use manifest::{Fault, Manifest, Parsed, Severity};
use serde_json::{Value, json};

use super::FILE_BYTES_MAX;

/// A manifest and the directory that its relative paths start from.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) directory: PathBuf,
}

/// Reads a file whole, or standard input for `-`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let failed = |error: std::io::Error| {
        Problem::new(ProblemKind::Invalid, format!("read `{}`: {error}", path.display()))
    };
    let source: Box<dyn std::io::Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(failed(std::io::Error::other(format!("it has more than {FILE_BYTES_MAX} bytes")))),
        false => Ok(bytes),
    }
}

/// Parses and checks one file of manifests.
pub(super) fn parse(path: &Path) -> Result<Parsed, Problem> {
    Ok(manifest::parse(&path.display().to_string(), &read(path)?))
}

/// The manifests of these files; warnings go to standard error, any error is a problem with all faults.
pub(super) fn manifests(paths: &[PathBuf]) -> Result<Vec<Found>, Problem> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        let parsed = parse(path)?;
        let directory = path.parent().map(Path::to_owned).unwrap_or_default();
        found.extend(
            parsed.manifests.into_iter().map(|manifest| Found { manifest, directory: directory.clone() }),
        );
        faults.extend(parsed.faults);
    }
    if faults.iter().any(|fault| fault.severity == Severity::Error) {
        let mut problem =
            Problem::new(ProblemKind::Invalid, format!("{} found", count(faults.len(), "fault")));
        problem.faults = faults.iter().map(value).collect();
        return Err(problem);
    }
    for fault in &faults {
        crate::output::remark(fault);
    }
    Ok(found)
}

/// A fault as JSON, with its sentence.
pub(super) fn value(fault: &Fault) -> Value {
    let mut value = json!(fault);
    value["message"] = fault.to_string().into();
    value
}

/// `1 fault`, `2 faults`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
