//! What commands on the keys of agents' tokens take.

use schemars::JsonSchema;
use serde::Deserialize;

use super::access::text;
use super::operation::{Body, Deed};
use super::problem::Refusal;
use super::service::{Admitted, Service};
use crate::keyring::KeyChange;

/// Another key is to sign.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RotateKeys {
    /// Why.
    #[serde(default)]
    reason: String,
}

impl Body for RotateKeys {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        Ok(Deed::Key(KeyChange::Rotate { reason: text("reason", self.reason)? }))
    }
}

/// A key that is to be accepted no longer.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RevokeKey {
    /// Its id: the thumbprint that `hypercode key list` shows.
    key: String,
    /// Why.
    #[serde(default)]
    reason: String,
}

impl Body for RevokeKey {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        let (key, reason) = (text("key", self.key)?, text("reason", self.reason)?);
        Ok(Deed::Key(KeyChange::Revoke { key, reason }))
    }
}
