//! Artifacts, which the runner passes through the artifact door.

use serde::{Deserialize, Serialize};

use crate::{ArtifactUrl, Error, ErrorType};

/// `artifact/put`: answered by the runner, through the artifact door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactPut {
    /// A file under the work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Or the text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What to call it.
    pub name: String,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// Result of `artifact/put`, and the artifact door's answer to an upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStored {
    /// The reference to it.
    pub url: ArtifactUrl,
    /// `sha256:<hex>`.
    pub digest: String,
    /// In bytes.
    pub size: u64,
}

/// `artifact/get`: answered by the runner, through the artifact door.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ArtifactGet {
    /// The reference to it.
    pub url: ArtifactUrl,
    /// Where to put it, under the work directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Result of `artifact/get`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactGot {
    /// Where it is now.
    pub path: String,
    /// Its media type, where the platform knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// In bytes.
    pub size: u64,
}

impl ArtifactPut {
    /// Whether it names exactly one source.
    pub fn check(&self) -> Result<(), Error> {
        if self.path.is_some() == self.text.is_some() {
            return Err(Error::new(
                ErrorType::InvalidParams,
                "`artifact/put` has exactly one of `path` and `text`",
            ));
        }
        Ok(())
    }
}
