//! Bundles, verified by this program and by the bundle's own: on the same forgeries both find the same.

mod forgeries;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::audit::line::Line;
use crate::audit::tests::Desk;
use crate::audit::witness::double::Witness;
use crate::audit::{
    Evidence, FaultKind, Ledger, Local, Note, PublicKey, Report, Trust, WitnessKey, notes, verify,
};
use crate::event::{Principal, Recorded};
use crate::id::Position;
use crate::store::sqlite;

/// Exports events of a log with checkpoints at 300, 600 and 700.
async fn bundle(desk: &Desk, from: u64, to: u64, format: Format) -> (TempDir, PathBuf) {
    cosigned_bundle(desk, (from, to), format, |_| Vec::new()).await
}

/// The same, with what `cosign` makes of the checkpoints.
async fn cosigned_bundle(
    desk: &Desk,
    (from, to): (u64, u64),
    format: Format,
    cosign: impl FnOnce(&[Note]) -> Vec<Note>,
) -> (TempDir, PathBuf) {
    let dir = desk.dir.path();
    let store = sqlite::ReadOnly::open(dir, &sqlite::Options::default()).await.expect("a log");
    let ledger = Ledger::read(dir).await.expect("readable").expect("a ledger");
    let entries = ledger.checkpoints(0, 100).await.expect("checkpoints");
    let keys = ledger.keys().await.expect("keys");
    let checkpoints: Vec<Note> =
        entries.iter().map(|entry| Note::parse(&entry.note).expect("a note")).collect();
    let wanted = Wanted {
        from,
        to,
        cosigned: cosign(&checkpoints),
        checkpoints,
        keys: keys.iter().map(|key| PublicKey::parse(key).expect("a key")).collect(),
        format,
    };
    let store = std::sync::Arc::new(store);
    let mut evidence = Local::after(store, Some(ledger), Position(from - 1)).await.expect("evidence");
    let scratch = TempDir::new().expect("a directory");
    let path = scratch.path().join("bundle");
    export(wanted, &mut evidence, &path).await.expect("a bundle");
    (scratch, path)
}

async fn by_us(bundle: &Path, change: impl FnOnce(&mut Trust)) -> Report {
    let mut bundle = Bundle::open(bundle).expect("a bundle");
    let mut trust = bundle.trust().expect("its claims");
    change(&mut trust);
    let evidence: &mut dyn Evidence = &mut bundle;
    verify(trust, evidence, |_| ()).await.expect("readable")
}

fn by_python(bundle: &Path, arguments: &[&str]) -> Value {
    let program = bundle.join("verify.py");
    let output = Command::new("python3").arg(program).arg("--json").args(arguments).output();
    let output = output.expect("python3 runs");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// What is wrong, by both, who must agree.
async fn faults(bundle: &Path) -> Vec<(String, u64)> {
    let name =
        |kind: &FaultKind| serde_json::to_value(kind).expect("a name").as_str().expect("text").to_owned();
    let ours = by_us(bundle, |_| ()).await;
    let ours: Vec<_> =
        ours.faults.iter().map(|fault| (name(&fault.kind), fault.position, fault.until)).collect();
    let theirs = by_python(bundle, &[]);
    let theirs: Vec<(String, u64, u64)> = theirs["faults"]
        .as_array()
        .expect("faults")
        .iter()
        .map(|fault| {
            let number = |field: &str| fault[field].as_u64().expect("a number");
            (fault["kind"].as_str().expect("text").to_owned(), number("position"), number("until"))
        })
        .collect();
    assert_eq!(ours, theirs, "both verifiers find the same");
    ours.into_iter().map(|(kind, position, _)| (kind, position)).collect()
}

/// A careful forger mends the checksums, too.
fn mend_sums(bundle: &Path) {
    let sums = fs::read_to_string(bundle.join(SUMS)).expect("sums");
    let mended = sums.lines().map(|line| {
        let name = line.split_once("  ").expect("a name").1;
        format!("{}  {name}\n", Digest::of(&fs::read(bundle.join(name)).expect("a file")))
    });
    fs::write(bundle.join(SUMS), mended.collect::<String>()).expect("written");
}

fn edit(bundle: &Path, name: &str, change: impl FnOnce(Vec<String>) -> Vec<String>) {
    let text = fs::read_to_string(bundle.join(name)).expect("a file");
    let lines = change(text.lines().map(str::to_owned).collect());
    fs::write(bundle.join(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
        .expect("written");
}

#[tokio::test]
async fn whole_and_partial_bundles_verify_by_both() {
    let desk = Desk::new().await;
    for (from, to, checkpoints) in
        [(1, 700, 3), (1, 650, 3), (301, 700, 2), (257, 600, 3), (512, 513, 1), (700, 700, 1)]
    {
        let (_scratch, path) = bundle(&desk, from, to, Format::Jsonl).await;
        let report = by_us(&path, |_| ()).await;
        assert!(report.ok, "{from} to {to}: {report:#?}");
        assert_eq!(
            (report.first, report.last, report.checkpoints),
            (from, to, checkpoints),
            "{from} to {to}"
        );
        let theirs = by_python(&path, &["--key", &report.keys[0]]);
        assert_eq!(theirs["ok"], true, "{from} to {to}: {theirs}");
        assert_eq!((theirs["last"].as_u64(), theirs["checkpoints"].as_u64()), (Some(to), Some(checkpoints)));
    }
}

fn replace_at(mut lines: Vec<String>, at: usize, old: &str, new: &str) -> Vec<String> {
    assert!(lines[at].contains(old), "{}", lines[at]);
    lines[at] = lines[at].replacen(old, new, 1);
    lines
}

/// Changes what the manifest says.
fn claim(bundle: &Path, change: impl FnOnce(&mut Manifest)) {
    let path = bundle.join(MANIFEST);
    let mut manifest = serde_json::from_slice(&fs::read(&path).expect("a manifest")).expect("its form");
    change(&mut manifest);
    fs::write(path, serde_json::to_string_pretty(&manifest).expect("plain data")).expect("written");
}

/// Changes the events of a whole log, chains them anew, and has the manifest say so.
fn forge(bundle: &Path, change: impl FnOnce(&mut Vec<Recorded>)) {
    let text = fs::read_to_string(bundle.join(EVENTS)).expect("events");
    let event = |line| Recorded::try_from(&serde_json::from_str::<Line>(line).expect("a line"));
    let mut events: Vec<Recorded> = text.lines().map(event).collect::<Result<_, _>>().expect("events");
    change(&mut events);
    let mut last = Digest::ZERO;
    for event in &mut events {
        event.hash = crate::chain::hash(last, event);
        last = event.hash;
    }
    let lines = events.iter().map(|event| serde_json::to_string(&Line::from(event)).expect("plain data"));
    edit(bundle, EVENTS, |_| lines.collect());
    let to = events.len() as u64;
    claim(bundle, |manifest| (manifest.to, manifest.hash) = (to, last));
}

/// Leaves out all but the first checkpoints, here and in the manifest.
fn keep_checkpoints(bundle: &Path, kept: usize) {
    let read = notes(&fs::read_to_string(bundle.join(CHECKPOINTS)).expect("checkpoints"));
    let text = read.iter().take(kept).map(|note| format!("{}\n", note.as_ref().expect("a note")));
    fs::write(bundle.join(CHECKPOINTS), text.collect::<String>()).expect("written");
    claim(bundle, |manifest| manifest.checkpoints.truncate(kept));
}

fn replace_all(lines: Vec<String>, changes: &[(&str, &str)]) -> Vec<String> {
    let change = |line: String| changes.iter().fold(line, |line, (old, new)| line.replace(old, new));
    lines.into_iter().map(change).collect()
}

/// Another signature of the same form.
fn swap_last(line: &mut String) {
    line.replace_range(line.len() - 5..line.len() - 1, "AAAA");
}

fn by_line(bundle: &Path, position: usize) -> String {
    let text = fs::read_to_string(bundle.join(EVENTS)).expect("events");
    let line: Value =
        serde_json::from_str(text.lines().nth(position - 1).expect("a line")).expect("an event");
    line["hash"].as_str().expect("a hash").to_owned()
}

fn by_manifest(bundle: &Path) -> String {
    let manifest: Value =
        serde_json::from_slice(&fs::read(bundle.join(MANIFEST)).expect("a manifest")).expect("JSON");
    manifest["hash"].as_str().expect("a hash").to_owned()
}

/// What ends at a checkpoint is a log that was signed: that there was more, only who has kept a newer one can tell.
#[tokio::test]
async fn what_was_cut_off_at_a_checkpoint_is_missed_by_who_has_kept_a_newer_one() {
    let desk = Desk::new().await;
    let (_scratch, path) = bundle(&desk, 1, 700, Format::Jsonl).await;
    let kept = fs::read_to_string(path.join(CHECKPOINTS)).expect("checkpoints");
    let mine = path.join("../mine");
    fs::write(&mine, &kept).expect("written");
    forge(&path, |events| events.truncate(600));
    keep_checkpoints(&path, 2);
    mend_sums(&path);
    assert_eq!(faults(&path).await, []);
    assert_eq!(by_us(&path, |_| ()).await.covered, 600, "it says how far it goes");
    let ours = by_us(&path, |trust| trust.hold_to("in mine", notes(&kept))).await;
    assert_eq!(
        ours.faults.first().map(|fault| (fault.kind, fault.position)),
        Some((FaultKind::LogTruncated, 601))
    );
    let theirs = by_python(&path, &["--against", mine.to_str().expect("text")]);
    assert_eq!(theirs["faults"][0]["kind"], "log_truncated", "{theirs}");
    // A file that has none is nothing to compare with.
    fs::write(&mine, "\n").expect("written");
    let output = Command::new("python3").arg(path.join("verify.py")).arg("--against").arg(&mine).output();
    let output = output.expect("python3 runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no checkpoint to compare with"), "{output:?}");
}

#[tokio::test]
async fn a_key_that_was_named_and_that_the_bundle_does_not_name_is_said() {
    let desk = Desk::new().await;
    let (_scratch, path) = bundle(&desk, 1, 700, Format::Jsonl).await;
    let key = fs::read_to_string(path.join(KEYS)).expect("keys").trim().to_owned();
    let pinned = |trust: &mut Trust| trust.pin(vec![PublicKey::parse(&key).expect("a key")]);
    assert!(by_us(&path, pinned).await.ok);
    let other = crate::audit::Signer::generate("evil/test").public().to_string();
    edit(&path, KEYS, |_| vec![other]);
    mend_sums(&path);
    let ours = by_us(&path, pinned).await;
    assert_eq!(ours.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [FaultKind::KeyMissing]);
    let theirs = by_python(&path, &["--key", &key]);
    assert_eq!(theirs["faults"].as_array().map(Vec::len), Some(1), "{theirs}");
    assert_eq!(theirs["faults"][0]["kind"], "key_missing", "{theirs}");
}

/// What cannot be read is no bundle, which is not the same as one that was tampered with.
#[tokio::test]
async fn what_is_no_bundle_is_refused_by_both() {
    let desk = Desk::new().await;
    let (_scratch, path) = bundle(&desk, 1, 700, Format::Jsonl).await;
    let whole = fs::read_to_string(path.join(MANIFEST)).expect("a manifest");
    for (old, new) in [
        (r#""from": 1"#, r#""from": 1180591620717411303424"#),
        (r#""from": 1"#, r#""from": 0"#),
        (r#""to": 700"#, r#""to": 1e9"#),
        (r#""to": 700"#, r#""to": 0"#),
        (r#""format": 1"#, r#""format": 2"#),
        (r#""from": 1"#, r#""from": 2, "from": 1"#),
        (r#""from": 1"#, r#""from": 1, "verified": true"#),
        ("{", "["),
    ] {
        fs::write(path.join(MANIFEST), whole.replacen(old, new, 1)).expect("written");
        let refused = Bundle::open(&path).err().expect("it is no bundle");
        let problem = crate::api::Problem::from(refused);
        assert_eq!(problem.kind, crate::api::ProblemKind::Invalid, "{new}: {problem:?}");
        let output = Command::new("python3").arg(path.join("verify.py")).output().expect("python3 runs");
        assert_eq!(output.status.code(), Some(2), "{new}: {output:?}");
    }
}

#[tokio::test]
async fn a_bundle_is_held_to_what_the_auditor_has_kept() {
    let desk = Desk::new().await;
    let kept = fs::read_to_string(desk.dir.path().join("checkpoints")).expect("the file");
    let (_scratch, path) = bundle(&desk, 1, 700, Format::Jsonl).await;
    let mine = path.join("../mine");
    fs::write(&mine, &kept).expect("written");
    let mine = mine.to_str().expect("text").to_owned();
    assert!(by_us(&path, |trust| trust.hold_to("in mine", notes(&kept))).await.ok);
    assert_eq!(by_python(&path, &["--against", &mine])["ok"], true);

    // The whole log was made anew with the same key: it fits itself, but not what was given away.
    let other = Desk { dir: TempDir::new().expect("a directory") };
    fs::copy(desk.dir.path().join(crate::audit::KEY_FILE), other.dir.path().join(crate::audit::KEY_FILE))
        .expect("the key");
    let (store, tailer) = other.open().await;
    other.append_until(&store, 700).await;
    tailer.cut().await.expect("a checkpoint");
    other.close(store, tailer).await;
    let (_scratch, path) = bundle(&other, 1, 700, Format::Jsonl).await;
    assert!(by_us(&path, |_| ()).await.ok && by_python(&path, &[])["ok"] == true);
    let ours = by_us(&path, |trust| trust.hold_to("in mine", notes(&kept))).await;
    assert!(
        ours.faults.iter().any(|fault| fault.kind == FaultKind::LogRewritten && fault.position == 1),
        "{ours:?}"
    );
    let theirs = by_python(&path, &["--against", &mine]).to_string();
    assert!(theirs.contains("log_rewritten"), "{theirs}");
}

#[tokio::test]
async fn what_a_witness_has_cosigned_goes_along_and_is_asked_for_by_both() {
    let desk = Desk::new().await;
    let (witness, other) = (Witness::new("witness.example/w1", [1; 32]), Witness::new("w2", [2; 32]));
    let cosign = |notes: &[Note]| {
        let seen = &notes[1];
        vec![Note::parse(&format!("{seen}{}", witness.cosign(seen, 1_795_000_000))).expect("a note")]
    };
    let (_scratch, path) = cosigned_bundle(&desk, (301, 700), Format::Jsonl, cosign).await;
    let asked = async |key: &str| {
        let parsed = WitnessKey::parse(key).expect("a key");
        let ours = by_us(&path, |trust| trust.must_be_witnessed(&parsed)).await;
        let ours: Vec<String> = ours
            .faults
            .iter()
            .map(|fault| format!("{} {}", serde_json::to_value(fault.kind).expect("a name"), fault.position))
            .collect();
        let theirs = by_python(&path, &["--witness-key", key]);
        let theirs = theirs["faults"].as_array().expect("faults").iter();
        let theirs: Vec<String> =
            theirs.map(|fault| format!("{} {}", fault["kind"], fault["position"])).collect();
        assert_eq!(ours, theirs, "both verifiers find the same");
        ours
    };
    let unwitnessed = [r#""checkpoint_unwitnessed" 700"#.to_owned()];
    assert_eq!(faults(&path).await, []);
    assert_eq!(asked(&witness.public()).await, Vec::<String>::new());
    assert_eq!(asked(&other.public()).await, unwitnessed);
    let whole = fs::read_to_string(path.join(COSIGNED)).expect("the file");
    let own = whole.lines().find(|line| line.starts_with("— witness")).expect("its line");
    let mut bad = own.to_owned();
    swap_last(&mut bad);
    fs::write(path.join(COSIGNED), whole.replace(own, &bad)).expect("written");
    mend_sums(&path);
    assert_eq!(asked(&witness.public()).await, unwitnessed, "a forged cosignature");
    fs::write(path.join(COSIGNED), whole.replace("\n600\n", "\n599\n")).expect("written");
    mend_sums(&path);
    assert_eq!(faults(&path).await.first(), Some(&("checkpoint_forged".to_owned(), 599)));
    edit(&path, SUMS, |lines| lines.into_iter().filter(|line| !line.ends_with(COSIGNED)).collect());
    fs::remove_file(path.join(COSIGNED)).expect("removed");
    assert_eq!(faults(&path).await, []);
    assert_eq!(asked(&witness.public()).await, unwitnessed, "it was left out");
}

#[tokio::test]
async fn a_partial_bundle_is_joined_to_the_tree_around_it() {
    let desk = Desk::new().await;
    for (name, old, new) in [
        ("before", "\"before\": [\n    \"", "\"before\": [\n    \"0000"),
        ("beyond", "\"beyond\": [\n    \"", "\"beyond\": [\n    \"0000"),
    ] {
        let (_scratch, path) = bundle(&desk, 258, 500, Format::Jsonl).await;
        assert_eq!(faults(&path).await, []);
        let text = fs::read_to_string(path.join(MANIFEST)).expect("a manifest");
        let at = text.find(old).expect("it is there") + old.len();
        let forged = format!("{}{}{}", &text[..at - 4 + 4], &new[old.len()..], &text[at + 4..]);
        fs::write(path.join(MANIFEST), forged).expect("written");
        mend_sums(&path);
        let found = faults(&path).await;
        assert!(found.iter().any(|(kind, _)| kind == "log_rewritten"), "{name}: {found:?}");
    }
    let (_scratch, path) = bundle(&desk, 400, 500, Format::Jsonl).await;
    let kept = fs::read_to_string(desk.dir.path().join("checkpoints")).expect("the file");
    let report = by_us(&path, |trust| trust.hold_to("in mine", notes(&kept))).await;
    assert_eq!(
        report.faults.last().map(|fault| (fault.kind, fault.position)),
        Some((FaultKind::CheckpointUnchecked, 300))
    );
}

#[tokio::test]
async fn checksums_find_what_is_no_evidence() {
    let desk = Desk::new().await;
    let (_scratch, path) = bundle(&desk, 1, 700, Format::CloudEvents).await;
    edit(&path, "README.md", |mut lines| {
        lines.push("Trust us.".to_owned());
        lines
    });
    fs::write(path.join("events.cloudevents.jsonl"), "{}\n").expect("written");
    assert_eq!(faults(&path).await, [("file_changed".to_owned(), 0), ("file_changed".to_owned(), 0)]);
}

#[tokio::test]
async fn translations_have_every_event() {
    let desk = Desk::new().await;
    for (format, name, id) in [
        (Format::CloudEvents, "events.cloudevents.jsonl", "/id"),
        (Format::Ocsf, "events.ocsf.jsonl", "/metadata/uid"),
    ] {
        let (_scratch, path) = bundle(&desk, 690, 700, format).await;
        let read = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(path.join(name)).expect("a file");
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let ids: Vec<Value> = read(EVENTS).iter().map(|event| event["eventId"].clone()).collect();
        let translated: Vec<Value> =
            read(name).iter().filter_map(|event| event.pointer(id).cloned()).collect();
        assert_eq!(ids.len(), 11);
        assert_eq!(translated, ids);
    }
}

#[tokio::test]
async fn the_bundles_program_checks_the_proof_of_one_event() {
    let desk = Desk::new().await;
    let (store, tailer) = desk.open().await;
    let note = tailer.cut().await.expect("a checkpoint");
    let (_scratch, path) = bundle(&desk, 700, 700, Format::Jsonl).await;
    let file = path.join("../event.tlog-proof");
    let check = |key: &str| {
        let mut command = Command::new("python3");
        command.arg(path.join("verify.py")).arg("--proof").arg(&file).args(["--key", key]);
        command.output().expect("python3 runs")
    };
    for position in [1, 256, 257, 700] {
        let proof =
            Local::prove(&store, tailer.ledger(), Position(position), note.clone()).await.expect("a proof");
        fs::write(&file, proof.text()).expect("written");
        let output = check(tailer.key().as_str());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(&format!("position {position} ")), "{output:?}");
        let text = proof.text();
        let hash = text.lines().nth(3).expect("a hash");
        fs::write(&file, text.replace(hash, &"A".repeat(43).chars().chain(['=']).collect::<String>()))
            .expect("written");
        assert_eq!(check(tailer.key().as_str()).status.code(), Some(2));
    }
    let stranger = crate::audit::Signer::generate("hypercode/test");
    assert_eq!(check(stranger.public().as_str()).status.code(), Some(2));
    desk.close(store, tailer).await;
}
