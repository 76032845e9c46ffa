//! Roles: named sets of permissions.

use std::fmt;
use std::str::FromStr;

/// What somebody is to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// May do everything.
    PlatformAdmin,
    /// May do everything within the tenant: crews, tasks, tokens, roles.
    TenantAdmin,
    /// Keeps what runs running: crews, agents, pools, views; starts nothing new.
    Operator,
    /// Brings up crews and gives them work.
    Developer,
    /// Answers what agents ask of people.
    Approver,
    /// Reads everything, takes evidence out, changes nothing.
    Auditor,
    /// Sees what there is, tasks with what goes in and comes out; no messages, artifacts by digest and events.
    Viewer,
}

/// A name that no role has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no role; the roles are {}", names())]
pub struct UnknownRole {
    /// The name, shortened.
    pub found: String,
}

fn names() -> String {
    Role::ALL.map(Role::as_str).join(", ")
}

/// What everybody may read who may do anything.
const VIEW: &[&str] = &[
    "agent:read",
    "crew:read",
    "identity:read",
    "node:read",
    "pool:read",
    "profile:read",
    "projection:read",
    "task:read",
];

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::PlatformAdmin,
        Self::TenantAdmin,
        Self::Operator,
        Self::Developer,
        Self::Approver,
        Self::Auditor,
        Self::Viewer,
    ];

    /// Its name in commands and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlatformAdmin => "platform_admin",
            Self::TenantAdmin => "tenant_admin",
            Self::Operator => "operator",
            Self::Developer => "developer",
            Self::Approver => "approver",
            Self::Auditor => "auditor",
            Self::Viewer => "viewer",
        }
    }

    /// What it may do beside what a viewer may: permissions, `resource:*` for all of a resource and `*:verb` for one
    /// verb of all.
    fn rules(self) -> &'static [&'static str] {
        match self {
            Self::PlatformAdmin => &["*:*"],
            Self::TenantAdmin => &[
                "agent:*",
                "approval:*",
                "artifact:*",
                "audit:export",
                "audit:read",
                "crew:*",
                "log:read",
                "message:read",
                "pool:*",
                "profile:*",
                "role:*",
                "secret:*",
                "task:*",
                "tenant:kill",
                "token:*",
            ],
            Self::Operator => &[
                "agent:*",
                "audit:read",
                "crew:disband",
                "crew:drain",
                "crew:kill",
                "crew:pause",
                "crew:resume",
                "crew:scale",
                "log:read",
                "metrics:read",
                "pool:*",
                "projection:*",
                "task:cancel",
                "task:retry",
            ],
            Self::Developer => &[
                "agent:*",
                "approval:read",
                "artifact:*",
                "crew:*",
                "message:read",
                "profile:*",
                "secret:read",
                "task:*",
            ],
            Self::Approver => &["approval:*"],
            Self::Auditor => &["*:read", "audit:export"],
            Self::Viewer => &[],
        }
    }

    /// Whether it may do what needs this permission.
    pub fn permits(self, permission: &str) -> bool {
        let Some((resource, verb)) = permission.split_once(':') else { return false };
        let covers = |rule: &&str| {
            rule.split_once(':')
                .is_some_and(|(of, may)| (of == "*" || of == resource) && (may == "*" || may == verb))
        };
        VIEW.iter().chain(self.rules()).any(covers)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        let found = || UnknownRole { found: text.chars().take(64).collect() };
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PERMISSIONS;

    fn permitted(role: Role) -> impl Iterator<Item = &'static str> {
        PERMISSIONS
            .iter()
            .map(|(permission, _)| *permission)
            .filter(move |permission| role.permits(permission))
    }

    #[test]
    fn roles_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        let error = "root".parse::<Role>().expect_err("no such role");
        assert!(error.to_string().contains("platform_admin, tenant_admin"), "{error}");
    }

    #[test]
    fn whoever_reads_evidence_changes_nothing() {
        for permission in permitted(Role::Auditor) {
            assert!(permission.ends_with(":read") || permission == "audit:export", "{permission}");
        }
        for permission in permitted(Role::Viewer) {
            assert!(permission.ends_with(":read"), "{permission}");
        }
        for content in [
            "message:read",
            "artifact:read",
            "audit:read",
            "approval:read",
            "token:read",
            "secret:read",
            "log:read",
        ] {
            assert!(!Role::Viewer.permits(content), "{content}");
        }
    }

    #[test]
    fn nothing_is_permitted_that_no_role_says() {
        for malformed in ["", "crew", "*", ":"] {
            assert!(!Role::Developer.permits(malformed), "{malformed}");
        }
        for (role, denied) in [
            (Role::Operator, "crew:assemble"),
            (Role::Developer, "token:mint"),
            (Role::Developer, "secret:set"),
            (Role::Developer, "approval:answer"),
            (Role::Developer, "tenant:kill"),
            (Role::Operator, "tenant:kill"),
            (Role::Approver, "task:submit"),
            (Role::TenantAdmin, "audit:checkpoint"),
        ] {
            assert!(!role.permits(denied), "{role} {denied}");
        }
        assert_eq!(permitted(Role::PlatformAdmin).count(), PERMISSIONS.len());
    }
}
