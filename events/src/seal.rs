//! Personal data at rest: encrypted per data subject in the log and in all that is made from it, so that the
//! destruction of one key is its erasure. A key that is to be destroyed is retired first: it opens what it sealed until
//! then, and seals nothing more.
//!
//! ```text
//!   actors, gateway ──clear── Sealing ──sealed── log ── chain, tree, relay, exports
//!                                │                └──── views ──sealed rows── Seal::open ──clear── queries
//!                              Keys: one per data subject, wrapped by the master key, in a store of their own
//! ```
//!
//! What a task names as its data subject is given a key; the personal fields of the task's events, and of messages that
//! name the task, are stored as texts `sealed:1:<key>:<base64>` (AES-256-GCM, a random nonce, the stream as
//! associated data). What may be about several subjects is sealed with the keys of all of them, one in another
//! (`sealed:1:<key>+<key>:<base64>`), so that the end of any of them is its end. Hashes, proofs and backups cover the
//! ciphertext and hold when a key is gone, when the same fields read as [`ERASED`].

mod carry;
mod field;
mod key;
mod keys;
mod store;
#[cfg(test)]
mod tests;
mod trace;
mod uses;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{Problem, ProblemKind};
use crate::id::{KeyId, StreamId};
use crate::store::{AppendError, ReadError};

use key::Parsed;

pub(crate) use carry::carry;
pub use field::marked;
pub(crate) use key::{Secret, random};
pub use keys::{KEYS_FILE, Keys, MASTER_FILE};
pub use store::Sealing;
pub use trace::{Trace, Tracer};

/// What stands in place of personal data whose key was destroyed.
pub const ERASED: &str = "[erased]";

/// What stands in place of sealed data where nothing is opened.
pub const SEALED: &str = "[sealed]";

/// Why personal data can be neither sealed nor opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The keys cannot be reached.
    #[error("use the keys of data subjects in `{place}`: {reason}")]
    Unavailable {
        /// The file or the database.
        place: Arc<str>,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// The keys were made under another master key.
    #[error(
        "use the keys of data subjects in `{place}`: they are wrapped by another master key than this node's; \
         give every node the same `master_key_file`"
    )]
    Master {
        /// The file or the database.
        place: Arc<str>,
    },
    /// The data subject is being erased.
    #[error(
        "keep anything about this data subject: it is being erased; try again when that is done, or finish it with \
         `hypercode audit erase`"
    )]
    Erasing,
    /// The master key's file cannot be used.
    #[error("use the master key `{path}`: {reason}")]
    MasterFile {
        /// The file.
        path: Arc<str>,
        /// What is wrong, and what to do.
        reason: Arc<str>,
    },
}

impl SealError {
    fn unavailable(place: &Arc<str>, error: &dyn std::fmt::Display) -> Self {
        Self::Unavailable { place: Arc::clone(place), reason: error.to_string().into() }
    }
}

impl From<SealError> for Problem {
    fn from(error: SealError) -> Self {
        Self::new(ProblemKind::Unavailable, error.to_string())
    }
}
impl From<SealError> for AppendError {
    fn from(error: SealError) -> Self {
        Self::Unavailable { reason: error.to_string().into() }
    }
}
impl From<SealError> for ReadError {
    fn from(error: SealError) -> Self {
        Self::Unavailable { reason: error.to_string().into() }
    }
}

/// Opens what was sealed. Clones share the same keys.
#[derive(Clone, Debug)]
pub struct Seal {
    keys: Keys,
}

impl Seal {
    /// What these keys open.
    pub fn new(keys: Keys) -> Self {
        Self { keys }
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// `value`, made of events of `stream`, with everything in it opened whose key is there.
    pub async fn open<T: Serialize + DeserializeOwned>(
        &self,
        stream: &StreamId,
        value: T,
    ) -> Result<T, SealError> {
        let Ok(mut json) = serde_json::to_value(&value) else { return Ok(value) };
        if !self.open_in(stream, &mut json).await? {
            return Ok(value);
        }
        // What a sealed field was, the opened one is again; `[erased]` fits wherever a sealed text did.
        Ok(serde_json::from_value(json).unwrap_or(value))
    }

    /// Opens every sealed text in `json`; says whether there was one.
    pub(crate) async fn open_in(&self, stream: &StreamId, json: &mut Value) -> Result<bool, SealError> {
        let mut found = false;
        let mut waiting = vec![json];
        while let Some(value) = waiting.pop() {
            match value {
                Value::String(text) => {
                    if let Some(opened) = self.open_text(stream, text).await? {
                        *value = opened;
                        found = true;
                    }
                }
                Value::Array(items) => waiting.extend(items),
                Value::Object(fields) => waiting.extend(fields.values_mut()),
                _ => {}
            }
        }
        Ok(found)
    }

    /// What a sealed text of an event of `stream` was; `None` for any other text, which a forged one is too.
    pub(crate) async fn open_text(&self, stream: &StreamId, text: &str) -> Result<Option<Value>, SealError> {
        let Some(Parsed { keys, mut sealed }) = key::parse(text) else { return Ok(None) };
        for id in &keys {
            let Some(key) = self.keys.find(id).await? else { return Ok(Some(ERASED.into())) };
            let Some(inner) = key.secret.open(id, stream, &sealed) else { return Ok(None) };
            sealed = inner;
        }
        Ok(serde_json::from_slice(&sealed).ok())
    }
}

/// The keys with which a text is sealed; none for any other text.
pub fn keys_of(text: &str) -> Vec<KeyId> {
    key::parse(text).map(|parsed| parsed.keys).unwrap_or_default()
}

/// A text for people to whom nothing is opened.
pub fn covered(text: &str) -> &str {
    if text.starts_with(key::PREFIX) { SEALED } else { text }
}
