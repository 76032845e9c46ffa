//! Outside issuers of people's tokens (OpenID Connect): which there are, what their groups mean here, and their keys.
//!
//! The platform takes tokens that they made; it makes none in their name, and asks nothing of them but their keys.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use events::api::{Problem, ProblemKind};
use events::{Principal, Timestamp};
use identity::{Algorithm, Fault, Grant, Issuer, UserKeys, UserToken, Verified, claimed_issuer};
use reqwest::header::CACHE_CONTROL;
use serde::Deserialize;

use crate::tls;

/// For how long keys are kept at least and at most, and where their issuer does not say.
const KEPT_MIN: Duration = Duration::from_secs(60);
const KEPT_MAX: Duration = Duration::from_secs(24 * 3_600);
const KEPT: Duration = Duration::from_secs(600);
/// How soon keys that could not be read are asked for again, where there are none.
const RETRY: Duration = Duration::from_secs(5);
/// How long fetching keys may take.
const FETCH: Duration = Duration::from_secs(2);
/// Largest set of keys, in bytes.
const KEYS_BYTES_MAX: usize = 256 * 1024;
/// Longest name of an issuer.
const NAME_CHARS_MAX: usize = 32;

/// Why the file of issuers cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("use the issuers of `{}`: {reason}", path.display())]
pub struct IssuersError {
    path: PathBuf,
    reason: String,
}

/// The file, in TOML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    issuer: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    issuer: String,
    audience: String,
    keys: String,
    #[serde(default = "usual_algorithms")]
    algorithms: Vec<String>,
    #[serde(default = "usual_claim")]
    groups_claim: String,
    #[serde(default)]
    roles: BTreeMap<String, Vec<String>>,
}

fn usual_algorithms() -> Vec<String> {
    vec!["RS256".to_owned(), "ES256".to_owned()]
}

fn usual_claim() -> String {
    "groups".to_owned()
}

/// Where an issuer's keys are.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Url(reqwest::Url),
}

impl Source {
    /// A file, or a URL over which nobody on the way can put other keys in place.
    fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let url = reqwest::Url::parse(text).map_err(|error| format!("`keys`: `{text}`: {error}"))?;
        let is_here = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        match url.scheme() {
            "https" => Ok(Self::Url(url)),
            "http" if is_here => Ok(Self::Url(url)),
            _ => Err(format!("`keys`: found `{text}`, expected a file or an `https://` URL")),
        }
    }
}

/// Keys as they were read last.
#[derive(Default)]
struct Kept {
    keys: Option<Arc<UserKeys>>,
    read: Option<Instant>,
    good_for: Duration,
    /// When it was last tried to read them.
    tried: Option<Instant>,
}

/// An issuer whose tokens are taken.
struct Trusted {
    name: String,
    issuer: Issuer,
    source: Source,
    roles: BTreeMap<String, Vec<Grant>>,
    kept: Mutex<Kept>,
    /// Held by whoever reads the keys.
    reading: tokio::sync::Mutex<()>,
}

/// Somebody whom an issuer knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outsider {
    pub(crate) principal: Principal,
    /// What their groups make them here.
    pub(crate) grants: Vec<Grant>,
    pub(crate) expires_at: Timestamp,
}

/// Everybody whose tokens are taken.
pub struct Issuers {
    trusted: HashMap<String, Trusted>,
    http: reqwest::Client,
}

impl Issuers {
    /// Those of a file; `authorities` is a file of certificates that are trusted beside the system's.
    ///
    /// # Errors
    /// When something is wrong with the file.
    pub fn load(path: &Path, authorities: Option<&Path>) -> Result<Self, IssuersError> {
        let failed = |reason: String| IssuersError { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text, authorities).map_err(failed)
    }

    fn parse(text: &str, authorities: Option<&Path>) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut trusted = HashMap::new();
        for entry in file.issuer {
            let one = Trusted::of(entry)?;
            let is_name_taken = trusted.values().any(|other: &Trusted| other.name == one.name);
            let name = one.name.clone();
            if is_name_taken || trusted.insert(one.issuer.issuer.clone(), one).is_some() {
                return Err(format!("`{name}`: its `name` or its `issuer` is there twice"));
            }
        }
        let tls = tls::client(authorities).map_err(|error| error.to_string())?;
        let http = reqwest::Client::builder()
            .timeout(FETCH)
            .no_proxy()
            .tls_backend_preconfigured(tls)
            // Whoever answers does not send us to where only we come.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("hypercode/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { trusted, http })
    }

    /// Who shows this token.
    ///
    /// # Errors
    /// `unauthenticated` for a token that is not one of the issuers'; `unavailable` while an issuer's keys are not known.
    pub(crate) async fn identify(&self, shown: &str) -> Result<Outsider, Problem> {
        let stranger = |detail: String| Problem::new(ProblemKind::Unauthenticated, detail);
        let claimed =
            claimed_issuer(shown).map_err(|fault| stranger(format!("the token is refused: {fault}")))?;
        let trusted = self.trusted.get(&claimed);
        let trusted =
            trusted.ok_or_else(|| stranger("the token is of an issuer that is not known here".to_owned()))?;
        let token = self.verified(trusted, shown).await?;
        let token = token
            .map_err(|fault| stranger(format!("the token of `{}` is refused: {fault}", trusted.name)))?;
        trusted.outsider(&token).ok_or_else(|| {
            stranger(format!(
                "the token of `{}` is refused: its `sub` is too long, or has characters that no name has",
                trusted.name
            ))
        })
    }

    async fn verified(
        &self,
        trusted: &Trusted,
        shown: &str,
    ) -> Result<Result<Verified<UserToken>, Fault>, Problem> {
        let now_s = u64::try_from(Timestamp::now().millis() / 1_000).unwrap_or_default();
        let judged = self.keys(trusted, |kept| kept.good_for).await?.verify(shown, now_s);
        match judged {
            // The issuer may have a new key. Whoever makes names of keys up does not have us ask more than so often.
            Err(Fault::UnknownKey) => Ok(self.keys(trusted, |_| KEPT_MIN).await?.verify(shown, now_s)),
            judged => Ok(judged),
        }
    }

    /// The issuer's keys, not older than they may be.
    async fn keys(
        &self,
        trusted: &Trusted,
        age_max: impl Fn(&Kept) -> Duration,
    ) -> Result<Arc<UserKeys>, Problem> {
        if let Some(keys) = trusted.fresh(&age_max) {
            return Ok(keys);
        }
        let _reading = trusted.reading.lock().await;
        // Somebody else may have read them meanwhile.
        if let Some(keys) = trusted.fresh(&age_max) {
            return Ok(keys);
        }
        if trusted.was_tried_just_now() {
            return trusted.keep(Err("they could not be a moment ago".to_owned()));
        }
        let read = self.read(&trusted.source).await.and_then(|(bytes, good_for)| {
            let keys = UserKeys::parse(trusted.issuer.clone(), &bytes).map_err(|error| error.to_string())?;
            Ok((Arc::new(keys), good_for))
        });
        // Said once for each time that they are asked for, however many people come in meanwhile.
        if let Err(reason) = &read {
            tracing::warn!(issuer = trusted.name, reason, "an issuer's keys cannot be read");
        }
        trusted.keep(read)
    }

    async fn read(&self, source: &Source) -> Result<(Vec<u8>, Duration), String> {
        let url = match source {
            Source::File(path) => {
                let bytes = tokio::fs::read(path).await.map_err(|error| error.to_string())?;
                return Ok((bytes, KEPT_MIN));
            }
            Source::Url(url) => url.clone(),
        };
        let failed = |error: reqwest::Error| error.without_url().to_string();
        let mut response = self.http.get(url).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let said = response.headers().get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
        let good_for = said.and_then(max_age).map_or(KEPT, |age| age.clamp(KEPT_MIN, KEPT_MAX));
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > KEYS_BYTES_MAX {
                return Err(format!("it has more than {KEYS_BYTES_MAX} bytes"));
            }
        }
        Ok((bytes, good_for))
    }
}

/// How long an answer may be kept (RFC 9111 §5.2.2.1).
fn max_age(said: &str) -> Option<Duration> {
    let seconds = said.split(',').find_map(|directive| directive.trim().strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

impl Trusted {
    fn of(entry: Entry) -> Result<Self, String> {
        let Entry { name, issuer, audience, keys, algorithms, groups_claim, roles } = entry;
        let is_name = (1..=NAME_CHARS_MAX).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !is_name {
            let expected = "expected lower-case letters, digits and `-`";
            return Err(format!("`name`: found `{name}`, {expected}, at most {NAME_CHARS_MAX}"));
        }
        let within = |reason: String| format!("issuer `{name}`: {reason}");
        let algorithms = algorithms
            .iter()
            .map(|text| text.parse::<Algorithm>().map_err(|error| within(error.to_string())));
        let algorithms = algorithms.collect::<Result<Vec<_>, _>>()?;
        let source = Source::parse(&keys).map_err(within)?;
        let roles = roles.into_iter().map(|(group, names)| {
            let named =
                names.iter().map(|role| role.parse::<Grant>().map_err(|error| within(error.to_string())));
            Ok((group, named.collect::<Result<Vec<_>, String>>()?))
        });
        let roles = roles.collect::<Result<BTreeMap<_, _>, String>>()?;
        Ok(Self {
            issuer: Issuer { issuer, audience, groups_claim, algorithms },
            name,
            source,
            roles,
            kept: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// Who it is here. The same subject of another issuer is somebody else, and what an issuer says of mail addresses
    /// is nothing to go by.
    fn outsider(&self, token: &UserToken) -> Option<Outsider> {
        let principal = format!("user:{}/{}", self.name, token.subject).parse().ok()?;
        let mut grants: Vec<Grant> =
            token.groups.iter().filter_map(|group| self.roles.get(group)).flatten().cloned().collect();
        grants.sort_unstable();
        grants.dedup();
        let expires_at = Timestamp(i64::try_from(token.expires_s).ok()?.checked_mul(1_000_000)?);
        Some(Outsider { principal, grants, expires_at })
    }

    fn fresh(&self, age_max: &impl Fn(&Kept) -> Duration) -> Option<Arc<UserKeys>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keys.clone().filter(|_| kept.read.is_some_and(|read| read.elapsed() < age_max(&kept)))
    }

    /// Whether it is too soon to try again, counting from now on.
    fn was_tried_just_now(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if kept.keys.is_some() { KEPT_MIN } else { RETRY };
        let is_soon = kept.tried.is_some_and(|tried| tried.elapsed() < pause);
        if !is_soon {
            kept.tried = Some(Instant::now());
        }
        is_soon
    }

    /// Keeps what was read; where nothing could be, what was read before is good for a while longer.
    fn keep(&self, read: Result<(Arc<UserKeys>, Duration), String>) -> Result<Arc<UserKeys>, Problem> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (keys, good_for) = match read {
            Ok(read) => read,
            Err(reason) => {
                let unknown = || {
                    let detail = format!("the keys of the issuer `{}` cannot be read: {reason}", self.name);
                    Problem::new(ProblemKind::Unavailable, detail)
                };
                let is_old = kept.read.is_none_or(|read| read.elapsed() > KEPT_MAX);
                return kept.keys.clone().filter(|_| !is_old).ok_or_else(unknown);
            }
        };
        *kept =
            Kept { keys: Some(Arc::clone(&keys)), read: Some(Instant::now()), good_for, tried: kept.tried };
        Ok(keys)
    }
}

#[cfg(test)]
mod tests;
