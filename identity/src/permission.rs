//! What can be permitted.

/// Every permission that some door asks for, `resource:verb`, in order.
pub const PERMISSIONS: &[&str] = &[
    "agent:kill",
    "agent:read",
    "agent:restart",
    "approval:answer",
    "approval:read",
    "artifact:read",
    "artifact:write",
    "audit:checkpoint",
    "audit:erase",
    "audit:export",
    "audit:read",
    "crew:assemble",
    "crew:disband",
    "crew:drain",
    "crew:kill",
    "crew:pause",
    "crew:read",
    "crew:resume",
    "crew:scale",
    "identity:read",
    "key:read",
    "key:revoke",
    "key:rotate",
    "message:read",
    "metrics:read",
    "node:read",
    "pool:apply",
    "pool:drain",
    "pool:read",
    "pool:resize",
    "profile:apply",
    "profile:read",
    "projection:read",
    "projection:rebuild",
    "role:grant",
    "role:read",
    "role:revoke",
    "secret:delete",
    "secret:read",
    "secret:set",
    "task:cancel",
    "task:read",
    "task:retry",
    "task:submit",
    "tenant:kill",
    "token:mint",
    "token:read",
    "token:revoke",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_in_order_and_well_formed() {
        assert!(PERMISSIONS.is_sorted());
        for permission in PERMISSIONS {
            let (resource, verb) = permission.split_once(':').expect("a resource and a verb");
            let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
            assert!(is_word(resource) && is_word(verb), "{permission}");
        }
    }
}
