use std::path::Path;

use actors::Secrets as _;
use events::store::Memory;
use events::{Principal, Version};
use manifest::SecretSource;

use super::*;
use crate::config::Config;

const VALUE: &str = "hunter2-and-more";

async fn stored(store: &Arc<Memory>, directory: &Path) -> Arc<Stored> {
    let keys = seal::Keys::open(directory, &directory.join("master.key")).await.expect("keys");
    Stored::open(Arc::clone(store) as Arc<dyn EventStore>, keys).await
}

fn caller(key: Option<&str>) -> Caller {
    let principal = "user:carol".parse::<Principal>().expect("a principal");
    let idempotency_key = key.map(Into::into);
    Caller { tenant: Tenant::default(), principal, idempotency_key, traceparent: None }
}

fn set(value: &str) -> SecretChange {
    SecretChange::Set { name: "openai".to_owned(), value: link::Secret::new(value) }
}

fn delete() -> SecretChange {
    SecretChange::Delete { name: "openai".to_owned(), reason: "leaked".to_owned() }
}

async fn value(stored: &Stored) -> Result<(String, Option<u32>), String> {
    let found = stored.value(&Tenant::default(), "openai").await;
    found.map(|found| (found.value.expose().to_owned(), found.version)).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_value_is_found_until_it_is_set_anew_or_deleted_and_its_key_is_destroyed_then() {
    let (store, home) = (Arc::new(Memory::new()), tempfile::tempdir().expect("a directory"));
    let secrets = stored(&store, home.path()).await;
    assert!(value(&secrets).await.expect_err("not set").contains("hypercode secret set openai"));
    secrets.change(&caller(None), &set(VALUE)).await.expect("set");
    assert_eq!(value(&secrets).await, Ok((VALUE.to_owned(), Some(1))));
    let another = stored(&store, home.path()).await;
    secrets.change(&caller(None), &set("another-value")).await.expect("set anew");
    assert_eq!(value(&another).await, Ok(("another-value".to_owned(), Some(2))), "of any node");
    secrets.change(&caller(None), &delete()).await.expect("deleted");
    assert!(value(&another).await.is_err());
    let state = secrets.state(&Tenant::default()).await.expect("read");
    assert_eq!((state.kept().count(), state.ended.len()), (0, 2));
    for key in &state.ended {
        assert!(!secrets.keys.has(key).await.expect("asked"), "{key} is still there");
    }
    let refused = secrets.change(&caller(None), &delete()).await.expect_err("it is deleted");
    assert_eq!(refused.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn no_value_is_in_the_log_nor_can_be_guessed_from_it() {
    let (store, home) = (Arc::new(Memory::new()), tempfile::tempdir().expect("a directory"));
    let secrets = stored(&store, home.path()).await;
    secrets.change(&caller(None), &set(VALUE)).await.expect("set");
    let events = store.read(Position(0), 10).await.expect("read");
    assert_eq!(events.len(), 1);
    assert!(!events[0].payload.contains(VALUE) && events[0].version == Version(1), "{}", events[0].payload);
    // The same ciphertext opens for no other name.
    let state = secrets.state(&Tenant::default()).await.expect("read");
    let (_, sealed) = state.find("openai").expect("it is set");
    let other = purpose(&Tenant::default(), "other");
    assert_eq!(secrets.keys.open_alone(&sealed.key, &other, &sealed.text).await.expect("asked"), None);
}

#[tokio::test]
async fn the_same_request_is_carried_out_once() {
    let (store, home) = (Arc::new(Memory::new()), tempfile::tempdir().expect("a directory"));
    let secrets = stored(&store, home.path()).await;
    let first = secrets.change(&caller(Some("a")), &set(VALUE)).await.expect("set");
    let again = secrets.change(&caller(Some("a")), &set(VALUE)).await.expect("it is so already");
    assert_eq!((first.position, value(&secrets).await), (again.position, Ok((VALUE.to_owned(), Some(1)))));
    let other = secrets.change(&caller(Some("a")), &set("another-value")).await;
    assert_eq!(other.expect_err("the key is used").kind, ProblemKind::KeyConflict);
    assert_eq!(value(&secrets).await, Ok((VALUE.to_owned(), Some(1))));
    let first = secrets.change(&caller(Some("b")), &delete()).await.expect("deleted");
    let again = secrets.change(&caller(Some("b")), &delete()).await.expect("it is so already");
    assert_eq!(first.position, again.position);
    let other = secrets.change(&caller(Some("a")), &delete()).await;
    assert_eq!(other.expect_err("the key is used").kind, ProblemKind::KeyConflict);
}

/// The sources of a platform that lets profiles have what is in `files`, with this script as its command.
async fn sources(home: &Path, script: &str) -> Sources {
    use std::os::unix::fs::PermissionsExt as _;
    let (data, files) = (home.join("data"), home.join("files"));
    std::fs::create_dir_all(&data).expect("made");
    std::fs::create_dir_all(&files).expect("made");
    let program = home.join("vault");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("executable");
    let secrets = crate::config::Secrets {
        env: vec!["PATH".to_owned(), "CARGO_*".to_owned(), "HYPERCODE_*".to_owned()],
        // Both: the data directory is not given though an operator names it.
        files: vec![files, data.clone()],
        command: Some(program),
        command_ms: 2_000,
    };
    let config = Config { data_dir: data.clone(), secrets, ..Config::default() };
    Sources::new(&config, stored(&Arc::new(Memory::new()), &data).await)
}

async fn found(sources: &Sources, source: SecretSource) -> Result<String, String> {
    let found = sources.resolve(&Tenant::default(), &source).await;
    found.map(|found| found.value.expose().to_owned()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn variables_are_given_that_the_operator_names_and_never_the_platforms_own() {
    let home = tempfile::tempdir().expect("a directory");
    let sources = sources(home.path(), "exit 1").await;
    let env = |name: &str| SecretSource::Env(name.to_owned());
    assert_eq!(found(&sources, env("PATH")).await, Ok(std::env::var("PATH").expect("it is set")));
    assert!(found(&sources, env("CARGO_MANIFEST_DIR")).await.is_ok());
    for name in ["HOME", "HYPERCODE_DATABASE_URL", "PAT", "PATHS"] {
        assert!(found(&sources, env(name)).await.expect_err(name).contains("secret_env"));
    }
    assert!(found(&sources, env("CARGO_NO_SUCH_THING")).await.expect_err("unset").contains("not set"));
}

#[tokio::test]
async fn files_are_given_of_named_directories_whatever_way_leads_there() {
    let home = tempfile::tempdir().expect("a directory");
    let sources = sources(home.path(), "exit 1").await;
    let at = |path: &str| home.path().join(path);
    std::fs::write(at("files/key"), format!("{VALUE}\n")).expect("written");
    std::fs::write(at("outside"), VALUE).expect("written");
    std::os::unix::fs::symlink(at("outside"), at("files/out")).expect("linked");
    std::os::unix::fs::symlink(at("files/key"), at("in")).expect("linked");
    let file = |path: &str| SecretSource::File(at(path).to_string_lossy().into_owned());
    assert_eq!(found(&sources, file("files/key")).await.as_deref(), Ok(VALUE));
    assert_eq!(found(&sources, file("in")).await.as_deref(), Ok(VALUE));
    for path in ["outside", "files/out", "files/../outside", "nowhere", "data/master.key", "data/keys.db"] {
        let reason = found(&sources, file(path)).await.expect_err(path);
        assert!(reason.contains("secret_files"), "{path}: {reason}");
    }
    assert!(found(&sources, file("files/none")).await.expect_err("none").contains("no such file"));
    assert!(found(&sources, file("files")).await.expect_err("a directory").contains("plain file"));
}

#[tokio::test]
async fn a_command_gets_the_key_alone_and_what_it_writes_is_the_value() {
    let home = tempfile::tempdir().expect("a directory");
    let sources = sources(home.path(), r#"echo "$#:$1:$HYPERCODE_TENANT:$(env | grep -c CARGO)""#).await;
    let key = SecretSource::VaultCommand("team/key; $(id)".to_owned());
    assert_eq!(found(&sources, key).await.as_deref(), Ok("1:team/key; $(id):default:0"));
}

#[tokio::test]
async fn a_command_that_fails_hangs_or_floods_is_said_to_and_its_output_is_not() {
    let home = tempfile::tempdir().expect("a directory");
    for (script, said) in [
        (format!("echo {VALUE}; exit 3"), "exit status: 3"),
        (format!("echo {VALUE}; sleep 60 & wait"), "2000 ms"),
        (format!("yes {VALUE}"), "more than"),
    ] {
        let sources = sources(home.path(), &script).await;
        let reason = found(&sources, SecretSource::VaultCommand("k".to_owned())).await.expect_err(&script);
        assert!(reason.contains(said) && !reason.contains(VALUE), "{reason}");
    }
}
