//! One crew whose agents claim from a pool, in a world where nothing goes wrong but one thing: somebody dies at one point
//! of a claim, a release or a refill.

use std::time::Duration;

use events::CrewId;
use events::api::Command;
use events::domain::pool::Phase;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::laws::{Broken, hold};
use super::life::{Point, Victim};
use super::scene::{PATIENCE, Scene, profile, runtime};
use super::wire::Sabotage;
use events::invariant::Law;

/// What happens from the making of a standby sandbox to its end, in this order: kinds of events, and what is asked of the
/// provider and the links.
pub const STEPS: [&str; 13] = [
    "standby_requested",
    "create",
    "pause",
    "standby_ready",
    "sandbox_claimed",
    "unpause",
    "update",
    "assign",
    "agent_ready",
    "standby_claimed",
    "standby_released",
    "destroy",
    "standby_destroyed",
];

/// Every point of them.
pub fn points() -> impl Iterator<Item = Point> {
    let victims = [Victim::Platform, Victim::Runners, Victim::All];
    let of = move |step| {
        let sides = [false, true].into_iter();
        sides.flat_map(move |is_after| victims.map(|victim| Point { step, is_after, victim }))
    };
    STEPS.into_iter().flat_map(of)
}

/// Whether the laws hold when somebody dies at the point.
pub fn dies_at(point: Point, seed: u64) -> Result<(), Broken> {
    runtime().block_on(async {
        let scene = Scene::new(1, seed, Sabotage::None);
        scene.claim(point).await
    })
}

impl Scene {
    async fn claim(&self, point: Point) -> Result<(), Broken> {
        let machine = self.any_machine();
        machine.world.be_calm();
        self.start(machine).await;
        let life = machine.life().expect("it was started");
        life.arm(point, machine.world.clone());
        let living = async {
            loop {
                sleep(Duration::from_millis(100)).await;
                self.revive().await;
            }
        };
        tokio::select! {
            () = living => unreachable!("it goes on for ever"),
            done = self.use_pool(point.victim) => done?,
        }
        self.revive().await;
        assert!(!life.is_armed(), "{point:?} is never reached");
        self.settle().await?;
        self.verify().await
    }

    /// A pool is filled, agents claim from it and work, one of them dies, and the crew ends.
    async fn use_pool(&self, victim: Victim) -> Result<(), Broken> {
        let handler = json!({ "protocol": "stdio", "command": ["scout"], "startTimeout": "5s" });
        for name in ["scout", "analyst"] {
            self.user.apply(name, profile(&handler)).await;
        }
        let pool = json!({ "size": { "min": 0, "max": 4, "target": 2 }, "standby": "paused",
            "resources": { "memory": "64Mi" } });
        self.user.apply_pool(pool).await;
        self.until("the pool is filled", |scene| scene.count(Phase::Ready) == 2).await?;
        let spec = json!({
            "entry": "scout",
            "members": [{ "name": "scout", "profile": "scout" }, { "name": "analyst", "profile": "analyst" }],
            "channels": [{ "from": "scout", "to": "analyst", "kinds": ["task"], "maxDepth": 2 }],
            "sandbox": { "pool": "small" },
        });
        let assemble = Command::CrewAssemble { name: "crew".into(), labels: Default::default(), spec };
        let assembled = self.user.ask(assemble).await;
        // Agents outlive the platform, and their crew hears that they are ready.
        hold(Law::Sv1, assembled.is_ok() || victim != Victim::Platform, || format!("{assembled:?}"))?;
        // Those that died as they came up are told of as well, and nothing of them may be left.
        let Ok(reply) = assembled else { return Ok(()) };
        let crew: CrewId = reply.id.parse().expect("a crew is named by its id");
        self.user.submit(&crew).await;
        if self.serving(|labels| labels.pool.is_some()).is_none() {
            // Where the pool was not known again yet, agents came up without it; who is replaced comes from it.
            self.strike(|_| true);
            self.until("one comes from the pool", |scene| {
                scene.serving(|labels| labels.pool.is_some()).is_some()
            })
            .await?;
        }
        self.strike(|labels| labels.pool.is_some());
        self.user.submit(&crew).await;
        self.until("what was used is gone", |scene| scene.destroyed() > 0).await
    }

    async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) -> Result<(), Broken> {
        let until = Instant::now() + PATIENCE;
        while !is(self) {
            hold(Law::Sv1, Instant::now() < until, || format!("{what}: never"))?;
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// How many sandboxes of pools are in a phase.
    fn count(&self, phase: Phase) -> u32 {
        self.story().pools.values().map(|told| told.state.count(phase)).sum()
    }

    fn destroyed(&self) -> u64 {
        self.story().pools.values().map(|told| told.state.totals.destroyed).sum()
    }

    /// A sandbox with such labels that runs and serves an agent by the log.
    fn serving(&self, is: impl Fn(&sandbox::Labels) -> bool) -> Option<sandbox::Id> {
        let wanted = self.story().wanted();
        let mut running = self.machines[0].world.running().into_iter();
        running.find(|(id, labels)| wanted.contains_key(id.as_str()) && is(labels)).map(|(id, _)| id)
    }

    /// Kills one that serves, if there is one.
    fn strike(&self, is: impl Fn(&sandbox::Labels) -> bool) {
        if let Some(id) = self.serving(is) {
            self.machines[0].world.end(&id, Some(9));
        }
    }
}
