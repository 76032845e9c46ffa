//! What each entity's events and effects mean outside.

use std::sync::Arc;

use events::CrewId;
use events::domain::profile::{Event, Profile, State};

use crate::core::{Core, notify};
use crate::entity::{Cause, Hosted};

mod agent;
mod assign;
mod crew;
mod pool;
mod questions;
mod reach;
mod task;

pub(crate) use agent::{destroy, down, enroll as enroll_agent, wake};
pub(crate) use assign::prestart;
pub(crate) use crew::{check_assembled, check_tokens, enroll as enroll_crew, is_out_of_tokens, seats, spend};
pub(crate) use pool::{ended, exists as pool_exists, learn as learn_claim, suspect};
pub(crate) use questions::{answers, fit};
pub(crate) use task::{
    dispatch, end_hung, end_if_orphaned, end_with_parent, let_go, place_waiting, route, wish,
};

impl Hosted for Profile {
    fn crew(_: &State) -> Option<&CrewId> {
        None
    }

    fn observe(core: &Arc<Core>, id: &str, state: &Arc<State>, _: &[Event], _: Option<&Cause>) {
        notify(&core.profile_entities, id, state);
    }

    async fn perform(_: Arc<Core>, _: Arc<str>, _: Cause, (): ()) {}
}
