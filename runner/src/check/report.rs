//! What a check found.

use std::fmt;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be, or a choice of the handler's own.
    Info,
    /// It works, but not as it should.
    Warning,
    /// It would not do on the platform.
    Error,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How grave.
    pub severity: Severity,
    /// At which step.
    pub step: &'static str,
    /// What the handler did.
    pub found: String,
    /// What the protocol says; empty where nothing is wrong.
    pub rule: &'static str,
}

impl Finding {
    pub(super) fn info(step: &'static str, found: impl Into<String>) -> Self {
        Self { severity: Severity::Info, step, found: found.into(), rule: "" }
    }

    pub(super) fn warning(step: &'static str, found: impl Into<String>, rule: &'static str) -> Self {
        Self { severity: Severity::Warning, step, found: found.into(), rule }
    }

    pub(super) fn error(step: &'static str, found: impl Into<String>, rule: &'static str) -> Self {
        Self { severity: Severity::Error, step, found: found.into(), rule }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}: {}", self.step, self.found)?;
        if self.rule.is_empty() { Ok(()) } else { write!(f, " (the protocol: {})", self.rule) }
    }
}
