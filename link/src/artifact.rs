//! References to bytes kept by their SHA-256.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// `artifact:sha256:<64 lower-case hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactUrl(String);

const SCHEME: &str = "artifact:";
const ALGORITHM: &str = "sha256:";

impl ArtifactUrl {
    /// The digest with its algorithm: `sha256:<hex>`.
    pub fn digest(&self) -> &str {
        &self.0[SCHEME.len()..]
    }

    /// The digest's hex digits alone.
    pub fn hex(&self) -> &str {
        &self.0[SCHEME.len() + ALGORITHM.len()..]
    }

    /// The reference to bytes of this digest, given as `sha256:<hex>` or as bare hex.
    pub fn of_digest(digest: &str) -> Result<Self, String> {
        let hex = digest.strip_prefix(ALGORITHM).unwrap_or(digest);
        format!("{SCHEME}{ALGORITHM}{hex}").parse()
    }
}

impl FromStr for ArtifactUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix(SCHEME).and_then(|rest| rest.strip_prefix(ALGORITHM));
        let is_digest = |hex: &str| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        if hex.is_some_and(is_digest) {
            Ok(Self(text.to_owned()))
        } else {
            let shown: String = text.chars().take(100).collect();
            Err(format!("read the url `{shown}`: write `artifact:sha256:<64 hex digits>`"))
        }
    }
}

impl TryFrom<String> for ArtifactUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ArtifactUrl> for String {
    fn from(url: ArtifactUrl) -> Self {
        url.0
    }
}

impl fmt::Display for ArtifactUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an artifact's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Stored: known by its digest.
    Url(ArtifactUrl),
    /// A file under the work directory that the runner has yet to upload.
    Path(String),
}

/// A named outcome of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Artifact {
    /// What the task calls it.
    pub name: String,
    /// Where its bytes are.
    pub location: Location,
    /// Its media type.
    pub media_type: Option<String>,
    /// What it is, in words.
    pub description: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<ArtifactUrl>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

impl TryFrom<Wire> for Artifact {
    type Error = &'static str;

    fn try_from(wire: Wire) -> Result<Self, Self::Error> {
        let location = match (wire.url, wire.path) {
            (Some(url), None) => Location::Url(url),
            (None, Some(path)) => Location::Path(path),
            _ => return Err("an artifact has exactly one of `url` and `path`"),
        };
        if wire.name.is_empty() {
            return Err("an artifact's `name` is not empty");
        }
        Ok(Self { name: wire.name, location, media_type: wire.media_type, description: wire.description })
    }
}

impl From<Artifact> for Wire {
    fn from(artifact: Artifact) -> Self {
        let (url, path) = match artifact.location {
            Location::Url(url) => (Some(url), None),
            Location::Path(path) => (None, Some(path)),
        };
        Self {
            name: artifact.name,
            url,
            path,
            media_type: artifact.media_type,
            description: artifact.description,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_url_names_a_sha256_digest_and_nothing_else() {
        let hex = "ab".repeat(32);
        let url: ArtifactUrl = format!("artifact:sha256:{hex}").parse().unwrap();
        assert_eq!((url.digest(), url.hex()), (format!("sha256:{hex}").as_str(), hex.as_str()));
        assert_eq!(ArtifactUrl::of_digest(&hex), Ok(url));
        for bad in ["artifact:sha256:ab", &hex, "https://x", &format!("artifact:sha256:{}", "AB".repeat(32))]
        {
            assert!(bad.parse::<ArtifactUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_artifact_has_one_location() {
        let good = json!({"name": "summary", "path": "out/s.md"});
        let artifact: Artifact = serde_json::from_value(good.clone()).unwrap();
        assert_eq!(serde_json::to_value(&artifact).unwrap(), good);
        let url = format!("artifact:sha256:{}", "0".repeat(64));
        for bad in [json!({"name": "x"}), json!({"name": "x", "url": url, "path": "p"}), json!({"path": "p"})]
        {
            assert!(serde_json::from_value::<Artifact>(bad).is_err());
        }
    }
}
