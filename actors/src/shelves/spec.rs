//! What a pool's sandboxes are made by.

use events::domain::pool::Applied;
use manifest::PoolSpec;

/// The pool's specification, its image as it was pinned.
pub(crate) fn spec(applied: &Applied) -> Result<PoolSpec, serde_json::Error> {
    let spec: PoolSpec = serde_json::from_value(applied.spec.clone())?;
    Ok(PoolSpec { image: applied.image.clone().or(spec.image), ..spec })
}
