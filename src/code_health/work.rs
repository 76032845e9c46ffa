//! What the members give each other.

use link::{Body, Content, Error, ErrorType};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::measure::File;
use super::report::Missing;
use super::tree::{Part, Skipped};

/// The file in which an analyst leaves its [`Findings`].
pub(super) const FINDINGS_NAME: &str = "findings.json";

/// To the scout: report on a tree.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReportWork {
    /// The tree's directory.
    pub(super) path: String,
    /// Into how many parts to split it; without a wish, as suits its size.
    #[serde(default)]
    pub(super) split_into: Option<usize>,
    /// What was left out when the tree was packed, where it comes as an archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) skipped: Option<Skipped>,
}

/// To an analyst: measure the files of a part.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PartWork {
    /// The tree's directory, unless the part's files come as an archive.
    pub(super) root: String,
    pub(super) part: Part,
}

/// From an analyst, as a file: all that it found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) files: Vec<File>,
}

/// To the editor, with one file of [`Findings`] for each part beside it: write the report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EditWork {
    /// The tree's name.
    pub(super) name: String,
    pub(super) skipped: Skipped,
    /// The parts whose findings are not there.
    pub(super) missing: Vec<Missing>,
}

/// Reads the first data part of a task's input.
pub(super) fn read<T: DeserializeOwned>(input: &Content) -> Result<T, Error> {
    let data = input.parts.iter().find_map(|part| match &part.body {
        Body::Data(data) => Some(data),
        _ => None,
    });
    T::deserialize(data.unwrap_or(&Value::Null)).map_err(|error| {
        Error::new(ErrorType::InvalidParams, format_args!("the input does not fit: {error}"))
    })
}
