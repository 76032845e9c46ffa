//! `lag`: how far the views are behind the log while it is appended to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::EventStore;
use events::projection::Views;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::samples::Samples;
use crate::table::{Row, Table};
use crate::{Result, Setup, life};

/// How many append at once.
const CALLERS: u64 = 256;
/// Events of a second, where fewer come than the log could take.
const PACE: u64 = 2_000;
/// How often it is looked how far the views are.
const LOOK: Duration = Duration::from_millis(10);
/// How long the views may take before the bench is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// Events, and how long they took.
struct Done {
    events: u64,
    time: Duration,
}

impl Done {
    fn rate(&self) -> f64 {
        self.events as f64 / self.time.as_secs_f64()
    }

    fn row(&self, what: impl Into<String>) -> Row {
        Row::new(what).count(self.events).rate(self.rate())
    }
}

/// How far the views were behind: in events, and until what was the newest event could be seen in them.
#[derive(Default)]
struct Behind {
    events: Samples<u64>,
    times: Samples,
}

/// What a load came to, and what it did to the views.
struct Loaded {
    load: Done,
    behind: Behind,
    /// What the views had still to do when the load had ended.
    rest: Done,
}

pub(crate) async fn run(setup: &Setup) -> Result<Table> {
    let log = setup.place("alone").await.open().await?;
    let bare = append(&log.store(), None, setup.seconds).await?;
    log.close().await;
    let full = beside(setup, "full", None).await?;
    let paced = beside(setup, "paced", Some(PACE)).await?;
    let mut table = Table::default();
    table.row(bare.row(format!("full load, {CALLERS} callers: appended without views")));
    table.row(full.load.row("full load: appended beside the views").ratio(full.load.rate() / bare.rate()));
    table.row(Row::new("full load: events behind").counts(&full.behind.events));
    table.row(Row::new("full load: time behind").samples(&full.behind.times));
    let rest = full.rest.row("full load: views alone, after its end");
    table.row(rest.ratio(full.rest.rate() / bare.rate()));
    table.row(paced.load.row("paced load: appended beside the views"));
    table.row(Row::new("paced load: events behind").counts(&paced.behind.events));
    table.row(Row::new("paced load: time behind").samples(&paced.behind.times));
    table.note("events of tasks that are submitted, started, get on and are completed, one event an append");
    table.note(
        "behind: every 10 ms, against the head of the log; the time is that until the event could be seen",
    );
    table.note(format!(
        "all nine projections; the ratios are to the append load without views; paced: {PACE} events/s"
    ));
    Ok(table)
}

/// Appends beside the views of the same log.
async fn beside(setup: &Setup, name: &str, pace: Option<u64>) -> Result<Loaded> {
    let place = setup.place(name).await;
    let log = place.open().await?;
    let store = log.store();
    let views = place.views(&log).await?;
    let ended = CancellationToken::new();
    let load = async {
        let _end = ended.clone().drop_guard();
        append(&store, pace, setup.seconds).await
    };
    let rest = async {
        ended.cancelled().await;
        let (start, before) = (Instant::now(), views.position());
        let head = store.head().await?.position;
        views.wait_for(head, PATIENCE).await?;
        Result::Ok(Done { events: head.0 - before.0, time: start.elapsed() })
    };
    let (load, behind, rest) = tokio::join!(load, watch(&store, &views, &ended), rest);
    let loaded = Loaded { load: load?, behind: behind?, rest: rest? };
    views.close().await;
    log.close().await;
    Ok(loaded)
}

/// Looks from time to time how far the views are, until the load has ended.
async fn watch(store: &Arc<dyn EventStore>, views: &Views, ended: &CancellationToken) -> Result<Behind> {
    let (mut behind, mut waiting) = (Behind::default(), JoinSet::new());
    let (head, mut looks) = (store.watch(), tokio::time::interval(LOOK));
    while ended.run_until_cancelled(looks.tick()).await.is_some() {
        let (start, head, views) = (Instant::now(), *head.borrow(), views.clone());
        behind.events.push(head.0.saturating_sub(views.position().0));
        waiting.spawn(async move {
            views.wait_for(head, PATIENCE).await?;
            Result::Ok(start.elapsed())
        });
    }
    while let Some(time) = waiting.join_next().await {
        behind.times.push(time??);
    }
    Ok(behind)
}

/// Appends for so long; `pace` is how many events come in a second, where that is not as many as go.
async fn append(store: &Arc<dyn EventStore>, pace: Option<u64>, seconds: u64) -> Result<Done> {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let between = pace.map_or(Duration::ZERO, |pace| Duration::from_secs(CALLERS).div_f64(pace as f64));
    let mut running = JoinSet::new();
    for caller in 0..CALLERS {
        let store = Arc::clone(store);
        running.spawn(async move {
            let mut next = start + between.mul_f64(caller as f64 / CALLERS as f64);
            for count in 0.. {
                if pace.is_some() {
                    tokio::time::sleep_until(next.into()).await;
                }
                if Instant::now() >= end {
                    return Result::Ok(count);
                }
                next += between;
                let (task, version) = (caller + CALLERS * (count / life::EVENTS), count % life::EVENTS + 1);
                store.append(life::request(task, version, 1)?).await?;
            }
            Ok(0)
        });
    }
    let mut events = 0;
    while let Some(appended) = running.join_next().await {
        events += appended??;
    }
    Ok(Done { events, time: start.elapsed() })
}
