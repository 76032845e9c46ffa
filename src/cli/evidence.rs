//! Where the commands that verify and replay take the log from: a platform, or the files of a data directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use events::api::{Problem, ProblemKind};
use events::audit::{
    self, Bundle, Evidence, Kept, Ledger, Local, Malformed, Next, Note, PublicKey, Signer, Sink as _, Table,
    Trust, WitnessKey, notes,
};
use events::store::postgres::{self, Database};
use events::store::{Head, sqlite};
use events::{Digest, EventStore, Position, Recorded};

use super::sse::{Feed, Item, Query};
use crate::client::Client;
use crate::config::Config;
use crate::http::{CheckpointPage, StandingModel};
use crate::sinks;

/// Where the platform's log ends.
pub(super) async fn head(client: &Client) -> Result<Head, Problem> {
    let log = client.get("/v1/log", &[]).await?;
    let position = log["position"].as_u64();
    let hash = log["hash"].as_str().and_then(|hash| hash.parse::<Digest>().ok());
    match (position, hash) {
        (Some(position), Some(hash)) => Ok(Head { position: Position(position), hash }),
        _ => Err(strange("where the log ends")),
    }
}

fn strange(what: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("the platform's answer does not say {what}"))
}

/// A running platform's log. Its word is taken for nothing: all is recomputed here.
pub(super) struct Online {
    client: Client,
    feed: Option<Feed>,
    /// The last position that came, and the last that is wanted.
    read: Position,
    until: Option<Position>,
    /// Whether it is the log of all tenants, without a gap.
    is_whole: bool,
}

impl Online {
    /// The whole log after `after` up to `until`, or for ever.
    pub(super) fn new(client: &Client, after: Position, until: Option<Position>) -> Self {
        Self::with(client, after, until, true)
    }

    /// What the tenant has of it.
    pub(super) fn of_tenant(client: &Client, after: Position, until: Option<Position>) -> Self {
        Self::with(client, after, until, false)
    }

    fn with(client: &Client, after: Position, until: Option<Position>, is_whole: bool) -> Self {
        let filter = if is_whole { vec![("whole", true.to_string())] } else { Vec::new() };
        let query = Query { after: after.0, until: until.map(|until| until.0), filter };
        let is_empty = until.is_some_and(|until| until <= after);
        Self {
            client: client.clone(),
            feed: (!is_empty).then(|| Feed::new(client, query)),
            read: after,
            until,
            is_whole,
        }
    }

    /// The next events; none at the end.
    pub(super) async fn events(&mut self) -> Result<Vec<Recorded>, Problem> {
        let Some(feed) = &mut self.feed else { return Ok(Vec::new()) };
        let recorded = |item: &Item| match item {
            Item::Event(event) => Some(
                Recorded::try_from(&**event)
                    .map_err(|error| Problem::new(ProblemKind::Failed, error.to_string())),
            ),
            Item::Delta(_) => None,
        };
        let events: Vec<Recorded> =
            feed.next().await?.iter().filter_map(recorded).collect::<Result<_, _>>()?;
        self.read = events.last().map_or(self.read, |last| last.position);
        Ok(events)
    }

    /// What the platform says of the event after those that came, if it cannot read it.
    async fn refused(&mut self) -> Result<Option<String>, Problem> {
        let next = [
            ("after", self.read.to_string()),
            ("until", self.read.next().to_string()),
            ("whole", self.is_whole.to_string()),
        ];
        match self.client.stream("/v1/events", &next).await {
            Ok(_) => Ok(None),
            Err(problem) if problem.kind == ProblemKind::Internal => Ok(Some(problem.detail)),
            Err(problem) => Err(problem),
        }
    }

    /// The whole log until now, and what it is to be held to.
    pub(super) async fn evidence(client: &Client) -> Result<(Self, Trust), Problem> {
        let mut trust = Trust::default();
        let standing = client.get("/v1/audit/checkpoint", &[]).await?;
        let standing: StandingModel =
            serde_json::from_value(standing).map_err(|_| strange("how the audit stands"))?;
        trust.keys = standing.keys.iter().filter_map(|key| PublicKey::parse(key).ok()).collect();
        trust.tiles = standing.newest.map_or(0, |newest| newest.size);
        while trust.checkpoints.last().map_or(0, |kept| kept.size) < trust.tiles {
            let above = trust.checkpoints.last().map_or(0, |kept: &Kept| kept.size);
            let page = client.get("/v1/audit/checkpoints", &[("above", above.to_string())]).await?;
            let page: CheckpointPage =
                serde_json::from_value(page).map_err(|_| strange("its checkpoints"))?;
            if page.items.is_empty() {
                break;
            }
            trust.checkpoints.extend(page.items.into_iter().filter(|item| item.size <= trust.tiles).map(
                |item| {
                    let place = "in the platform's ledger".to_owned();
                    Kept { place, size: item.size, note: Note::parse(&item.note) }
                },
            ));
        }
        let head = head(client).await?;
        trust.head = Some(head);
        Ok((Self::new(client, Position(0), Some(head.position)), trust))
    }
}

#[async_trait]
impl Evidence for Online {
    async fn next(&mut self) -> Result<Next, Problem> {
        let events = match self.events().await {
            Ok(events) => events,
            Err(problem) if problem.kind == ProblemKind::Internal => {
                return Ok(Next::Damaged { position: self.read.next(), reason: problem.detail });
            }
            Err(problem) => return Err(problem),
        };
        if !events.is_empty() {
            return Ok(Next::Events(events));
        }
        if self.until.is_none_or(|until| self.read >= until) {
            return Ok(Next::End);
        }
        // The last events may be another tenant's. Of the whole log the platform must show every one.
        let looked = self.feed.as_ref().map_or(0, Feed::position);
        if !self.is_whole && self.until.is_some_and(|until| looked >= until.0) {
            return Ok(Next::End);
        }
        match self.refused().await? {
            Some(reason) => Ok(Next::Damaged { position: self.read.next(), reason }),
            // The platform stopped, or the token may not read any more: nothing of that is the log's.
            None => {
                let detail =
                    format!("the feed of events was cut off after position {}; try again", self.read);
                Err(Problem::new(ProblemKind::Unavailable, detail))
            }
        }
    }

    async fn signed(&mut self) -> Result<u64, Problem> {
        let client = self.client.clone();
        let standing = client.get("/v1/audit/checkpoint", &[]).await?;
        let standing: StandingModel =
            serde_json::from_value(standing).map_err(|_| strange("how the audit stands"))?;
        Ok(standing.newest.map_or(0, |newest| newest.size))
    }

    async fn tile(&mut self, level: u8, number: u64) -> Result<Option<Vec<u8>>, Problem> {
        let path = format!("/v1/audit/tiles/{level}/{number}");
        match self.client.bytes(&path).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(problem) if problem.kind == ProblemKind::NotFound => Ok(None),
            Err(problem) => Err(problem),
        }
    }
}

/// The log of a data directory, or the one in the database that is configured, beside the platform that runs on it or
/// without one; also held to the file of checkpoints in the data directory, to what the node and the owners of `keys` have
/// put into the table of the database, and to what the configured witnesses cosigned.
pub(super) async fn offline(config: &Config, keys: &[PublicKey]) -> Result<(Local, Trust), Problem> {
    let store = configured(config).await?;
    let ledger = Ledger::read(&config.data_dir).await?;
    // What the sinks have is read first: the ledger, which a platform may be adding to, had all of it before.
    let given = Given::read(config, ledger.as_ref(), keys).await?;
    let has_ledger = ledger.is_some();
    let (local, mut trust) = Local::new(store, ledger).await?;
    let is_begun = trust.head.is_some_and(|head| head.position > Position(0));
    if !has_ledger && is_begun && was_run(config) {
        trust.lost(&config.data_dir.join(audit::LEDGER_FILE).display().to_string());
        trust.keys.extend(own_key(config).map(|signer| signer.public().clone()));
    }
    given.hold(config, &mut trust);
    Ok((local, trust))
}

/// Whether a platform has worked with this data directory: then it has signed what it did.
fn was_run(config: &Config) -> bool {
    ["instance", audit::KEY_FILE].iter().any(|file| config.data_dir.join(file).exists())
}

/// The key that the platform of this data directory signs with, where it is there to be read.
fn own_key(config: &Config) -> Option<Signer> {
    let file = config.data_dir.join(audit::KEY_FILE);
    file.is_file().then(|| Signer::open(&file, "unnamed").ok()).flatten()
}

/// Whether the ledger says that the witness was given checkpoints, under whatever key.
pub(super) async fn was_given_to(config: &Config, witness: &WitnessKey) -> Result<bool, Problem> {
    let Some(ledger) = Ledger::read(&config.data_dir).await? else { return Ok(false) };
    let name = sinks::witness_name(witness);
    Ok(ledger.sinks().await?.keys().any(|sink| sink.starts_with(&name)))
}

/// What the sinks have that can be read from here.
struct Given {
    /// Up to which size each sink has got the checkpoints.
    sinks: BTreeMap<String, u64>,
    file: Option<String>,
    /// The name under which the node of the data directory signs.
    own: Option<String>,
    table: Vec<audit::Row>,
    /// What each configured witness cosigned, and the file that it is in.
    cosigned: Vec<(WitnessKey, PathBuf, String)>,
}

impl Given {
    async fn read(config: &Config, ledger: Option<&Ledger>, keys: &[PublicKey]) -> Result<Self, Problem> {
        let (sinks, newest) = match ledger {
            Some(ledger) => (ledger.sinks().await?, ledger.newest().await?),
            None => Default::default(),
        };
        // The ledger may be gone, or what it says be damaged.
        let signed = newest.and_then(|newest| Note::parse(&newest.note).ok());
        let own = own_key(config)
            .map(|signer| signer.origin().to_owned())
            .or_else(|| signed.map(|note| note.checkpoint().origin.clone()));
        let named = keys.iter().map(|key| key.name().to_owned());
        let origins: Vec<String> = named.chain(own.clone()).collect();
        let table = match &config.database_url {
            Some(database) => Table::kept(database, &origins).await.map_err(|error| {
                Problem::new(ProblemKind::Unavailable, format!("read the table of checkpoints: {error}"))
            })?,
            None => Vec::new(),
        };
        let mut cosigned = Vec::new();
        for witness in &config.checkpoint_witness_key {
            let file = config.cosigned_file(witness);
            let text = text(&file)?.unwrap_or_default();
            cosigned.push((witness.clone(), file, text));
        }
        Ok(Self { sinks, file: text(&config.checkpoint_file())?, own, table, cosigned })
    }

    /// Holds the log to it, and it to what the ledger says was given.
    fn hold(self, config: &Config, trust: &mut Trust) {
        let given = |sink: &str| self.sinks.get(sink).copied().unwrap_or_default();
        let sizes = |notes: &[Result<Note, Malformed>]| -> Vec<u64> {
            notes.iter().flatten().map(|note| note.checkpoint().size).collect()
        };
        let file = audit::AppendFile::new(config.checkpoint_file());
        let place = format!("in `{}`", file.path().display());
        let notes_there = notes(self.file.as_deref().unwrap_or_default());
        trust.must_have(&place, given(file.name()), &sizes(&notes_there));
        trust.hold_to(&place, notes_there);
        let place = "in the table `hypercode_audit.checkpoints`";
        let (own, others): (Vec<_>, Vec<_>) =
            self.table.iter().partition(|row| self.own.as_ref() == Some(&row.origin));
        let read = |rows: &[&audit::Row]| rows.iter().map(|row| (row.size, Note::parse(&row.note))).collect();
        if let Some(database) = &config.database_url {
            let there: Vec<u64> = own.iter().map(|row| row.size).collect();
            trust.must_have(place, given(&Table::name_of(database)), &there);
            trust.hold_to_sized(place, read(&own));
        }
        for (witness, file, cosigned) in &self.cosigned {
            let (place, there) = (format!("in `{}`", file.display()), notes(cosigned));
            let name = sinks::witness_name(witness);
            let of_it = self.sinks.iter().filter(|(sink, _)| sink.starts_with(&name));
            let newest = of_it.map(|(_, size)| *size).max().unwrap_or_default();
            trust.must_have_newest(&place, newest, &sizes(&there));
            trust.hold_to_witnessed(&place, there, witness);
        }
        // What other nodes signed is in no ledger here, and is missed in none.
        trust.hold_to_others(place, read(&others));
    }
}

/// The text of a file; `None` where there is none.
fn text(file: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(file, &error)),
    }
}

/// The ledger of the data directory, which a platform has made that runs or ran there.
pub(super) async fn ledger(config: &Config) -> Result<Ledger, Problem> {
    Ledger::read(&config.data_dir).await?.ok_or_else(|| {
        let detail = format!(
            "`{}` has no ledger of the audit; name the data directory of a node that has the log with `--data-dir`",
            config.data_dir.display()
        );
        Problem::new(ProblemKind::NotFound, detail)
    })
}

/// The database that `place` is the URL of, where it is one.
pub(super) fn database(place: &Path) -> Result<Option<Database>, Problem> {
    let url =
        place.to_str().filter(|text| text.starts_with("postgres://") || text.starts_with("postgresql://"));
    let parse = |url: &str| {
        url.parse()
            .map_err(|error: postgres::InvalidUrl| Problem::new(ProblemKind::Invalid, error.to_string()))
    };
    url.map(parse).transpose()
}

/// The log that the configuration names, to be read only: in a database, or in the data directory.
pub(super) async fn configured(config: &Config) -> Result<Arc<dyn EventStore>, Problem> {
    let Some(database) = &config.database_url else { return Ok(Arc::new(open(&config.data_dir).await?)) };
    let store = postgres::ReadOnly::open(database, &postgres::Options::default()).await;
    Ok(Arc::new(store.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))?))
}

/// The log of a data directory, or a log file, to be read only.
pub(super) async fn open(path: &Path) -> Result<sqlite::ReadOnly, Problem> {
    let file = if path.is_dir() { path.join(sqlite::LOG_FILE) } else { path.to_owned() };
    if !file.is_file() {
        let detail =
            format!("`{}` does not exist; name the data directory with `--data-dir`", file.display());
        return Err(Problem::new(ProblemKind::NotFound, detail));
    }
    let store = sqlite::ReadOnly::open(path, &sqlite::Options::default()).await;
    store.map_err(|error| Problem::new(ProblemKind::Unavailable, error.to_string()))
}

/// Whether the file is a tar: the mark stands behind the first header's name and numbers (POSIX.1-1988 `ustar`).
pub(super) fn is_tar(file: &Path) -> Result<bool, Problem> {
    let mut header = Vec::new();
    let read = File::open(file).and_then(|file| file.take(512).read_to_end(&mut header));
    read.map_err(|error| unreadable(file, &error))?;
    Ok(header.get(257..262) == Some(b"ustar"))
}

/// The bundle at `path`; a tar is unpacked into `scratch`, each file under its last name, wherever it says it belongs.
pub(super) fn bundle(path: &Path, scratch: &Path) -> Result<Bundle, Problem> {
    if path.is_dir() {
        return Ok(Bundle::open(path)?);
    }
    let unpacked = || -> std::io::Result<()> {
        for entry in tar::Archive::new(File::open(path)?).entries()? {
            let mut entry = entry?;
            let name = entry.path()?.file_name().map(std::ffi::OsStr::to_owned);
            if let (true, Some(name)) = (entry.header().entry_type().is_file(), name) {
                std::io::copy(&mut entry, &mut File::create(scratch.join(name))?)?;
            }
        }
        Ok(())
    };
    unpacked().map_err(|error| unreadable(path, &error))?;
    Ok(Bundle::open(scratch)?)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ProblemKind::NotFound,
        _ => ProblemKind::Invalid,
    };
    Problem::new(kind, format!("read `{}`: {error}", path.display()))
}
