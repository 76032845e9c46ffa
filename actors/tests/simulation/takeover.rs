//! Two nodes of which one dies, and how long its shards are nobody's.

use std::time::Duration;

use events::lease::{Leases as _, SHARDS};
use hypercode_actors::Leasing;
use tokio::time::{Instant, sleep};

use super::scene::{Scene, runtime};
use super::wire::Sabotage;

/// How long the database thinks about each question.
const ANSWER: Duration = Duration::from_millis(300);
/// Until the two have shared the shards.
const SHARED: Duration = Duration::from_secs(30);

/// How long after its death the shards of a node are another's, and the lease time.
pub fn of_a_dead_node(seed: u64) -> (Duration, Duration) {
    runtime().block_on(async {
        let mut scene = Scene::new(2, seed, Sabotage::None);
        scene.answer = ANSWER;
        for machine in &scene.machines {
            machine.world.be_calm();
            scene.start(machine).await;
        }
        sleep(SHARED).await;
        assert_eq!(scene.held().await, [SHARDS / 2; 2]);
        sleep(Duration::from_millis(seed * 97)).await;
        scene.machines[1].kill();
        let died = Instant::now();
        while scene.held().await[0] < SHARDS {
            sleep(Duration::from_millis(10)).await;
        }
        (died.elapsed(), Duration::from_millis(Leasing::default().ttl_ms))
    })
}

impl Scene {
    /// How many shards each machine holds.
    async fn held(&self) -> [usize; 2] {
        let table = self.log.table().await.expect("the log is there");
        [0, 1].map(|machine: usize| table.held_by(&self.machines[machine].name))
    }
}
