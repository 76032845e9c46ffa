//! `replay`: a long log is verified, signed, shown as it was, and its views are made again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::EventStore;
use events::audit::{self, Ledger, Local, Signer, Tailer};
use events::projection::{self, Views};
use events::replay::Registry;
use events::store::Until;

use crate::load::{Rows, timed};
use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, bare, life};

/// Events read at a time, as by the platform's own commands.
const READ_EVENTS: usize = 1_000;
/// How often it is looked whether the last checkpoint is there.
const LOOK: Duration = Duration::from_millis(5);
/// How long views may take to be made before the bench is given up.
const PATIENCE: Duration = Duration::from_secs(900);

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let place = setup.place("log").await;
    let log = place.open().await?;
    let (store, rows) = (log.store(), Rows::open(&place).await?);
    let tasks = setup.events.div_ceil(life::EVENTS);
    let events = tasks * life::EVENTS;
    let made = timed(life::fill(&store, tasks)).await?;
    let ledger = setup.directory.join("ledger");
    std::fs::create_dir_all(&ledger)?;
    let signed = timed(sign(&store, &ledger, events)).await?;
    let (mut bare, mut verified) = (Samples::default(), Samples::default());
    let (mut shown, mut viewed) = (Samples::default(), Samples::default());
    let end = Instant::now() + Duration::from_secs(setup.seconds);
    while bare.count() == 0 || Instant::now() < end {
        bare.push(timed(hash(&rows, events)).await?);
        verified.push(timed(verify(&store, &ledger, events)).await?);
        shown.push(timed(show(&*store, events)).await?);
        let scratch = tempfile::tempdir_in(&setup.directory)?;
        viewed.push(timed(Box::pin(view(&store, scratch.path()))).await?);
    }
    log.close().await;
    let rate = |samples: &Samples| events as f64 / samples.p50().as_secs_f64();
    let row = |name: &str, samples: &Samples| Row::new(name).samples(samples).rate(rate(samples));
    let beside = |name: &str, samples: &Samples| row(name, samples).ratio(rate(samples) / rate(&bare));
    let mut table = Table::default();
    table.row(row("appended", &[made].into_iter().collect()));
    table.row(row("bare read and SHA-256 of every row", &bare));
    table.row(beside("checked and signed", &[signed].into_iter().collect()));
    table.row(beside("`audit verify`", &verified));
    table.row(beside("`replay --to` the last event", &shown));
    table.row(beside("`replay --check`: all views made", &viewed));
    table.note(format!("{events} events of {tasks} tasks; n, p50 and p99 are of runs over the whole log"));
    table.note("bare: one query, every column as a Rust value, one SHA-256 a row over the hash before and all columns");
    table.note(
        "signed: a checkpoint every 1 000 events, its tiles and its note made durable one after the other",
    );
    table.note("verify: every hash, the chain, the tree's tiles, and every checkpoint with its signature");
    table
        .note("views are made in files, whatever the log is in, as `replay --check` does before it compares");
    Ok(table)
}

/// Reads the log and hashes each row, and nothing else.
async fn hash(rows: &Rows, events: u64) -> Result<()> {
    let (mut chain, mut count) = (bare::Chain::default(), 0);
    rows.read(|row| {
        chain.add(&row);
        count += 1;
    })
    .await?;
    std::hint::black_box(chain);
    whole(count, events)
}

/// Has the log signed from its beginning, as by a platform whose audit is behind.
async fn sign(store: &Arc<dyn EventStore>, directory: &Path, events: u64) -> Result<()> {
    let ledger = Ledger::open(directory).await?;
    let signer = Signer::generate("bench");
    let tailer =
        Tailer::start(Arc::clone(store), ledger, signer, Vec::new(), audit::Options::default()).await?;
    while tailer.standing().size < events {
        if let Some(reason) = tailer.standing().refused {
            return Err(reason.into());
        }
        tokio::time::sleep(LOOK).await;
    }
    tailer.close().await;
    Ok(())
}

async fn verify(store: &Arc<dyn EventStore>, directory: &Path, events: u64) -> Result<()> {
    let ledger = Ledger::read(directory).await?;
    let (mut evidence, trust) = Local::new(Arc::clone(store), ledger).await?;
    let report = audit::verify(trust, &mut evidence, |_| ()).await?;
    match report.faults.first() {
        Some(fault) => Err(format!("position {}: {}", fault.position, fault.detail).into()),
        None => whole(report.covered, events),
    }
}

/// Folds the registry, as `replay --to` does.
async fn show(store: &dyn EventStore, events: u64) -> Result<()> {
    let mut registry = Registry::default();
    loop {
        let batch = store.read(registry.position(), READ_EVENTS).await?;
        if batch.is_empty() {
            break;
        }
        for event in &batch {
            registry.apply(event)?;
        }
    }
    whole(registry.position().0, events)
}

/// Makes all views of the log in `directory`, as `replay --check` does.
async fn view(store: &Arc<dyn EventStore>, directory: &Path) -> Result<()> {
    let log = Arc::new(Until::new(Arc::clone(store), store.head().await?));
    let head = log.head().await?.position;
    let views = Views::open(directory, log, projection::Options::default()).await?;
    views.wait_for(head, PATIENCE).await?;
    if let Some(stopped) = views.status().await?.into_iter().find(|status| status.error.is_some()) {
        return Err(format!("projection `{}` stopped: {:?}", stopped.name, stopped.error).into());
    }
    views.close().await;
    Ok(())
}

fn whole(found: u64, events: u64) -> Result<()> {
    match found == events {
        true => Ok(()),
        false => Err(format!("{found} events instead of {events}").into()),
    }
}
