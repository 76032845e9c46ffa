//! What is Postgres' own: the schema, the roles, several appenders, and connections and servers that go away.

mod faults;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use tokio::task::JoinSet;

use super::server::{Server, execute};
use super::{Database, OpenError, Options, Postgres};
use crate::chain;
use crate::id::{Position, Tenant, Version};
use crate::lease::Leases;
use crate::projection::Views;
use crate::seal::Keys;
use crate::store::conformance::{Fixture, events_of, log, name, request, stream};
use crate::store::{AppendError, EventStore, Expected, ReadError};

struct Fresh {
    url: String,
    options: Options,
    store: Postgres,
}

impl Fresh {
    async fn new(options: Options) -> Self {
        let url = Server::shared().database().await;
        let store = open(&url, &options).await;
        Self { url, options, store }
    }

    /// Another node.
    async fn another(&self) -> Postgres {
        open(&self.url, &self.options).await
    }
}

fn database(url: &str) -> Database {
    url.parse().expect("a URL")
}

async fn open(url: &str, options: &Options) -> Postgres {
    Postgres::open(&database(url), options.clone()).await.expect("it opens")
}

async fn append(store: &Postgres, id: &str, payload: &str) -> Result<crate::Appended, AppendError> {
    store.append(request(&stream(id), Expected::Any, &[payload])).await
}

#[async_trait]
impl Fixture for Fresh {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::new(self.store.clone())
    }
    async fn restart(&mut self) {
        self.store.close().await;
        self.store = self.another().await;
    }
}

impl crate::lease::conformance::Fixture for Fresh {
    fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.store.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_long_ago_are_forgotten() {
    let mut fresh = Fresh::new(Options::default()).await;
    for node in ["long-gone", "gone"] {
        fresh.store.renew(node, &[], std::time::Duration::from_secs(60)).await.expect("it joins");
    }
    execute(&fresh.url, "UPDATE nodes SET seen_at = seen_at - 31 * 86400000000 WHERE id = 'long-gone'").await;
    execute(&fresh.url, "UPDATE nodes SET seen_at = seen_at - 29 * 86400000000 WHERE id = 'gone'").await;
    Fixture::restart(&mut fresh).await;
    let nodes = fresh.store.table().await.expect("the table").nodes;
    assert_eq!(nodes.iter().map(|node| &*node.id).collect::<Vec<_>>(), ["gone"]);
}

mod leases {
    crate::lease_conformance!(super::Fresh::new(super::Options::default()));
}

mod by_default {
    crate::event_store_conformance!(super::Fresh::new(super::Options::default()));
}

/// With a cache that forgets everything, every judgement rests on what stands in the database.
mod without_a_memory {
    crate::event_store_conformance!(super::Fresh::new(super::Options {
        cached_keys_max: 0,
        batch_requests_max: 3,
        read_connections_max: 1,
        ..super::Options::default()
    }));
}

/// ES-1 and ES-4, where 32 nodes write to one stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn es_4_the_expected_version_holds_under_32_appenders() {
    const APPENDS: usize = 4;
    let fresh = Fresh::new(Options { read_connections_max: 1, ..Options::default() }).await;
    let mut writers = JoinSet::new();
    for _ in 0..32 {
        let store = fresh.another().await;
        writers.spawn(async move {
            let (mut believed, mut won) = (Version(0), 0);
            while won < APPENDS {
                match store.append(request(&stream("shared"), Expected::Exact(believed), &["1"])).await {
                    Ok(appended) => {
                        assert_eq!(appended.version, believed.next());
                        (believed, won) = (appended.version, won + 1);
                    }
                    Err(AppendError::WrongVersion { actual, .. }) => believed = actual,
                    Err(error) => panic!("{error}"),
                }
            }
            store.close().await;
        });
    }
    writers.join_all().await;
    let versions: Vec<_> =
        events_of(&fresh.store, &stream("shared")).await.iter().map(|event| event.version.0).collect();
    assert_eq!(versions, (1..=32 * APPENDS as u64).collect::<Vec<_>>());
    chain::verify(&fresh.store).await.expect("the chain verifies");
}

#[tokio::test]
async fn a_node_sees_what_another_appends_takes_and_gives_back() {
    let fresh = Fresh::new(Options::default()).await;
    let (here, there) = (&fresh.store, fresh.another().await);
    let mut taking = request(&stream("a"), Expected::NONE, &["1"]);
    taking.reserve = vec![name("n")];
    here.append(taking.clone()).await.expect("it is appended");
    let again = there.append(taking.clone()).await.expect("it is known");
    assert!(again.repeated);
    let mut other = request(&stream("b"), Expected::NONE, &["1"]);
    other.reserve = vec![name("n")];
    assert!(matches!(there.append(other.clone()).await, Err(AppendError::Taken { .. })));
    let mut giving = request(&stream("a"), Expected::Exact(Version(1)), &["2"]);
    giving.release = vec![name("n")];
    there.append(giving).await.expect("it is appended");
    here.append(other).await.expect("the name is free");
    there.watch().wait_for(|head| *head == Position(3)).await.expect("the store lives");
    let log = log(&there).await;
    assert!(log.iter().map(|event| event.position.0).eq([1, 2, 3]));
}

/// Long enough that no lease runs out during a test.
const LEASE: std::time::Duration = std::time::Duration::from_secs(600);

/// ES-8: the epoch is raised on another node, whose takeover this one learns of by its append.
#[tokio::test]
async fn es_8_a_stale_epoch_is_refused_on_another_node() {
    let fresh = Fresh::new(Options::default()).await;
    let (here, there) = (&fresh.store, fresh.another().await);
    let held = here.claim("here", &[], 1, LEASE).await.expect("a shard is free")[0];
    let under = |epoch| {
        let mut request = request(&stream("s"), Expected::Any, &["1"]);
        request.epoch = Some(epoch);
        request
    };
    here.append(under(held)).await.expect("the lease holds");
    here.release("here", &[held]).await.expect("it is given back");
    let current = there.claim("there", &[], 1, LEASE).await.expect("it is free")[0];
    assert_eq!(current.epoch, held.epoch + 1);
    let refused = here.append(under(held)).await;
    assert_eq!(
        refused,
        Err(AppendError::Fenced { shard: held.shard, held: held.epoch, current: current.epoch })
    );
    there.append(under(current)).await.expect("the new lease holds");
    assert_eq!(log(here).await.len(), 2);
}

#[tokio::test]
async fn databases_of_other_schemas_and_other_programs_are_refused() {
    let fresh = Fresh::new(Options::default()).await;
    let opened = || async {
        Postgres::open(&database(&fresh.url), Options::default()).await.expect_err("it is refused")
    };
    execute(&fresh.url, "UPDATE hypercode_schema SET version = 99").await;
    assert!(matches!(opened().await, OpenError::Newer { found: 99, .. }));
    let refused = Postgres::migrate(&database(&fresh.url)).await.expect_err("it is newer");
    assert!(matches!(refused, OpenError::Newer { .. }));
    execute(&fresh.url, "UPDATE hypercode_schema SET version = 0").await;
    let older = opened().await;
    assert!(matches!(older, OpenError::Older { found: 0, .. }));
    assert!(older.to_string().contains("hypercode migrate"));
    execute(&fresh.url, "DROP TABLE hypercode_schema").await;
    let foreign = opened().await;
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
}

#[tokio::test]
async fn migrating_makes_a_missing_log_once_and_leaves_a_current_one() {
    let url = Server::shared().database().await;
    let migrations = (0..4).map(|_| {
        let database = database(&url);
        async move { Postgres::migrate(&database).await.expect("it is made or there") }
    });
    let made = JoinSet::from_iter(migrations).join_all().await;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 1);
    append(&open(&url, &Options::default()).await, "s", "1").await.expect("it is appended");
}

#[tokio::test]
async fn a_head_that_does_not_fit_the_log_is_refused() {
    let fresh = Fresh::new(Options::default()).await;
    append(&fresh.store, "s", "1").await.expect("it is appended");
    fresh.store.close().await;
    execute(&fresh.url, "DELETE FROM events").await;
    let refused = Postgres::open(&database(&fresh.url), Options::default()).await.expect_err("it is damaged");
    assert!(matches!(refused, OpenError::Damaged { head: Position(1), last: Position(0), .. }), "{refused}");
}

/// Somebody who may insert events cannot put one before the first; where the owner of the tables did, it is not read.
#[tokio::test]
async fn an_event_before_the_first_is_neither_taken_nor_read_nor_opened() {
    let fresh = Fresh::new(Options::default()).await;
    append(&fresh.store, "s", "1").await.expect("it is appended");
    let insert = "INSERT INTO events SELECT -7, stream, 9999, kind, schema, gen_random_uuid(), gen_random_uuid(),
            ordinal, tenant, principal, correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
        FROM events WHERE position = 1";
    let mut connection = PgConnection::connect(&fresh.url).await.expect("it connects");
    let refused =
        sqlx::raw_sql(insert).execute(&mut connection).await.expect_err("a constraint stands before it");
    assert!(refused.to_string().contains("counts_from_one"), "{refused}");
    let drop = "ALTER TABLE events DROP CONSTRAINT events_position_counts_from_one";
    sqlx::raw_sql(drop).execute(&mut connection).await.expect("dropped");
    sqlx::raw_sql(insert).execute(&mut connection).await.expect("inserted");
    for read in
        [fresh.store.read(Position(0), 10).await, fresh.store.read_stream(&stream("s"), Version(1), 10).await]
    {
        assert!(matches!(read, Err(ReadError::Damaged { position: Position(0), .. })), "{read:?}");
    }
    fresh.store.close().await;
    let refused = Postgres::open(&database(&fresh.url), Options::default()).await.expect_err("it is damaged");
    assert!(matches!(refused, OpenError::Misplaced { found: -7, .. }), "{refused}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_secrets() {
    let database = database("postgres://node:s3cret@127.0.0.1:1/log");
    let refused =
        Postgres::open(&database, Options::default()).await.expect_err("nobody is there").to_string();
    assert!(refused.contains("postgres://node@127.0.0.1:1/log") && !refused.contains("s3cret"), "{refused}");
}

/// ES-3: the server's own setting does not weaken what an answer means.
#[tokio::test]
async fn commits_are_durable_whatever_the_database_says() {
    let url = Server::shared().database().await;
    let name = url.rsplit('/').next().expect("a name");
    execute(&url, &format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    let mut connection = PgConnection::connect(&url).await.expect("it connects");
    for expected in ["off", "on"] {
        let setting = sqlx::query("SHOW synchronous_commit").fetch_one(&mut connection).await;
        assert_eq!(setting.expect("it is shown").get::<String, _>(0), expected);
        super::writer::make_durable(&mut connection).await.expect("it is set");
    }
}

/// What has happened can be neither changed nor removed by the role under which the platform runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_nodes_role_inserts_and_reads_events_but_neither_changes_nor_removes_them() {
    const ROLES: &str = include_str!("../../../../deploy/postgres/roles.sql");
    let fresh = Fresh::new(Options::default()).await;
    append(&fresh.store, "s", "1").await.expect("it is appended");
    // What the owner's platform has made before becomes the node's.
    let directory = tempfile::tempdir().expect("a directory");
    let master = directory.path().join(crate::seal::MASTER_FILE);
    let keys = Keys::open_common(&database(&fresh.url), &master).await.expect("they open");
    let (key, _) = keys.of_subject(&Tenant::default(), "anna").await.expect("it is made");
    keys.close().await;
    // The events of this test are of no kind that the views know.
    let options = crate::projection::Options { passes_over: true, ..crate::projection::Options::default() };
    let views = Views::open_common(&database(&fresh.url), Arc::new(fresh.store.clone()), options).await;
    views.expect("they are made").close().await;
    // An operator may run it again, and other tests' databases have the same roles.
    execute(&fresh.url, ROLES).await;
    execute(&fresh.url, ROLES).await;
    let url = fresh.url.replace("postgres://postgres@", "postgres://hypercode_node@");
    let store = open(&url, &Options::default()).await;
    let mut taking = request(&stream("a"), Expected::NONE, &["1"]);
    taking.reserve = vec![name("n")];
    taking.command_digest = Some(crate::Digest::of(b"content"));
    store.append(taking).await.expect("it is appended");
    let mut giving = request(&stream("a"), Expected::Any, &["2"]);
    giving.release = vec![name("n")];
    store.append(giving).await.expect("it is appended");
    store.renew("a", &[], LEASE).await.expect("it joins");
    store.claim("a", &[], 1, LEASE).await.expect("a shard is free");
    store.secret().await.expect("a node knows it");
    let keys = Keys::open_common(&database(&url), &master).await.expect("they open");
    keys.destroy(&key).await.expect("it is destroyed");
    let views = Views::open_common(&database(&url), Arc::new(store.clone()), options).await;
    let views = views.expect("the views are the node's");
    let patience = std::time::Duration::from_secs(30);
    views.wait_for(Position(3), patience).await.expect("they are made");
    views.rebuild(Some("audit")).expect("it begins");
    views.rebuilt().await.expect("they are made again");

    let mut connection = PgConnection::connect(&url).await.expect("it connects");
    for forbidden in [
        "UPDATE events SET payload = '{}'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DROP TABLE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "UPDATE commands SET digest = ''",
        "DELETE FROM commands",
        "DELETE FROM head",
        "INSERT INTO head VALUES (2, 0, '', 0)",
        "UPDATE reservations SET stream = 'agent/other'",
        "UPDATE hypercode_schema SET version = 0",
        "INSERT INTO leases (shard, epoch, holder) VALUES (0, 9, 'x')",
    ] {
        let refused = sqlx::query(forbidden).execute(&mut connection).await.expect_err(forbidden);
        let code = refused.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("42501"), "{forbidden}: {refused}");
    }
    let auditor = fresh.url.replace("postgres://postgres@", "postgres://hypercode_auditor@");
    let mut connection = PgConnection::connect(&auditor).await.expect("it connects");
    let seen = "SELECT count(*) FROM events JOIN hypercode_views.audit USING (position)";
    let seen: i64 = sqlx::query_scalar(seen).fetch_one(&mut connection).await.expect("it reads");
    assert_eq!(seen, 3);
    for forbidden in [
        "INSERT INTO commands VALUES (gen_random_uuid(), '')",
        "DELETE FROM hypercode_views.audit",
        "SELECT bytes FROM artifact_parts",
        "SELECT wrapped FROM hypercode_keys.subject_keys",
    ] {
        sqlx::query(forbidden).execute(&mut connection).await.expect_err(forbidden);
    }
}
