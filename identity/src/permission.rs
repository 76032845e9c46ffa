//! What can be permitted, and where.

/// Where a permission holds: what is of the whole platform takes a role in the whole platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What it is about belongs to no tenant: it takes a role in the scope `platform`.
    Platform,
    /// What it is about belongs to a tenant: it takes a role in that, or in the platform.
    Tenant,
    /// What it is about belongs to a crew: it takes a role in that, in its tenant, or in the platform.
    Crew,
    /// It is about who asks: it takes any role, wherever that is.
    Own,
}

impl Level {
    /// Its name in the OpenAPI document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Tenant => "tenant",
            Self::Crew => "crew",
            Self::Own => "own",
        }
    }
}

use Level::{Crew, Own, Platform, Tenant};

/// Every permission that some door asks for, `resource:verb`, in order, and where it holds.
pub const PERMISSIONS: &[(&str, Level)] = &[
    ("agent:kill", Crew),
    ("agent:read", Crew),
    ("agent:restart", Crew),
    ("approval:answer", Crew),
    ("approval:read", Crew),
    ("artifact:read", Crew),
    ("artifact:write", Crew),
    ("audit:checkpoint", Platform),
    ("audit:erase", Platform),
    ("audit:export", Platform),
    ("audit:read", Crew),
    ("crew:assemble", Tenant),
    ("crew:disband", Crew),
    ("crew:drain", Crew),
    ("crew:kill", Crew),
    ("crew:pause", Crew),
    ("crew:read", Crew),
    ("crew:resume", Crew),
    ("crew:scale", Crew),
    ("identity:read", Own),
    ("key:read", Platform),
    ("key:revoke", Platform),
    ("key:rotate", Platform),
    ("log:read", Platform),
    ("message:read", Crew),
    ("metrics:read", Platform),
    ("node:read", Platform),
    ("pool:apply", Tenant),
    ("pool:drain", Tenant),
    ("pool:read", Tenant),
    ("pool:resize", Tenant),
    ("profile:apply", Tenant),
    ("profile:read", Tenant),
    ("projection:read", Platform),
    ("projection:rebuild", Platform),
    ("role:grant", Tenant),
    ("role:read", Tenant),
    ("role:revoke", Tenant),
    ("secret:delete", Tenant),
    ("secret:read", Tenant),
    ("secret:set", Tenant),
    ("task:cancel", Crew),
    ("task:read", Crew),
    ("task:retry", Crew),
    ("task:submit", Crew),
    ("tenant:kill", Tenant),
    ("token:mint", Tenant),
    ("token:read", Tenant),
    ("token:revoke", Tenant),
];

/// Where a permission holds; one that is not known takes the most.
pub fn level_of(permission: &str) -> Level {
    let found = PERMISSIONS.binary_search_by(|(known, _)| (*known).cmp(permission));
    found.map_or(Platform, |index| PERMISSIONS[index].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_in_order_and_well_formed() {
        assert!(PERMISSIONS.is_sorted_by_key(|(permission, _)| permission));
        for (permission, level) in PERMISSIONS {
            let (resource, verb) = permission.split_once(':').expect("a resource and a verb");
            let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
            assert!(is_word(resource) && is_word(verb), "{permission}");
            assert_eq!(level_of(permission), *level);
        }
        assert_eq!(level_of("nothing:known"), Platform);
    }
}
