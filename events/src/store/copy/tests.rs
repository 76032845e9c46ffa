//! Logs are carried over whole, whatever lies between, and whatever stands against it is said.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::AppendError;
use crate::artifact::{Files, Postgres as Artifacts};
use crate::lease::Leases;
use crate::store::conformance::{log, name, request, stream};
use crate::store::postgres::server::{Server, execute};
use crate::store::{AppendRequest, Epoch, Expected, Postgres, Sqlite};

/// A place of a test's own.
struct Fresh {
    place: Place,
    url: Option<String>,
    directory: Option<TempDir>,
}

impl Fresh {
    fn directory() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let place = format!("sqlite:{}", directory.path().display()).parse().expect("a place");
        Self { place, url: None, directory: Some(directory) }
    }

    async fn database() -> Self {
        let url = Server::shared().database().await;
        Self { place: url.parse().expect("a place"), url: Some(url), directory: None }
    }

    async fn open(&self) -> Open {
        match &self.place {
            Place::Directory(path) => {
                let artifacts = Files::open(path.join("artifacts")).await.expect("it opens");
                let log = Sqlite::open(path, sqlite::Options::default()).await.expect("it opens");
                let (log, leases) = (Arc::new(log.clone()) as Arc<dyn EventStore>, Logs::Sqlite(log));
                Open { log, leases, artifacts: Box::new(artifacts) }
            }
            Place::Database(database) => {
                let log = Postgres::open(database, postgres::Options::default()).await.expect("it opens");
                let artifacts = Artifacts::open(database).await.expect("it opens");
                let (log, leases) = (Arc::new(log.clone()) as Arc<dyn EventStore>, Logs::Postgres(log));
                Open { log, leases, artifacts: Box::new(artifacts) }
            }
        }
    }

    async fn refusal_to_open(&self) -> String {
        match &self.place {
            Place::Directory(path) => {
                Sqlite::open(path, sqlite::Options::default()).await.expect_err("it is refused").to_string()
            }
            Place::Database(database) => {
                let opened = Postgres::open(database, postgres::Options::default()).await;
                opened.expect_err("it is refused").to_string()
            }
        }
    }

    /// Executes a statement in the log's database.
    async fn execute(&self, sql: &str) {
        match (&self.url, &self.directory) {
            (Some(url), _) => execute(url, sql).await,
            (None, Some(directory)) => {
                let file = directory.path().join(sqlite::LOG_FILE);
                rusqlite::Connection::open(file).and_then(|db| db.execute_batch(sql)).expect("executed");
            }
            (None, None) => unreachable!("a place is of one of two kinds"),
        }
    }
}

enum Logs {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// An open log.
struct Open {
    log: Arc<dyn EventStore>,
    leases: Logs,
    artifacts: Box<dyn ArtifactStore>,
}

impl Open {
    fn leases(&self) -> &dyn Leases {
        match &self.leases {
            Logs::Sqlite(log) => log,
            Logs::Postgres(log) => log,
        }
    }

    async fn close(self) {
        match self.leases {
            Logs::Sqlite(log) => log.close().await,
            Logs::Postgres(log) => log.close().await,
        }
    }

    async fn claim(&self) -> Vec<Epoch> {
        self.leases().claim("node", &[], 256, Duration::from_secs(60)).await.expect("claimed")
    }
}

fn keyed(id: &str, digest: &[u8]) -> AppendRequest {
    AppendRequest {
        command_id: CommandId::derive(&["keyed", id]),
        command_digest: Some(Digest::of(digest)),
        ..request(&stream(id), Expected::Any, &[r#"{"text":"grüße \u0000"}"#, "2"])
    }
}

/// A log with everything that one can have.
async fn fill(fresh: &Fresh) {
    let open = fresh.open().await;
    let held = open.claim().await;
    open.leases().release("node", &held).await.expect("released");
    let held = open.claim().await;
    for number in 0..30 {
        let id = format!("s{number}");
        let mut request = keyed(&id, b"first");
        request.reserve = vec![name(&id)];
        request.epoch = held.get(number).copied();
        open.log.append(request).await.expect("it is appended");
    }
    let released =
        AppendRequest { release: vec![name("s7")], ..request(&stream("s7"), Expected::Any, &["3"]) };
    open.log.append(released).await.expect("it is appended");
    for text in ["one", "two", "three"] {
        open.artifacts.put(text.into()).await.expect("it is kept");
    }
    open.leases().leave("node").await.expect("it leaves");
    open.close().await;
}

async fn carry(from: &Fresh, to: &Fresh) -> Result<Copied, CopyError> {
    copy(&from.place, &to.place, |_| {}).await
}

async fn refused(from: &Fresh, to: &Fresh) -> String {
    carry(from, to).await.expect_err("it is refused").to_string()
}

async fn everything_is_carried_over(from: Fresh, to: Fresh) {
    fill(&from).await;
    let copied = carry(&from, &to).await.expect("it is copied");
    assert_eq!((copied.events, copied.digests, copied.names), (61, 30, 29));
    assert_eq!((copied.artifacts, copied.artifacts_carried), (3, 3));
    let (before, after) = (from.open().await, to.open().await);
    assert_eq!(log(&*after.log).await, log(&*before.log).await);
    assert_eq!(after.log.head().await, Ok(copied.head));

    // Idempotency, names and epochs hold as they did.
    let repeated = after.log.append(keyed("s3", b"first")).await.expect("the first outcome");
    assert!(repeated.repeated && repeated.position == Position(8), "{repeated:?}");
    let conflict = after.log.append(keyed("s3", b"other")).await;
    assert!(matches!(conflict, Err(AppendError::KeyConflict { .. })), "{conflict:?}");
    let take =
        |key| AppendRequest { reserve: vec![name(key)], ..request(&stream("x"), Expected::Any, &["1"]) };
    assert!(matches!(after.log.append(take("s8")).await, Err(AppendError::Taken { .. })));
    after.log.append(take("s7")).await.expect("a name that was given back is free");
    let (old, new) = (before.claim().await, after.claim().await);
    let grown = |(old, new): (&Epoch, &Epoch)| old.shard == new.shard && new.epoch == old.epoch;
    assert!(new.len() == 256 && old.iter().zip(&new).all(grown), "epochs go on where they were");
    for text in ["one", "two", "three"] {
        let kept = after.artifacts.get(Digest::of(text.as_bytes())).await;
        assert_eq!(kept, Ok(Some(text.into())));
    }
    before.close().await;
    after.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_files_to_a_database() {
    everything_is_carried_over(Fresh::directory(), Fresh::database().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_database_to_files() {
    everything_is_carried_over(Fresh::database().await, Fresh::directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_database_to_another() {
    everything_is_carried_over(Fresh::database().await, Fresh::database().await).await;
}

/// Half a copy can be opened by nobody, and is finished by the next.
async fn what_was_interrupted_goes_on(from: Fresh, to: Fresh) {
    fill(&from).await;
    let source = from.place.source().await.expect("it opens");
    let events = source.log().read(Position(0), 25).await.expect("it is read");
    let digests = source.digests(None, 10).await.expect("they are read");
    drop(source);
    let mut target = to.place.target().await.expect("it opens");
    target.insert_events(events).await.expect("inserted");
    target.insert_digests(digests).await.expect("inserted");
    drop(target);
    let said = to.refusal_to_open().await;
    assert!(said.contains("log copy"), "{said}");
    let copied = carry(&from, &to).await.expect("it is finished");
    assert_eq!((copied.events, copied.head.position), (36, Position(61)));
    // Where nothing is left to do, nothing is done; what has come to the source is added.
    assert_eq!(carry(&from, &to).await.expect("it is copied").events, 0);
    let open = from.open().await;
    open.log.append(keyed("more", b"first")).await.expect("it is appended");
    open.close().await;
    assert_eq!(carry(&from, &to).await.expect("it is copied").events, 2);
    let open = to.open().await;
    assert!(open.log.append(keyed("more", b"first")).await.expect("the first outcome").repeated);
    open.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_to_a_database_goes_on() {
    what_was_interrupted_goes_on(Fresh::directory(), Fresh::database().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_to_files_goes_on() {
    what_was_interrupted_goes_on(Fresh::database().await, Fresh::directory()).await;
}

async fn what_stands_against_it_is_said(from: Fresh, to: Fresh) {
    let nothing = carry(&from, &to).await.expect_err("there is no log").to_string();
    assert!(nothing.contains("holds none") || nothing.contains("holds no log"), "{nothing}");
    fill(&from).await;
    let said = refused(&from, &from).await;
    assert!(said.contains("the source and the target"), "{said}");

    // A log that went on by itself, and one that was another from the start.
    carry(&from, &to).await.expect("it is copied");
    let open = to.open().await;
    open.log.append(request(&stream("own"), Expected::NONE, &["1"])).await.expect("it is appended");
    open.close().await;
    let said = refused(&from, &to).await;
    assert!(said.contains("different log") && said.contains("62"), "{said}");
    let open = from.open().await;
    open.log.append(request(&stream("other"), Expected::NONE, &["1"])).await.expect("it is appended");
    open.close().await;
    let said = refused(&from, &to).await;
    assert!(said.contains("different log"), "{said}");

    // A platform at work, on either side.
    for (used, _) in [(&from, "source"), (&to, "target")] {
        let open = used.open().await;
        open.leases().renew("node-1", &[], Duration::from_secs(60)).await.expect("renewed");
        let said = refused(&from, &to).await;
        assert!(said.contains("in use by"), "{said}");
        open.leases().leave("node-1").await.expect("it leaves");
        open.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_a_copy_to_a_database_is_said() {
    what_stands_against_it_is_said(Fresh::directory(), Fresh::database().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_against_a_copy_to_files_is_said() {
    what_stands_against_it_is_said(Fresh::database().await, Fresh::directory()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_source_is_named_and_its_target_is_no_log() {
    for (from, to) in
        [(Fresh::directory(), Fresh::database().await), (Fresh::database().await, Fresh::directory())]
    {
        fill(&from).await;
        from.execute("UPDATE events SET payload = '3' WHERE position = 40").await;
        let said = refused(&from, &to).await;
        assert!(said.contains("position 40 does not match"), "{said}");
        // What was carried over before and changed there since is found as well.
        from.execute("UPDATE events SET payload = '2' WHERE position = 40").await;
        carry(&from, &to).await.expect("it is copied");
        to.execute("UPDATE events SET payload = '3' WHERE position = 4").await;
        let said = refused(&from, &to).await;
        assert!(said.contains("position 4 does not match"), "{said}");
    }
}

/// What the source has lost in the meantime, the copy loses too; what is damaged there is named and left out.
#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_those_of_the_source() {
    for (from, to) in
        [(Fresh::directory(), Fresh::database().await), (Fresh::database().await, Fresh::directory())]
    {
        fill(&from).await;
        carry(&from, &to).await.expect("it is copied");
        let [erased, late] = [Digest::of(b"two"), Digest::of(b"late")];
        let open = from.open().await;
        open.artifacts.put("late".into()).await.expect("it is kept");
        assert_eq!(open.artifacts.delete(erased).await, Ok(true));
        open.close().await;
        match &from.directory {
            None => from.execute("UPDATE artifact_parts SET bytes = 'lame' WHERE bytes = 'late'").await,
            Some(directory) => {
                let name = late.to_string();
                let path = directory.path().join("artifacts").join(&name[..2]).join(&name[2..]);
                std::fs::write(path, "lame").expect("it is changed");
            }
        }
        let mut named = Vec::new();
        let copied = copy(&from.place, &to.place, |progress| {
            named.extend(match progress {
                Progress::Damaged(digest) => Some(digest),
                _ => None,
            });
        });
        let copied = copied.await.expect("the rest is copied");
        assert_eq!((copied.artifacts, copied.artifacts_carried), (3, 0));
        assert_eq!((copied.artifacts_damaged, copied.artifacts_deleted, named), (1, 1, vec![late]));
        let open = to.open().await;
        assert_eq!(open.artifacts.has(erased).await, Ok(false));
        assert_eq!(open.artifacts.get(Digest::of(b"one")).await, Ok(Some("one".into())));
        open.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_schemas_are_refused() {
    let (from, to) = (Fresh::directory(), Fresh::database().await);
    fill(&from).await;
    carry(&from, &to).await.expect("it is copied");
    let Place::Database(database) = &to.place else { unreachable!("it is one") };
    let known = Postgres::look(database).await.expect("it is looked at").known;
    let strange = [(99, "newer"), (1, "older")];
    for (found, word) in strange {
        to.execute(&format!("UPDATE hypercode_schema SET version = {found}")).await;
        for (from, to) in [(&from, &to), (&to, &Fresh::directory())] {
            let said = refused(from, to).await;
            assert!(said.contains(word), "{said}");
        }
    }
    to.execute(&format!("UPDATE hypercode_schema SET version = {known}")).await;
    for (found, word) in strange {
        from.execute(&format!("PRAGMA user_version = {found}")).await;
        for (from, to) in [(&from, &Fresh::database().await), (&to, &from)] {
            let said = refused(from, to).await;
            assert!(said.contains(word), "{said}");
        }
    }
}

/// Whoever opens the target while it is copied to is noticed, and appends nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_opened_meanwhile_is_not_written_to() {
    let (from, to) = (Fresh::directory(), Fresh::database().await);
    fill(&from).await;
    let mut target = to.place.target().await.expect("it opens");
    assert!(refused(&from, &to).await.contains("another copy"));
    to.open().await.close().await;
    let source = from.place.source().await.expect("it opens");
    let events = source.log().read(Position(0), 25).await.expect("it is read");
    let said = target.insert_events(events).await.expect_err("it is refused").to_string();
    assert!(said.contains("meanwhile"), "{said}");
}

#[test]
fn places_are_told_apart_and_show_no_secret() {
    let directory = |text: &str| match text.parse() {
        Ok(Place::Directory(path)) => path.display().to_string(),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(directory("sqlite:/var/lib/hypercode"), "/var/lib/hypercode");
    assert_eq!(directory("sqlite:data/log.db"), "data");
    assert_eq!(directory("sqlite:log.db"), ".");
    let database: Place = "postgres://node:s3cret@db/log".parse().expect("a place");
    assert_eq!(database.to_string(), "postgres://node@db:5432/log");
    for text in ["", "sqlite:", "s3cret", "mysql://x:s3cret@y/z", "postgres://x:s3cret@y:port/z"] {
        let refused = text.parse::<Place>().expect_err(text).to_string();
        assert!(refused.contains("sqlite:DIRECTORY") && !refused.contains("s3cret"), "{refused}");
    }
}
