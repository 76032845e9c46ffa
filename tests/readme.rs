//! The README's guide, done word for word: its files are written and its commands run against a real platform.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const README: &str = include_str!("../README.md");

/// The fenced blocks of the README, each with the last line of text before it and its language.
fn blocks() -> Vec<(&'static str, &'static str, &'static str)> {
    let mut found = Vec::new();
    let mut rest = README;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (language, body) = after.split_once('\n').expect("a fence ends its line");
        let (body, following) = body.split_once("```\n").expect("a fence is closed");
        found.push((before.trim_end().lines().last().unwrap_or_default(), language, body));
        rest = following;
    }
    found
}

/// A directory of a newcomer's, with the files of the guide, and `hypercode` at hand.
struct Newcomer {
    directory: TempDir,
    platform: Option<Child>,
}

impl Newcomer {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        for (title, _, body) in blocks() {
            let Some(name) = title.strip_prefix('`').and_then(|title| title.strip_suffix('`')) else {
                continue;
            };
            let file = directory.path().join(name);
            fs::create_dir_all(file.parent().expect("a file has a directory")).expect("a directory");
            fs::write(file, body).expect("a file");
        }
        let bin = directory.path().join("bin");
        fs::create_dir(&bin).expect("a directory");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hypercode"), bin.join("hypercode")).expect("a link");
        Self { directory, platform: None }
    }

    fn shell(&self, script: &str) -> Command {
        let home = self.directory.path();
        let path = std::env::var("PATH").expect("a PATH");
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(home);
        command.env("PATH", format!("{}:{path}", home.join("bin").display()));
        command.env("HYPERCODE_DATA_DIR", home.join("data")).env("HYPERCODE_LISTEN", "127.0.0.1:0");
        command
    }

    fn run(&self, script: &str) -> Output {
        self.shell(script).output().expect("a shell")
    }

    /// Starts the platform, and waits until it says where it listens.
    fn start(&mut self, script: &str) {
        let script = format!("exec {script}");
        let mut child = self.shell(&script).stdout(Stdio::piped()).spawn().expect("a platform");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        self.platform = Some(child);
        let up = said.lines().map_while(Result::ok).any(|line| line.contains("listens on"));
        assert!(up, "the platform does not say where it listens");
    }
}

impl Drop for Newcomer {
    /// Whatever happened, no agent stays.
    fn drop(&mut self) {
        let Some(mut platform) = self.platform.take() else { return };
        self.run("hypercode crew disband reviews");
        let _ = platform.kill();
        let _ = platform.wait();
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

fn block(title: &str) -> &'static str {
    let found =
        blocks().into_iter().find(|(before, language, _)| *language == "sh" && before.contains(title));
    found.unwrap_or_else(|| panic!("no block of commands follows `{title}`")).2
}

#[test]
fn the_guide_leads_a_newcomer_to_a_crew_that_works() {
    let mut newcomer = Newcomer::new();
    let checked = newcomer.run(block("keeps to the protocol"));
    assert!(checked.status.success(), "{}", said(&checked));
    let checked = newcomer.run(block("what its children are to answer"));
    assert!(checked.status.success(), "{}", said(&checked));
    assert!(said(&checked).contains("ended Completed: +1"), "the child's answer is used: {}", said(&checked));

    newcomer.start(block("In one terminal").trim());
    let done = newcomer.run(block("in the same directory"));
    assert!(done.status.success(), "{}", said(&done));
    let answer = "+2  I love it, so fast\n+0  It is a lamp\n-2  It arrived broken and support is slow";
    assert!(said(&done).contains(answer), "{}", said(&done));

    let seen = newcomer.run(block("it is back"));
    assert!(seen.status.success(), "{}", said(&seen));
    assert!(said(&seen).contains("namespaces"), "the guide says that agents are isolated: {}", said(&seen));
}

#[test]
fn every_file_that_the_readme_links_to_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let targets =
        README.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    for target in targets.filter(|target| !target.starts_with("http")) {
        let target = target.split_once('#').map_or(target, |(file, _)| file);
        assert!(root.join(target).exists(), "`{target}` is not there");
    }
}
