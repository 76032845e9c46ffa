//! Images: the platform's own, those that users make of them, and those that know nothing of the platform.

use std::path::{Path, PathBuf};

use crate::docker::{Image, build, crew, inspected, is_available, with_images};
use crate::stage::Stage;
use crate::support::Home;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples/word-count");

/// The program as `cargo xtask image` links it: statically.
fn static_program() -> Option<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/static").join(triple).join("debug/hypercode");
    let is_there = program.is_file();
    assert!(is_there || std::env::var_os("CI").is_none(), "`{}` is not built", program.display());
    if !is_there {
        eprintln!("skipped: `{}` is not there; `CI=true cargo xtask test` builds it", program.display());
    }
    is_there.then_some(program)
}

/// The example's handlers are Python and shell: both are in the image, and nothing of the host is needed.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_crew_runs_in_the_image_with_python() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    let images = build(&home).await;
    let names: Vec<&str> = images.iter().filter_map(|image| image["image"].as_str()).collect();
    assert_eq!(names, ["hypercode/base:latest", "hypercode/python:latest"]);
    for part in ["splitter/splitter.py", "counter/counter.py", "reporter/report.sh"] {
        home.write(&format!("example/{part}"), "");
        std::fs::copy(format!("{EXAMPLE}/{part}"), home.path(&format!("example/{part}"))).expect("a copy");
    }
    let profiles = std::fs::read_to_string(format!("{EXAMPLE}/profiles.yaml")).expect("the example");
    let profiles = profiles.replace("spec:\n", "spec:\n  image: hypercode/python\n");
    let profiles = home.write("example/profiles.yaml", profiles);

    let stage = Stage::over(home).await;
    stage.hypercode(&["profile", "apply", profiles.to_str().expect("text")]).await.ok();
    stage.hypercode(&["crew", "assemble", &format!("{EXAMPLE}/crew.yaml")]).await.ok();
    let text = "the cat and the dog and the bird";
    let result = stage.hypercode(&["task", "submit", "word-count", text, "--wait"]).await.ok();
    assert!(result.contains("| the | 3 |") && result.contains("| and | 2 |"), "{result}");

    // The name may stand for another by now: the tests beside this one make images too.
    let pinned = stage.json(&["profile", "show", "counter"]).await["image"].clone();
    let made = inspected(&stage.home, "{{.HostConfig.NetworkMode}} {{.Image}}");
    assert_eq!(made, vec![format!("none {}", pinned.as_str().expect("a digest")); 5]);
    stage.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_dockerfile_begins_with_an_image_of_the_platform() {
    if !is_available() {
        return;
    }
    let home = Home::in_containers();
    with_images(&home).await;
    let counter = std::fs::read(format!("{EXAMPLE}/counter/counter.py")).expect("the example");
    home.write("context/counter.py", counter);
    // A program that needs no other library than the runner does.
    std::fs::copy("/bin/cat", home.path("context/echo")).expect("a copy");
    let on_python = Image::build(
        &home,
        "on-python",
        "FROM hypercode/python\nCOPY counter.py .\nENV LD_PRELOAD=/app/none.so GREETING=hello\nENTRYPOINT [\"/bin/false\"]\n",
    );
    let on_base = Image::build(&home, "on-base", "FROM hypercode/base\nCOPY echo .\nUSER 0\n");

    let stage = Stage::over(home).await;
    let words = crew("words", &on_python.0, "{command: [python3, /app/counter.py]}");
    stage.assemble(&words).await.ok();
    let counted = stage.hypercode(&["task", "submit", "words", "one two two", "--wait"]).await.ok();
    assert!(counted.contains("two"), "{counted}");
    let echo = crew("echo", &on_base.0, "{protocol: exec, command: [/app/echo], timeout: 30s}");
    stage.assemble(&echo).await.ok();
    let said = stage.hypercode(&["task", "submit", "echo", "what was said", "--wait"]).await.ok();
    assert!(said.contains("what was said"), "{said}");

    let mut made = inspected(&stage.home, "{{.Image}} {{.Config.User}}");
    made.sort();
    let mut wanted = [on_python.id(), on_base.id()].map(|id| format!("{id} 10001:10001"));
    wanted.sort();
    assert_eq!(made, wanted);
    stage.leave().await;
}

/// An image in which there is nothing at all: what runs in it is the runner that was put there, and what that brings.
#[tokio::test(flavor = "multi_thread")]
async fn the_runner_is_put_into_an_image_that_knows_nothing_of_it() {
    let Some(program) = static_program().filter(|_| is_available()) else { return };
    let home = Home::in_containers().with_runner(&program);
    home.write("context/readme", "nothing runs here");
    let bare = Image::build(&home, "bare", "FROM scratch\nCOPY readme /readme\n");
    let stage = Stage::over(home).await;
    let handler = "{protocol: stdio, command: [hypercode, handler, code-health, editor]}";
    stage.assemble(&crew("bare", &bare.0, handler)).await.ok();
    assert_eq!(inspected(&stage.home, "{{.Image}} {{.State.Status}}"), [format!("{} running", bare.id())]);
    stage.leave().await;
}
