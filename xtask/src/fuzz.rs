//! Fuzzing for longer than a run of all tests can wait for.

use crate::steps::{Failed, cargo};

/// How long a target is tried, in seconds: what the targets read.
const SECONDS: &str = "HYPERCODE_FUZZ_SECONDS";
/// The targets, and the crate and the tests that they are in.
const TARGETS: [(&str, &str, &[&str]); 6] = [
    ("to_gateway", "hypercode-link", &["--test", "fuzz"]),
    ("to_runner", "hypercode-link", &["--test", "fuzz"]),
    ("manifest", "hypercode-manifest", &["--test", "fuzz"]),
    ("agent_token", "hypercode-identity", &["--test", "fuzz"]),
    ("subject", "hypercode-nats", &["--test", "fuzz"]),
    ("body", "hypercode", &["--lib"]),
];

/// Tries a target, or each of them, for so long.
pub(crate) fn run(target: Option<&str>, seconds: u64) -> Result<(), Failed> {
    let names = || TARGETS.map(|(name, ..)| name).join(", ");
    if let Some(target) = target.filter(|target| !TARGETS.iter().any(|(name, ..)| name == target)) {
        return Err(Failed(format!("there is no target `{target}`; the targets are {}", names())));
    }
    for (name, package, tests) in
        TARGETS.into_iter().filter(|(name, ..)| target.is_none_or(|only| only == *name))
    {
        let path =
            if package == "hypercode" { format!("http::tests::fuzz::{name}") } else { name.to_owned() };
        let step = cargo(["test", "--quiet", "--package", package]).args(tests);
        step.args(["--", "--exact", "--nocapture", &path]).env(SECONDS, seconds.to_string()).run()?;
    }
    Ok(())
}
