//! Files that commands read: manifests and others.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use events::api::{Problem, ProblemKind};
use manifest::{Code, Fault, Kind, Manifest, Parsed, Severity, Source};
use serde_json::{Value, json};

use super::FILE_BYTES_MAX;

/// The field of a profile that names its handler's source.
pub(super) const SOURCE_FIELD: &str = "spec.handler.source";

/// A manifest, where it stands, and the directory that its relative paths start from.
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) source: Source,
    pub(super) directory: PathBuf,
}

impl Found {
    /// Gives faults that the platform found in the manifest, which it knows by their paths only, their places.
    pub(super) fn place(&self, faults: &mut [Value]) {
        for fault in
            faults.iter_mut().filter(|fault| fault["code"].is_string() && fault["location"].is_null())
        {
            let location = self.source.locate(fault["path"].as_str().unwrap_or_default());
            let message = fault["message"].as_str().unwrap_or_default();
            fault["message"] = format!("{location}: {message}").into();
            fault["location"] = json!(location);
        }
    }

    /// The same for a problem.
    pub(super) fn placed(&self, mut problem: Problem) -> Problem {
        self.place(&mut problem.faults);
        problem
    }
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

/// Parses and checks one file of manifests, and looks whether the sources are there that its profiles name.
pub(super) fn parse(path: &Path) -> Result<Parsed, Problem> {
    let mut parsed = manifest::parse(&path.display().to_string(), &read(path)?);
    let missing: Vec<Fault> =
        parsed.sources.iter().filter_map(|source| missing_source(source, directory(path))).collect();
    parsed.faults.extend(missing);
    parsed.faults.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(parsed)
}

/// The directory that relative paths in a file start from.
fn directory(file: &Path) -> &Path {
    file.parent().unwrap_or_else(|| Path::new(""))
}

fn missing_source(source: &Source, directory: &Path) -> Option<Fault> {
    let is_profile = source.text("kind") == Some(Kind::Profile.as_str());
    let path = directory.join(source.text(SOURCE_FIELD).filter(|_| is_profile)?);
    let error = path.metadata().err()?;
    let expected = format!("expected the handler's source at `{}`: {error}", path.display());
    Some(source.error(Code::MissingFile, SOURCE_FIELD, expected))
}

/// Parses each of these files that can be read; the problem tells of all that cannot.
pub(super) fn parse_all(paths: &[PathBuf]) -> (Vec<(&Path, Parsed)>, Option<Problem>) {
    let mut parsed = Vec::new();
    let mut unread: Option<Problem> = None;
    for path in paths {
        match (parse(path), &mut unread) {
            (Ok(found), _) => parsed.push((path.as_path(), found)),
            (Err(problem), None) => unread = Some(problem),
            (Err(problem), Some(unread)) => unread.detail += &format!("; {}", problem.detail),
        }
    }
    (parsed, unread)
}

/// The manifests of these files; warnings go to standard error, any error is a problem with all faults.
pub(super) fn manifests(paths: &[PathBuf]) -> Result<Vec<Found>, Problem> {
    let mut found = Vec::new();
    let mut faults = Vec::new();
    let (read, unread) = parse_all(paths);
    for (path, parsed) in read {
        // As many of the one as of the other, unless there are errors, and then nothing is found.
        let both = parsed.manifests.into_iter().zip(parsed.sources);
        let directory = directory(path);
        found.extend(both.map(|(manifest, source)| Found {
            manifest,
            source,
            directory: directory.to_owned(),
        }));
        faults.extend(parsed.faults);
    }
    if unread.is_some() || faults.iter().any(|fault| fault.severity == Severity::Error) {
        let found = || Problem::new(ProblemKind::Invalid, format!("{} found", count(faults.len(), "fault")));
        let mut problem = unread.unwrap_or_else(found);
        problem.faults = faults.iter().map(Fault::to_json).collect();
        return Err(problem);
    }
    for fault in &faults {
        crate::output::remark(fault);
    }
    Ok(found)
}

/// `1 fault`, `2 faults`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
