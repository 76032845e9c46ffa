//! One suite that every event store passes: the laws ES-1 to ES-8 and what they mean for hard input.
//!
//! A store instantiates it with [`event_store_conformance!`](crate::event_store_conformance), giving an
//! expression that makes a [`Fixture`] over an empty log.

mod laws;
mod requests;

use std::sync::Arc;

use async_trait::async_trait;

use super::{AppendRequest, EventStore, Expected, Reservation};
use crate::event::{Meta, NewEvent, Principal, Recorded};
use crate::id::{CommandId, EntityKind, Position, StreamId, Tenant, Timestamp, Version};

pub use laws::*;
pub use requests::*;

/// A store under test.
#[async_trait]
pub trait Fixture: Send {
    /// The store.
    fn store(&self) -> Arc<dyn EventStore>;
    /// Closes the store and opens the same log again.
    async fn restart(&mut self);
}

/// Expands to one test per law, over the fixture that the expression makes.
#[macro_export]
macro_rules! event_store_conformance {
    ($fixture:expr) => {
        $crate::event_store_conformance! { $fixture;
            es_1_positions_are_contiguous_and_in_commit_order,
            es_2_an_append_is_all_or_nothing,
            es_3_an_answered_append_is_durable,
            es_4_the_expected_version_holds_under_32_writers,
            es_5_the_same_command_gives_the_first_outcome,
            es_5_concurrent_repeats_are_appended_once,
            es_5_the_same_command_with_other_content_is_refused,
            es_5_a_refused_command_leaves_nothing,
            es_6_a_reader_that_resumes_misses_and_repeats_nothing,
            es_7_the_chain_verifies_and_a_changed_event_is_found,
            names_are_taken_once_and_given_back_by_their_holder,
            illegal_requests_are_refused,
            large_appends_and_payloads_come_back,
            payloads_are_kept_byte_for_byte,
            a_caller_that_goes_away_changes_nothing,
            streams_are_read_in_pages,
            the_watch_hints_at_the_head,
        }
    };
    ($fixture:expr; $($law:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $law() {
                $crate::store::conformance::$law($fixture.await).await;
            }
        )+
    };
}

/// A stream of an agent.
pub fn stream(id: &str) -> StreamId {
    StreamId::new(EntityKind::Agent, id)
}

/// A name in the namespace `name`.
pub fn name(key: &str) -> Reservation {
    Reservation { namespace: "name".into(), key: key.into() }
}

/// A request that appends `payloads` to `stream` by a fresh command.
pub fn request(stream: &StreamId, expected: Expected, payloads: &[&str]) -> AppendRequest {
    let event = |payload: &&str| NewEvent { kind: "tested".into(), schema: 1, payload: (*payload).into() };
    AppendRequest {
        stream: stream.clone(),
        expected,
        command_id: CommandId::fresh(),
        command_digest: None,
        epoch: None,
        meta: Meta {
            tenant: Tenant::default(),
            principal: Principal::system("test"),
            correlation_id: Some("correlation".into()),
            causation_id: None,
            traceparent: None,
        },
        recorded_at: Timestamp(1_795_382_626_000_000),
        events: payloads.iter().map(event).collect(),
        reserve: Vec::new(),
        release: Vec::new(),
    }
}

/// The whole log.
pub async fn log(store: &dyn EventStore) -> Vec<Recorded> {
    store.read(Position(0), usize::MAX >> 1).await.expect("the log can be read")
}

/// All of one stream.
pub async fn events_of(store: &dyn EventStore, stream: &StreamId) -> Vec<Recorded> {
    store.read_stream(stream, Version(0), usize::MAX >> 1).await.expect("the stream can be read")
}
