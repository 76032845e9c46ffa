//! Random histories on SQLite and on the reference give the same answers and the same log, hash by hash.

use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::id::{CommandId, Digest, StreamId, Version};
use crate::store::conformance::name;
use crate::store::{AppendRequest, Epoch, Memory, Reservation};

#[derive(Clone, Debug)]
enum Step {
    /// Appends that are taken in together.
    Append(Vec<Shape>),
    Claim(usize),
    Restart,
}

/// An append out of few names, so that histories meet themselves.
#[derive(Clone, Debug)]
struct Shape {
    stream: u8,
    expected: Option<u64>,
    command: u8,
    digest: Option<u8>,
    epoch: Option<(u8, u64)>,
    events: usize,
    reserve: Vec<u8>,
    release: Vec<u8>,
}

fn shape() -> impl Strategy<Value = Shape> {
    let expected = prop_oneof![2 => Just(None), 1 => Just(Some(0)), 2 => (0..6_u64).prop_map(Some)];
    let epoch = proptest::option::weighted(0.3, (0..2_u8, 0..3_u64));
    let names = || prop_oneof![4 => Just(Vec::new()), 1 => vec(0..4_u8, 1..3)];
    (0..4_u8, expected, 0..40_u8, proptest::option::of(0..2_u8), epoch, 0..4_usize, names(), names())
        .prop_map(|(stream, expected, command, digest, epoch, events, reserve, release)| Shape {
            stream,
            expected,
            command,
            digest,
            epoch,
            events,
            reserve,
            release,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => vec(shape(), 1..6).prop_map(Step::Append),
        1 => (0..3_usize).prop_map(Step::Claim),
        1 => Just(Step::Restart),
    ]
}

impl Shape {
    fn request(&self) -> AppendRequest {
        let names =
            |keys: &[u8]| -> Vec<Reservation> { keys.iter().map(|key| name(&key.to_string())).collect() };
        let expected = self.expected.map_or(Expected::Any, |version| Expected::Exact(Version(version)));
        AppendRequest {
            command_id: CommandId(Uuid::from_u128(u128::from(self.command))),
            command_digest: self.digest.map(|digest| Digest::of(&[digest])),
            epoch: self.epoch.map(|(shard, epoch)| Epoch { shard, epoch }),
            reserve: names(&self.reserve),
            release: names(&self.release),
            ..request(&self.stream(), expected, &vec!["1"; self.events])
        }
    }
    fn stream(&self) -> StreamId {
        stream(&self.stream.to_string())
    }
}

async fn check(steps: Vec<Step>, options: Options) {
    let (mut fresh, memory) = (Fresh::new(options).await, Memory::new());
    for step in steps {
        match step {
            Step::Append(shapes) => {
                let mut taken_in = Vec::new();
                for shape in &shapes {
                    let (store, request) = (fresh.store.clone(), shape.request());
                    let mut append = Box::pin(async move { store.append(request).await });
                    let answered = std::future::poll_fn(|context| match append.as_mut().poll(context) {
                        std::task::Poll::Ready(answer) => std::task::Poll::Ready(Some(answer)),
                        std::task::Poll::Pending => std::task::Poll::Ready(None),
                    });
                    taken_in.push((answered.await, append));
                }
                for (shape, (answered, append)) in shapes.iter().zip(taken_in) {
                    let answer = match answered {
                        Some(answer) => answer,
                        None => append.await,
                    };
                    assert_eq!(answer, memory.append(shape.request()).await, "{shape:?}");
                }
                for shape in &shapes {
                    let id = shape.request().command_id;
                    assert_eq!(fresh.store.find_command(id).await, memory.find_command(id).await);
                }
            }
            Step::Claim(most) => {
                let claimed = fresh.store.claim("a", &[], most, super::LONG).await;
                assert_eq!(claimed, memory.claim("a", &[], most, super::LONG).await);
            }
            Step::Restart => fresh.restart().await,
        }
    }
    assert_eq!(fresh.store.head().await, memory.head().await);
    assert_eq!(log(&fresh.store).await, log(&memory).await);
    for key in 0..4 {
        let name = name(&key.to_string());
        assert_eq!(fresh.store.find_reservation(&name).await, memory.find_reservation(&name).await);
    }
    chain::verify(&fresh.store).await.expect("the chain verifies");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_and_memory_agree(steps in vec(step(), 1..24), cached_keys_max in prop_oneof![Just(0_usize), Just(100)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(check(steps, Options { cached_keys_max, ..Options::default() }));
    }
}
