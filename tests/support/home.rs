//! A directory of a test's own: the platform's data, the test's files, and every process that belongs to them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use events::EventStore;
use events::store::postgres::server::{self, Server};
use events::store::{postgres, sqlite};
use serde_json::Value;
use tempfile::TempDir;

use super::processes::{self, Process};
use super::{LOOK, PATIENCE};

/// A platform's data directory and what the test keeps beside it. When it is dropped, nothing of it runs any more.
pub(crate) struct Home {
    dir: TempDir,
    /// Of the database that holds the log, where it is not in the data directory.
    database: Option<String>,
    /// The database's server, where it is this test's alone.
    server: Option<Server>,
    /// The URL of a bus, where nodes share one.
    bus: Option<String>,
    /// The kind of sandbox that agents run in: handlers that keep a diary write it where the test reads it.
    sandbox: &'static str,
    /// The runner that is put into containers, where that is not the program itself.
    runner: Option<String>,
    /// The Docker daemon's socket, where it is not the usual one.
    daemon: Option<String>,
    /// How runners in containers come to the platform, where that is not the usual way.
    link: Option<&'static str>,
    /// The file of the certificate that the platform shows, where it speaks TLS.
    certificate: Option<String>,
}

impl Home {
    /// A new home, whose path is short enough for sockets.
    pub(crate) fn new() -> Self {
        Self::with(None, None, None)
    }

    /// The home of a platform whose agents run in whatever sandbox it takes by itself.
    pub(crate) fn by_default() -> Self {
        let mut home = Self::new();
        home.sandbox = "auto";
        home
    }

    /// The home of a platform whose agents run in containers.
    pub(crate) fn in_containers() -> Self {
        let mut home = Self::new();
        home.sandbox = "docker";
        home
    }

    /// The same, with this runner in place of the program itself.
    pub(crate) fn with_runner(mut self, runner: &Path) -> Self {
        self.runner = Some(runner.to_str().expect("text").to_owned());
        self
    }

    /// The home of a platform to which agents in containers come over TCP.
    pub(crate) fn over_tcp() -> Self {
        let mut home = Self::in_containers();
        home.link = Some("tcp");
        home
    }

    /// The home of a platform whose agents run in containers of this daemon.
    pub(crate) fn at_daemon(socket: &Path) -> Self {
        let mut home = Self::in_containers();
        home.daemon = Some(socket.to_str().expect("text").to_owned());
        home
    }

    /// From now on agents run in sandboxes of this kind.
    pub(crate) fn change_sandbox(&mut self, kind: &'static str) {
        self.sandbox = kind;
    }

    fn with(database: Option<String>, server: Option<Server>, bus: Option<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("hc-").tempdir_in("/tmp").expect("a temporary directory");
        Self {
            dir,
            database,
            server,
            bus,
            sandbox: "process",
            runner: None,
            daemon: None,
            link: None,
            certificate: None,
        }
    }

    /// The home of a node that shares a database, a bus and the master key with others.
    pub(crate) fn of_node(database: &str, bus: String) -> Self {
        let home = Self::with(Some(database.to_owned()), None, Some(bus));
        let key = home.write("data/master.key", "07".repeat(32));
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        home
    }

    /// A home whose log is in a database, which is reached by a URL with this password.
    pub(crate) async fn on_postgres(password: &str) -> Self {
        let url =
            Server::shared().database().await.replace("//postgres@", &format!("//postgres:{password}@"));
        Self::with(Some(url), None, None)
    }

    /// A home whose log is in a database with a server of this test alone.
    pub(crate) async fn on_its_own_postgres() -> Self {
        let server = Server::of_its_own();
        Self::with(Some(server.database().await), Some(server), None)
    }

    /// The same home, of a platform on this bus.
    pub(crate) fn on_bus(mut self, url: String) -> Self {
        self.bus = Some(url);
        self
    }

    /// From now on the log is in the database of this URL.
    pub(crate) fn move_to(&mut self, url: &str) {
        self.database = Some(url.to_owned());
    }

    /// The server of this test alone.
    pub(crate) fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("the home has a server of its own")
    }

    /// Whether the log is in a database.
    pub(crate) fn is_on_postgres(&self) -> bool {
        self.database.is_some()
    }

    /// The names that its log has on a command line.
    pub(crate) fn places(&self) -> Vec<String> {
        match &self.database {
            Some(url) => vec![url.clone()],
            None => vec![self.data().display().to_string(), self.data().join("log.db").display().to_string()],
        }
    }

    /// Executes `sql` in the database.
    pub(crate) async fn execute(&self, sql: &str) {
        server::execute(self.database.as_deref().expect("the home has a database"), sql).await;
    }

    /// Fails if a column of any table of the database holds one of these texts.
    pub(crate) async fn no_table_holds(&self, texts: &[&str]) {
        self.execute(&search(texts)).await;
    }

    /// Whether agents run in containers.
    pub(crate) fn is_in_containers(&self) -> bool {
        self.sandbox == "docker"
    }

    /// The certificate that clients of the platform trust, where it speaks TLS.
    pub(crate) fn certificate(&self) -> Option<&Path> {
        self.certificate.as_deref().map(Path::new)
    }

    /// Gives the platform a certificate for this machine: what it is told of it, as variables of its environment, and the
    /// key, in PEM.
    pub(crate) fn certify(&mut self) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let pem = made.signing_key.serialize_pem();
        let key = self.write("secrets/tls.key", &pem);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let shown = self.write("tls.pem", made.cert.pem());
        self.certificate = Some(shown.display().to_string());
        (format!("HYPERCODE_TLS_CERT={} HYPERCODE_TLS_KEY={}", shown.display(), key.display()), pem)
    }

    /// What the program is told of sandboxes, the database and the bus.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let sandbox = std::iter::once(("HYPERCODE_SANDBOX", self.sandbox));
        let database = self.database.iter().map(|url| ("HYPERCODE_DATABASE_URL", url.as_str()));
        let runner = self.runner.iter().map(|runner| ("HYPERCODE_DOCKER_RUNNER", runner.as_str()));
        sandbox
            .chain(database)
            .chain(runner)
            .chain(self.daemon.iter().map(|socket| ("HYPERCODE_DOCKER_SOCKET", socket.as_str())))
            .chain(self.link.iter().map(|link| ("HYPERCODE_DOCKER_LINK", *link)))
            .chain(self.certificate.iter().map(|file| ("HYPERCODE_TLS_CA", file.as_str())))
            .chain(self.bus.iter().map(|url| ("HYPERCODE_NATS_URL", url.as_str())))
    }

    /// The log, to be read.
    pub(crate) async fn log(&self) -> Arc<dyn EventStore> {
        match &self.database {
            None => {
                let log = sqlite::ReadOnly::open(self.data(), &sqlite::Options::default()).await;
                Arc::new(log.expect("the log can be read"))
            }
            Some(url) => {
                let database = url.parse().expect("a URL");
                let log = postgres::ReadOnly::open(&database, &postgres::Options::default()).await;
                Arc::new(log.expect("the log can be read"))
            }
        }
    }

    /// A file or directory of the test's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The platform's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Where the platform's sockets are.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// Writes a file of the test's.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
        path
    }

    /// Where handlers that keep a diary write it.
    pub(crate) fn diary_file(&self) -> PathBuf {
        self.path("diary.jsonl")
    }

    /// What handlers have written into their diary; a line that is being written is not there yet.
    pub(crate) fn diary(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.diary_file()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Everything that runs and belongs to this home.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes::that_know(self.dir.path())
    }

    /// Waits until nothing runs that belongs to this home.
    pub(crate) async fn processes_end(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "still there: {left:#?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the platform and its sandboxes left of sockets.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        sockets_below(&self.run_dir(), &mut found);
        found
    }
}

/// What fails if a column of any table holds one of the texts.
fn search(texts: &[&str]) -> String {
    let any =
        |text: &&str| format!("t::text LIKE '%{text}%' OR t::text LIKE '%{}%'", hex::encode(text.as_bytes()));
    let condition = texts.iter().map(any).collect::<Vec<_>>().join(" OR ").replace('\'', "''");
    format!(
        "DO $$ DECLARE place text; found bigint; BEGIN
           FOR place IN SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
           LOOP
             EXECUTE 'SELECT count(*) FROM ' || place || ' AS t WHERE {condition}' INTO found;
             IF found > 0 THEN RAISE EXCEPTION 'found in %', place; END IF;
           END LOOP;
         END $$"
    )
}

fn sockets_below(dir: &Path, found: &mut Vec<PathBuf>) {
    use std::os::unix::fs::FileTypeExt as _;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => sockets_below(&entry.path(), found),
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            _ => {}
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Only after a failure is there anything; it must not disturb the next test.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for process in left {
                process.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("what the platform left is kept in {}", self.dir.path().display());
        }
    }
}
