//! A disk without room: what cannot be kept is refused, and nothing that was accepted is lost.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde_json::json;

use crate::stage::{CREW, Stage, nothing_is_left, wait_for};
use crate::support::{Api, Home, Up, eventually};

/// Size of the disk.
const DISK: &str = "16m";

/// The data directory on a disk of its own, which nobody but the platform and what it starts sees mounted.
fn mounted(home: &Home) -> String {
    let data = home.data();
    std::fs::create_dir(&data).expect("a directory");
    let rights = if geteuid().is_root() { "" } else { "--map-root-user" };
    let mount = format!("mount -t tmpfs -o size={DISK},mode=700 none {}", data.display());
    format!(r#"exec unshare --mount {rights} sh -c '{mount} && exec "$0" "$@"'"#)
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    let mut bytes = 64 << 10;
    while bytes > 0 {
        if file.write_all(&vec![7; bytes]).is_err() {
            bytes /= 2;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_new_and_loses_nothing() {
    let home = Home::new();
    let line = mounted(&home);
    // `exec` again: the platform's process is the one that is started here.
    let up = Up::spawn_after(&format!("{line} \"$0\" \"$@\""), &home);
    let data = PathBuf::from(format!("/proc/{}/root", up.pid()))
        .join(home.data().strip_prefix("/").expect("absolute"));
    let api = Api::of(&home).with_data(data.clone());
    let mut stage = Stage { home, api, up };
    stage.up.ready(&stage.api).await;
    let data_dir = data.to_str().expect("text").to_owned();
    let hypercode = async |args: &[&str]| stage.home.run(&[&["--data-dir", &data_dir], args].concat()).await;
    stage.home.write("deeds/deeds.py", crate::support::DEEDS);
    let crew = CREW.replace("@DIARY@", &stage.home.diary_file().display().to_string());
    let crew = stage.home.write("crew.yaml", crew);
    hypercode(&["crew", "assemble", crew.to_str().expect("text")]).await.ok();

    let body = json!({"crew": "troupe", "input": wait_for(&stage.home, "go")});
    let held = stage.api.insist("/v1/tasks", &body, "held").await.done();
    let held = held["id"].as_str().expect("an id").to_owned();
    stage.in_hand(&held, 1).await;
    fill(&data.join("fill"));
    let said = hypercode(&["task", "submit", "troupe", "--input", r#"{"do": "echo"}"#]).await.refused(5);
    assert!(said.contains("disk is full"), "{said}");
    let ready = stage.api.get("/readyz").await.expect("an answer");
    assert_eq!(ready.status, 503, "{ready:?}");
    let doctor = hypercode(&["doctor"]).await;
    assert!(doctor.code == 5 && doctor.out.contains("the disk of the data directory is full"), "{doctor:?}");
    // Its result cannot be kept yet; the handler is not asked again for what it has done.
    stage.home.write("go", "");
    hypercode(&["task", "list"]).await.ok();
    std::fs::remove_file(data.join("fill")).expect("a file");

    let ended = stage.api.ended(&held).await;
    assert_eq!((&ended["status"], &ended["attempts"]), (&json!("completed"), &json!(1)), "{ended:#}");
    let submit = ["task", "submit", "troupe", "--wait", "--input", r#"{"do": "echo"}"#];
    assert!(stage.api.get("/readyz").await.expect("an answer").is_ok(), "there is room again");
    eventually("there is room again", async || (hypercode(&submit).await.code == 0).then_some(())).await;
    hypercode(&["audit", "verify"]).await.ok();
    hypercode(&["crew", "disband", "troupe"]).await.ok();
    assert!(stage.up.stop().await.success());
    nothing_is_left(&stage.home).await;
}

/// What it says about itself is said on standard error, which may be a file on a full disk too.
#[tokio::test(flavor = "multi_thread")]
async fn a_platform_whose_log_cannot_be_written_works_on() {
    let home = Home::new();
    let (api, mut up) = (Api::of(&home), Up::spawn_after("exec 2>/dev/full", &home));
    up.ready(&api).await;
    let stage = Stage { home, api, up };
    stage.assemble(CREW).await.ok();
    let task = stage.submit(&json!({"do": "die"})).await;
    let ended = stage.ended(&task).await;
    assert_eq!(ended["status"], "completed", "{ended:#}");
    stage.leave().await;
}
