//! The program in a form that runs in any container, and the images of this host's files.

use std::path::PathBuf;

use crate::steps::{Failed, Step, cargo, root};

/// Builds both.
pub(crate) fn run() -> Result<(), Failed> {
    let program = directory().join(triple()).join("release/hypercode");
    build().args(["--release"]).run()?;
    let bytes = std::fs::metadata(&program).map_or(0, |about| about.len());
    let program =
        program.to_str().ok_or_else(|| Failed("the workspace's path is not UTF-8".into()))?.to_owned();
    eprintln!("{program}: {} MiB; have it used with `--set docker_runner={program}`", bytes >> 20);
    // The program that is put into the images' containers says what these must have: nothing.
    Step::of(&program, ["image", "build"]).run()
}

/// Linked statically, the program needs nothing of the image that it is put into. As tests are, it is not optimised.
pub(crate) fn build() -> Step {
    let build = cargo(["build", "--package", "hypercode", "--target", &triple(), "--target-dir"]);
    build.args([directory()]).env("RUSTFLAGS", "-C target-feature=+crt-static")
}

/// Apart from the rest: other flags would have everything built again.
fn directory() -> PathBuf {
    root().join("target/static")
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
