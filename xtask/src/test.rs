//! Every test of the workspace, and the long one.

use std::process::{Command, Stdio};

use crate::steps::{Failed, cargo};
use crate::{image, matrix, tools};

/// How often the crash test kills the platform; without it, as often as a run of all tests can wait for.
const MOMENTS: &str = "HYPERCODE_CRASH_MOMENTS";
/// How many agents follow each other through a pool.
const CYCLES: &str = "HYPERCODE_ONE_USE_CYCLES";
/// How many seeds the simulation plays in continuous integration, in an optimised build: about a minute's work.
const SEEDS: u32 = 2_000;
/// As many of them are also played on three nodes.
const CLUSTER_SEEDS: u32 = 100;

/// Runs every test, those of the documents first, so that the runner's summary is what stands last, and under it which law
/// held in which implementation.
pub(crate) fn run(args: &[String]) -> Result<(), Failed> {
    python()?;
    tools::run()?;
    let has_nextest = nextest();
    // Without it, they are run with all others.
    if args.is_empty() && has_nextest {
        cargo(["test", "--workspace", "--doc", "--quiet"]).run()?;
    }
    let is_ci = std::env::var_os("CI").is_some();
    if is_ci && args.is_empty() {
        simulate(SEEDS)?;
    }
    if is_ci {
        // Tests put it into containers.
        image::build().run()?;
    }
    if !has_nextest {
        return cargo(["test", "--workspace", "--"]).args(args).run();
    }
    let profile = if is_ci { "ci" } else { "default" };
    matrix::forget(profile)?;
    let ran = cargo(["nextest", "run", "--workspace", "--profile", profile]).args(args).run();
    let shown = matrix::print(profile, args.is_empty() && ran.is_ok());
    ran.and(shown)
}

/// Plays many seeds of the simulation in an optimised build, which is ten times as fast.
fn simulate(seeds: u32) -> Result<(), Failed> {
    let simulation = cargo(["test", "--release", "--package", "hypercode-actors", "--test", "simulation"]);
    simulation
        .args(["--", "the_laws"])
        .env("HYPERCODE_SIM_SEEDS", seeds.to_string())
        .env("HYPERCODE_SIM_CLUSTER_SEEDS", CLUSTER_SEEDS.to_string())
        .run()
}

/// Runs the crash test with many more moments than usual and the tests of one use with many more cycles, in sight, and with
/// no bound to their time. What has none is left out.
pub(crate) fn soak(moments: u32, cycles: u32) -> Result<(), Failed> {
    python()?;
    tools::run()?;
    if cycles > 0 {
        let one_use = ["--nocapture", "--test-threads=1", "one_use::"];
        let tests = cargo(["test", "--package", "hypercode", "--test", "e2e", "--"]).args(one_use);
        tests.env(CYCLES, cycles.to_string()).run()?;
    }
    if moments == 0 {
        return Ok(());
    }
    let crash = cargo(["test", "--package", "hypercode", "--test", "crash", "--", "--nocapture"]);
    crash.env(MOMENTS, moments.to_string()).run()
}

/// Some tests drive handlers that are written in Python, as a user's are.
fn python() -> Result<(), Failed> {
    let quiet = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if quiet.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Failed("`python3` is not found: the tests drive handlers in Python; install it (and `pip`)".into()))
}

/// Whether the test runner is there, after having tried to get it.
fn nextest() -> bool {
    let found = || cargo(["nextest", "--version"]).works();
    if found() {
        return true;
    }
    eprintln!("cargo-nextest is not installed; installing it");
    if let Err(failed) = cargo(["install", "--locked", "cargo-nextest"]).run() {
        eprintln!("{failed}; going on with `cargo test`");
    }
    found()
}
