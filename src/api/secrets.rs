//! What commands on secrets take.

use link::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use manifest::SecretSource;
use schemars::JsonSchema;
use serde::Deserialize;

use super::access::text;
use super::operation::{Body, Deed};
use super::problem::Refusal;
use super::service::{Admitted, Service};
use crate::secrets::SecretChange;

/// A secret that is to have a value.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SetSecret {
    /// Its name, as profiles refer to it: letters, digits, `_`, `-` and `.`.
    name: String,
    /// Its value, at least 6 bytes and less than 32 KiB, which nobody is shown again.
    #[schemars(extend("writeOnly" = true))]
    value: String,
}

impl Body for SetSecret {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        let value = link::Secret::new(self.value);
        let bytes = value.expose().len();
        if !(SECRET_BYTES_MIN..SECRET_BYTES_MAX).contains(&bytes) || value.expose().contains('\0') {
            return Err(Refusal::invalid(format!(
                "`value`: found {bytes} bytes, expected {SECRET_BYTES_MIN} to {} without a byte 0: a shorter one could \
                 not be masked in what agents write",
                SECRET_BYTES_MAX - 1
            )));
        }
        Ok(Deed::Secret(SecretChange::Set { name: name("name", self.name)?, value }))
    }
}

/// A secret that is to have no value any more.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeleteSecret {
    /// Its name.
    secret: String,
    /// Why.
    #[serde(default)]
    reason: String,
}

impl Body for DeleteSecret {
    async fn deed(self, _: &Service, _: &Admitted) -> Result<Deed, Refusal> {
        let (name, reason) = (name("secret", self.secret)?, text("reason", self.reason)?);
        Ok(Deed::Secret(SecretChange::Delete { name, reason }))
    }
}

/// A name. Somebody may have written the value in its place, so it is not repeated.
fn name(field: &str, name: String) -> Result<String, Refusal> {
    match SecretSource::is_stored_name(&name) {
        true => Ok(name),
        false => Err(Refusal::invalid(format!(
            "`{field}`: expected 1 to 64 letters, digits, `_`, `-` and `.`, a letter or digit first"
        ))),
    }
}
