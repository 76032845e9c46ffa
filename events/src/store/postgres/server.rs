//! Postgres servers of the tests' own: real ones, with `fsync` on, reachable over a Unix socket only.
//!
//! One server serves all test processes that run at about the same time, each test with a database of its own; it
//! ends by itself when nobody has used it for some seconds. A test that stops or kills its server starts its own,
//! which ends with the test's process, however that ends. As root, servers run as the user `postgres`.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::Database;

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Statements of the tests themselves, in milliseconds.
const STATEMENT_MS: u64 = 60_000;

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    directory: PathBuf,
    keeper: Option<Keeper>,
    /// While this is held, the shared server stays.
    _usage: Option<File>,
}

/// The process that keeps a server of one test, and ends it when this end of the pipe is closed.
#[derive(Debug)]
struct Keeper {
    process: Child,
    orders: Option<ChildStdin>,
    done: BufReader<ChildStdout>,
}

impl Server {
    /// The server that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::join)
    }

    /// A server of this test alone.
    pub fn of_its_own() -> Self {
        let name = format!("hypercode-pg-{}", uuid::Uuid::new_v4().simple());
        Self::of_its_own_in(std::env::temp_dir().join(name))
    }

    /// The same with its files in this directory, which it makes and removes: its user must be able to.
    pub fn of_its_own_in(directory: PathBuf) -> Self {
        let mut process = spawn(include_str!("server/own.sh"), &directory, None, Stdio::piped);
        let orders = process.stdin.take();
        let done = BufReader::new(process.stdout.take().expect("the keeper's output is a pipe"));
        wait_for(&directory);
        Self { directory, keeper: Some(Keeper { process, orders, done }), _usage: None }
    }

    #[expect(clippy::zombie_processes, reason = "the keeper of the shared server outlives who started it")]
    fn join() -> Self {
        let home = std::env::temp_dir().join(format!("hypercode-pg-shared-{}", user().0));
        fs::create_dir_all(&home).expect("a directory for the shared server");
        chown(&home, Some(user().0), Some(user().1)).expect("the directory belongs to the server's user");
        // Whoever comes while another starts the server waits here, and then finds it.
        let starting = File::create(home.join("starting")).expect("a lock for starting");
        starting.lock().expect("the lock for starting");
        let lock = home.join("used");
        let usage = File::create(&lock).expect("a lock for usage");
        usage.lock_shared().expect("the lock for usage");
        let directory = home.join("run");
        if !answers(&directory) {
            spawn(include_str!("server/shared.sh"), &directory, Some(&lock), Stdio::null);
            wait_for(&directory);
        }
        Self { directory, keeper: None, _usage: Some(usage) }
    }

    /// Makes an empty database and says its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let admin = self.url("postgres");
        execute(&admin, &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Stops the server as an operator does, after which nothing answers.
    pub fn stop(&mut self) {
        self.order("stop");
    }

    /// Kills the server as a crash does.
    pub fn kill(&mut self) {
        self.order("kill");
    }

    /// Starts the server again and waits until it answers.
    pub fn start(&mut self) {
        let until = Instant::now() + PATIENCE;
        // What a killed server leaves running for a moment keeps the next from starting.
        while !answers(&self.directory) {
            assert!(Instant::now() < until, "the server does not start again");
            self.order("start");
            for _ in 0..50 {
                if answers(&self.directory) {
                    return;
                }
                std::thread::sleep(LOOK);
            }
        }
    }

    fn order(&mut self, order: &str) {
        let keeper = self.keeper.as_mut().expect("only a server of one test takes orders");
        writeln!(keeper.orders.as_mut().expect("the keeper listens"), "{order}").expect("the keeper lives");
        let mut done = String::new();
        keeper.done.read_line(&mut done).expect("the keeper answers");
        assert_eq!(done.trim(), order);
    }

    fn url(&self, database: &str) -> String {
        let socket = self.directory.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/{database}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.orders.take());
            // It removes what it made; a keeper that is gone has nothing to remove.
            let _ = keeper.process.wait();
        }
    }
}

/// Executes `sql` in the database of `url`, over a connection of its own.
pub async fn execute(url: &str, sql: &str) {
    let database: Database = url.parse().expect("a URL of this server");
    let settings = database.settings(STATEMENT_MS);
    let mut connection = PgConnection::connect_with(&settings).await.expect("it connects");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("it is executed");
    connection.close().await.expect("it closes");
}

fn spawn(script: &str, directory: &Path, lock: Option<&Path>, pipe: fn() -> Stdio) -> Child {
    let common = directory.with_extension("sh");
    fs::write(&common, include_str!("server/server.sh")).expect("the script can be written");
    chown(&common, Some(user().0), Some(user().1)).expect("the script belongs to the server's user");
    let mut command = Command::new("sh");
    command.args(["-c", script, "keeper"]).arg(programs()).arg(directory).args(lock);
    command.stdin(pipe()).stdout(pipe()).stderr(Stdio::null()).current_dir("/").process_group(0);
    if own_user() == 0 {
        command.uid(user().0).gid(user().1);
    }
    command.spawn().expect("`sh` can be started")
}

fn wait_for(directory: &Path) {
    let until = Instant::now() + PATIENCE;
    while !answers(directory) {
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(
            Instant::now() < until,
            "the Postgres server in {} does not start: {}",
            directory.display(),
            log()
        );
        std::thread::sleep(LOOK);
    }
}

fn answers(directory: &Path) -> bool {
    let mut command = Command::new(programs().join("pg_isready"));
    command.arg("-q").arg("-h").arg(directory);
    command.status().is_ok_and(|status| status.success())
}

/// The newest server that is installed.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let installed = versions.map(|version| version.path().join("bin"));
        let newest = installed.filter(|bin| bin.join("initdb").exists()).max();
        newest.expect(
            "there is no Postgres server in /usr/lib/postgresql: `cargo xtask test` installs one, \
             as does `apt-get install postgresql`",
        )
    })
}

/// The user and group that a server runs as: Postgres refuses to run as root.
fn user() -> (u32, u32) {
    static USER: OnceLock<(u32, u32)> = OnceLock::new();
    *USER.get_or_init(|| match own_user() {
        0 => {
            let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
            let postgres = users.lines().find_map(|line| line.strip_prefix("postgres:"));
            let ids: Vec<u32> = postgres
                .into_iter()
                .flat_map(|line| line.split(':'))
                .filter_map(|id| id.parse().ok())
                .collect();
            ids.first().copied().zip(ids.get(1).copied()).unwrap_or((65_534, 65_534))
        }
        user => (user, fs::metadata("/proc/self").map_or(user, |own| own.gid())),
    })
}

fn own_user() -> u32 {
    fs::metadata("/proc/self").expect("there is /proc").uid()
}
