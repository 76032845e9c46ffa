//! The keys of data subjects: in a store of their own beside the log, each wrapped by the master key, which lies in a
//! file outside that store.
//!
//! A subject's name is not kept, only a digest of it under the master key.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{PgPool, SqlitePool};

use super::SealError;
use super::key::{Secret, random};
use super::uses::{Use, Uses};
use crate::id::{Digest, KeyId, Tenant, Timestamp};
use crate::private_file;
use crate::store::EventStore;
use crate::store::postgres::Database;

/// The keys' file in the data directory.
pub const KEYS_FILE: &str = "keys.db";

/// The master key's file in the data directory, unless another is configured.
pub const MASTER_FILE: &str = "master.key";

/// How long a key is remembered without asking whether another node has destroyed it, in milliseconds.
const REMEMBERED_MS: u64 = 5_000;

/// How long a retirement waits for appends of this node that are under way, in milliseconds.
const USES_MS: u64 = 20_000;

/// Keys that are remembered at the same time.
const REMEMBERED_MAX: usize = 10_000;

/// How long a statement may take, in milliseconds.
const STATEMENT_MS: u64 = 10_000;

/// How much longer than the server may work an answer is waited for, before the connection counts as lost.
pub(super) const ANSWER_MS: u64 = STATEMENT_MS + 5_000;

/// How long to wait for a connection, in milliseconds.
const WAIT_MS: u64 = 10_000;

/// Connections to a database.
const CONNECTIONS_MAX: u32 = 2;

/// The schema, for both dialects but for the type of bytes.
const SCHEMA: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS subject_keys (
        id TEXT PRIMARY KEY, subject $BYTES NOT NULL UNIQUE, wrapped $BYTES NOT NULL, created_at BIGINT NOT NULL)",
    // By which master key the keys are wrapped: a digest of a fixed text under it.
    "CREATE TABLE IF NOT EXISTS master_mark (one SMALLINT PRIMARY KEY CHECK (one = 1), mark $BYTES NOT NULL)",
    // Keys that are being destroyed: rows are here until nothing of the keys is left in the other table's file.
    "CREATE TABLE IF NOT EXISTS doomed_keys (id TEXT PRIMARY KEY)",
    // Keys that seal nothing any more.
    "CREATE TABLE IF NOT EXISTS retired_keys (id TEXT PRIMARY KEY)",
];

/// Nodes that start together make the schema one after the other: `HCky` in ASCII.
const LOCK: &str = "SELECT pg_advisory_xact_lock(1212377977)";

/// A key as it is found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The key itself.
    pub(super) secret: Arc<Secret>,
    /// Whether it seals nothing any more.
    pub(super) is_retired: bool,
}

/// What is known of keys without asking.
#[derive(Debug, Default)]
struct Remembered {
    /// How many were forgotten: what was asked before the last is not remembered after it.
    forgotten: u64,
    /// Keys, or that there is none, and since when.
    keys: HashMap<KeyId, (Instant, Option<Found>)>,
}

/// The keys of all data subjects. Clones are handles to the same store.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    place: Arc<str>,
    pool: Pool,
    master: Secret,
    remembered: Mutex<Remembered>,
    uses: Uses,
}

/// What a server answers, if it does so in time.
macro_rules! bounded {
    ($pool:expr, $query:expr, $run:ident) => {
        match $pool.acquire().await {
            Ok(mut connection) => {
                let answer = ::std::time::Duration::from_millis($crate::seal::keys::ANSWER_MS);
                let done = $crate::store::postgres::within(answer, $query.$run(&mut *connection)).await;
                $crate::store::postgres::give_back(connection, &done);
                done
            }
            Err(error) => Err(error),
        }
    };
}
pub(super) use bounded;

/// The same query in either dialect; what is executed is answered with the number of rows.
macro_rules! on {
    ($pool:expr, $query:expr, execute) => {
        match $pool {
            Pool::Sqlite(pool) => $query.execute(pool).await.map(|done| done.rows_affected()),
            Pool::Postgres(pool) => {
                $crate::seal::keys::bounded!(pool, $query, execute).map(|done| done.rows_affected())
            }
        }
    };
    ($pool:expr, $query:expr, $run:ident) => {
        match $pool {
            Pool::Sqlite(pool) => $query.$run(pool).await,
            Pool::Postgres(pool) => $crate::seal::keys::bounded!(pool, $query, $run),
        }
    };
}
pub(super) use on;

#[derive(Debug)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Pool {
    /// The keys in a data directory, whose file is made where it is missing.
    pub(super) async fn of_directory(directory: &Path) -> Result<Self, sqlx::Error> {
        let file = directory.join(KEYS_FILE);
        OpenOptions::new().append(true).create(true).mode(0o600).open(&file)?;
        // What is deleted is overwritten, and no write-ahead log holds on to it.
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Truncate)
            .synchronous(SqliteSynchronous::Full)
            .pragma("secure_delete", "ON")
            .busy_timeout(Duration::from_millis(STATEMENT_MS));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        for statement in SCHEMA {
            let statement = sqlx::AssertSqlSafe(statement.replace("$BYTES", "BLOB"));
            sqlx::raw_sql(statement).execute(&pool).await?;
        }
        Ok(Self::Sqlite(pool))
    }

    /// The keys in a database, whose tables are made where they are missing.
    pub(super) async fn of_database(database: &Database) -> Result<Self, sqlx::Error> {
        let settings = database.settings(STATEMENT_MS).options([("search_path", "hypercode_keys")]);
        let options = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(Duration::from_millis(WAIT_MS));
        let pool = options.connect_with(settings).await?;
        let is_there = "SELECT to_regclass('hypercode_keys.retired_keys') IS NOT NULL";
        if sqlx::query_scalar::<_, bool>(is_there).fetch_one(&pool).await? {
            return Ok(Self::Postgres(pool));
        }
        let mut tx = pool.begin().await?;
        sqlx::raw_sql(LOCK).execute(&mut *tx).await?;
        // Who may use a schema that is there need not be allowed to make one.
        let schema = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'hypercode_keys')";
        if !sqlx::query_scalar::<_, bool>(schema).fetch_one(&mut *tx).await? {
            sqlx::raw_sql("CREATE SCHEMA hypercode_keys").execute(&mut *tx).await?;
        }
        for statement in SCHEMA {
            let statement = sqlx::AssertSqlSafe(statement.replace("$BYTES", "BYTEA"));
            sqlx::raw_sql(statement).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Self::Postgres(pool))
    }

    pub(super) async fn mark(&self) -> Result<Option<Vec<u8>>, sqlx::Error> {
        on!(self, sqlx::query_scalar("SELECT mark FROM master_mark"), fetch_optional)
    }

    pub(super) async fn set_mark(&self, mark: &[u8]) -> Result<u64, sqlx::Error> {
        let first = "INSERT INTO master_mark (one, mark) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
        on!(self, sqlx::query(first).bind(mark), execute)
    }

    /// Notes that a key is to be destroyed: from now on that is finished, be it by the next start.
    pub(super) async fn doom(&self, id: &str) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO doomed_keys (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";
        on!(self, sqlx::query(sql).bind(id), execute).map(drop)
    }

    /// Destroys the keys that are noted, if there are any.
    pub(super) async fn destroy_doomed(&self) -> Result<(), sqlx::Error> {
        let ids: Vec<String> = on!(self, sqlx::query_scalar("SELECT id FROM doomed_keys"), fetch_all)?;
        if ids.is_empty() {
            return Ok(());
        }
        for id in &ids {
            on!(self, sqlx::query("DELETE FROM subject_keys WHERE id = $1").bind(&id[..]), execute)?;
        }
        if let Self::Postgres(pool) = self {
            rewrite(pool).await?;
        }
        for id in &ids {
            on!(self, sqlx::query("DELETE FROM retired_keys WHERE id = $1").bind(&id[..]), execute)?;
            on!(self, sqlx::query("DELETE FROM doomed_keys WHERE id = $1").bind(&id[..]), execute)?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// Writes the table of keys anew. The rows' old versions would stay in its file until the server comes round to it.
async fn rewrite(pool: &PgPool) -> Result<(), sqlx::Error> {
    // A role that may not is only warned by the server.
    const MAY: &str = "SELECT pg_catalog.pg_has_role(relowner, 'USAGE') FROM pg_catalog.pg_class
                       WHERE oid = 'hypercode_keys.subject_keys'::regclass";
    if !bounded!(pool, sqlx::query_scalar::<_, bool>(MAY), fetch_one)? {
        let reason = "a destroyed key may still be in the file of `hypercode_keys.subject_keys`, which only the \
                      table's owner can write anew; run deploy/postgres/roles.sql again, then start the platform again";
        return Err(sqlx::Error::Configuration(reason.into()));
    }
    bounded!(pool, sqlx::raw_sql("VACUUM (FULL) hypercode_keys.subject_keys"), execute).map(drop)
}

impl Keys {
    /// Opens the keys in `directory`, wrapped by the master key in the file `master`; each is made where it is missing.
    pub async fn open(directory: &Path, master: &Path) -> Result<Self, SealError> {
        let place: Arc<str> = directory.join(KEYS_FILE).display().to_string().into();
        let pool = Pool::of_directory(directory).await;
        Self::over(Arc::clone(&place), pool.map_err(|error| SealError::unavailable(&place, &error))?, master)
    }

    /// Opens the keys in `database`, which nodes share: each of them needs the same master key.
    pub async fn open_common(database: &Database, master: &Path) -> Result<Self, SealError> {
        let place: Arc<str> = database.to_string().into();
        let pool = Pool::of_database(database).await;
        Self::over(Arc::clone(&place), pool.map_err(|error| SealError::unavailable(&place, &error))?, master)
    }

    fn over(place: Arc<str>, pool: Pool, master: &Path) -> Result<Self, SealError> {
        let master = Secret::new(&master_key(master)?);
        Ok(Self(Arc::new(Shared {
            place,
            pool,
            master,
            remembered: Mutex::default(),
            uses: Uses::default(),
        })))
    }

    /// Whether the keys that are there, if any, are wrapped by this master key.
    pub async fn check(&self) -> Result<(), SealError> {
        match self.0.pool.mark().await.map_err(|error| self.failed(&error))? {
            Some(mark) if mark != self.own_mark() => {
                Err(SealError::Master { place: Arc::clone(&self.0.place) })
            }
            _ => Ok(()),
        }
    }

    /// What tells the master key from others, and does not give it away.
    pub fn fingerprint(&self) -> String {
        hex::encode(&self.0.master.mac(&[b"fingerprint"])[..8])
    }

    /// A secret of the platform itself, encrypted by the master key; it opens for the same `purpose` only.
    pub fn wrap_own(&self, purpose: &str, secret: &[u8]) -> String {
        BASE64.encode(self.0.master.encrypt(&format!("platform {purpose}"), secret))
    }

    /// What was wrapped for this purpose; `None` if another master key wrapped it.
    pub fn unwrap_own(&self, purpose: &str, wrapped: &str) -> Option<Vec<u8>> {
        self.0.master.decrypt(&format!("platform {purpose}"), &BASE64.decode(wrapped).ok()?)
    }

    /// A secret that the platform keeps for somebody, encrypted under a key that is made for it alone: once that is
    /// destroyed, nobody can open it. It opens for the same `purpose` only.
    pub async fn seal_alone(&self, purpose: &str, secret: &[u8]) -> Result<(KeyId, String), SealError> {
        // No data subject has such a name, nor is it kept.
        let (id, key) = self.of_subject(&Tenant::default(), &hex::encode(random())).await?;
        let sealed = BASE64.encode(key.encrypt(&alone(&id, purpose), secret));
        Ok((id, sealed))
    }

    /// What was sealed alone for this purpose; `None` if its key was destroyed, or it was sealed for another.
    pub async fn open_alone(
        &self,
        id: &KeyId,
        purpose: &str,
        sealed: &str,
    ) -> Result<Option<Vec<u8>>, SealError> {
        let (found, sealed) = (self.find(id).await?, BASE64.decode(sealed).ok());
        Ok(found.zip(sealed).and_then(|(found, sealed)| found.secret.decrypt(&alone(id, purpose), &sealed)))
    }

    /// A digest by which nobody without the master key can tell whether they have guessed what it is of.
    pub fn keyed_own(&self, purpose: &str, content: &[u8]) -> Digest {
        Digest(self.0.master.mac(&[b"platform", purpose.as_bytes(), content]))
    }

    fn own_mark(&self) -> [u8; 32] {
        self.0.master.mac(&[b"mark"])
    }

    /// The key of a data subject of `tenant`, which is made if there is none; a new one after the last was destroyed.
    pub(crate) async fn of_subject(
        &self,
        tenant: &Tenant,
        subject: &str,
    ) -> Result<(KeyId, Arc<Secret>), SealError> {
        if let Some(id) = self.find_subject(tenant, subject).await?
            && let Some(key) = self.find(&id).await?
        {
            return if key.is_retired { Err(SealError::Erasing) } else { Ok((id, key.secret)) };
        }
        let made = self.make(tenant, subject).await;
        made.map_err(|error| self.failed(&error))?;
        self.check().await?;
        let id = self.find_subject(tenant, subject).await?;
        let id = id.ok_or(SealError::Erasing)?;
        let key = self.find(&id).await?.filter(|key| !key.is_retired).ok_or(SealError::Erasing)?;
        Ok((id, key.secret))
    }

    async fn make(&self, tenant: &Tenant, subject: &str) -> Result<(), sqlx::Error> {
        let mark = &self.own_mark()[..];
        self.0.pool.set_mark(mark).await?;
        let id = KeyId::fresh();
        let wrapped = self.0.master.encrypt(id.as_str(), &random());
        // Another node may make it at the same time: the first is everybody's. Under another master key nothing is made.
        let insert = "INSERT INTO subject_keys (id, subject, wrapped, created_at)
                      SELECT $1, $2, $3, $4 FROM master_mark WHERE mark = $5
                      ON CONFLICT (subject) DO NOTHING";
        let digest = &self.digest_of(tenant, subject)[..];
        let at = Timestamp::now().0;
        let id = id.as_str();
        on!(
            &self.0.pool,
            sqlx::query(insert).bind(id).bind(digest).bind(&wrapped[..]).bind(at).bind(mark),
            execute
        )?;
        Ok(())
    }

    fn digest_of(&self, tenant: &Tenant, subject: &str) -> [u8; 32] {
        self.0.master.mac(&[b"subject", tenant.as_str().as_bytes(), subject.as_bytes()])
    }

    /// The id of the key of a data subject of `tenant`, if there is one.
    pub async fn find_subject(&self, tenant: &Tenant, subject: &str) -> Result<Option<KeyId>, SealError> {
        let sql = "SELECT id FROM subject_keys WHERE subject = $1";
        let digest = &self.digest_of(tenant, subject)[..];
        let id: Result<Option<String>, _> =
            on!(&self.0.pool, sqlx::query_scalar(sql).bind(digest), fetch_optional);
        Ok(id.map_err(|error| self.failed(&error))?.and_then(|id| id.parse().ok()))
    }

    /// The key under this id; `None` once it is destroyed.
    pub(super) async fn find(&self, id: &KeyId) -> Result<Option<Found>, SealError> {
        let fresh = |since: &Instant| since.elapsed() < Duration::from_millis(REMEMBERED_MS);
        let asked_after = {
            let remembered = self.remembered();
            if let Some((_, key)) = remembered.keys.get(id).filter(|(since, _)| fresh(since)) {
                return Ok(key.clone());
            }
            remembered.forgotten
        };
        let sql = "SELECT wrapped, retired_keys.id FROM subject_keys
                   LEFT JOIN retired_keys ON retired_keys.id = subject_keys.id WHERE subject_keys.id = $1";
        let row: Result<Option<(Vec<u8>, Option<String>)>, _> =
            on!(&self.0.pool, sqlx::query_as(sql).bind(id.as_str()), fetch_optional);
        let row = row.map_err(|error| self.failed(&error))?;
        let unwrap = |(wrapped, retired): (Vec<u8>, Option<String>)| {
            let bytes = self.0.master.decrypt(id.as_str(), &wrapped)?;
            let secret = Arc::new(Secret::new(&bytes.try_into().ok()?));
            Some(Found { secret, is_retired: retired.is_some() })
        };
        let other = || SealError::Master { place: Arc::clone(&self.0.place) };
        let key = row.map(|row| unwrap(row).ok_or_else(other)).transpose()?;
        self.remember(id, key.clone(), asked_after);
        Ok(key)
    }

    /// Begins to seal something, which is to be done with what is found in the meantime.
    pub(super) fn begin_use(&self) -> Use<'_> {
        self.0.uses.begin()
    }

    /// Has nothing be sealed with the key under this id any more, and comes back when `log` takes nothing more of it, from
    /// whichever node. What was sealed with it can still be opened.
    pub async fn retire(&self, id: &KeyId, log: &dyn EventStore) -> Result<(), SealError> {
        let sql = "INSERT INTO retired_keys (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";
        let retired = on!(&self.0.pool, sqlx::query(sql).bind(id.as_str()), execute);
        retired.map_err(|error| self.failed(&error))?;
        self.forget(id);
        // What another node was about to append is in the log by now, or refused.
        log.fence().await.map_err(|error| SealError::unavailable(&self.0.place, &error))?;
        let ended = tokio::time::timeout(Duration::from_millis(USES_MS), self.0.uses.ended()).await;
        let stuck =
            |_| SealError::unavailable(&self.0.place, &"appends that use the key do not end; try again");
        ended.map_err(stuck)
    }

    /// Whether there is a key under this id, whatever master key it is wrapped by.
    pub async fn has(&self, id: &KeyId) -> Result<bool, SealError> {
        let sql = "SELECT id FROM subject_keys WHERE id = $1";
        let found: Result<Option<String>, _> =
            on!(&self.0.pool, sqlx::query_scalar(sql).bind(id.as_str()), fetch_optional);
        Ok(found.map_err(|error| self.failed(&error))?.is_some())
    }

    /// Destroys the key under this id, for ever. What fails on the way is done by [`Keys::finish`].
    pub async fn destroy(&self, id: &KeyId) -> Result<(), SealError> {
        self.0.pool.doom(id.as_str()).await.map_err(|error| self.failed(&error))?;
        self.forget(id);
        let finished = self.finish().await;
        self.forget(id);
        finished
    }

    /// Finishes the destruction of keys that was begun, here or on another node, and failed on the way.
    pub async fn finish(&self) -> Result<(), SealError> {
        self.0.pool.destroy_doomed().await.map_err(|error| self.failed(&error))
    }

    /// Lets go of the store.
    pub async fn close(&self) {
        self.0.pool.close().await;
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, id: &KeyId, key: Option<Found>, asked_after: u64) {
        let mut remembered = self.remembered();
        if remembered.forgotten != asked_after {
            return;
        }
        if remembered.keys.len() >= REMEMBERED_MAX {
            remembered.keys.clear();
        }
        remembered.keys.insert(id.clone(), (Instant::now(), key));
    }

    pub(super) fn forget(&self, id: &KeyId) {
        let mut remembered = self.remembered();
        remembered.forgotten += 1;
        remembered.keys.remove(id);
    }

    fn failed(&self, error: &sqlx::Error) -> SealError {
        SealError::unavailable(&self.0.place, error)
    }
}

/// What a secret that is sealed alone is encrypted for.
fn alone(id: &KeyId, purpose: &str) -> String {
    format!("{id} platform {purpose}")
}

/// The master key in `path`: 64 hex digits that nobody else may read; made where there is no file yet.
fn master_key(path: &Path) -> Result<[u8; 32], SealError> {
    let failed = |reason: &dyn std::fmt::Display| SealError::MasterFile {
        path: path.display().to_string().into(),
        reason: reason.to_string().into(),
    };
    let bytes = private_file::read_or_make(path, || format!("{}\n", hex::encode(random())).into_bytes());
    let bytes = bytes.map_err(|error| failed(&error))?;
    let mut key = [0; 32];
    hex::decode_to_slice(bytes.trim_ascii(), &mut key)
        .map_err(|_| failed(&"expected 64 hex digits; restore it from its backup"))?;
    Ok(key)
}
