//! Every version of every profile.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Writer, twins};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain::DomainEvent;
use crate::domain::profile::Event;
use crate::event::Recorded;
use crate::id::EntityKind;

pub(super) struct Profiles;

#[async_trait]
impl Projection for Profiles {
    fn name(&self) -> &'static str {
        "profiles"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["profiles"]
    }

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault> {
        let mut rows = Vec::new();
        for event in events.iter().filter(|event| event.stream.kind == EntityKind::Profile) {
            match Event::decode(&event.kind, event.schema, &event.payload) {
                Ok(Event::Applied(applied)) => {
                    let payload = serde_json::to_string(&applied).map_err(|error| poison(event, &error))?;
                    let (at, position) = (event.recorded_at, event.position);
                    rows.push(json!([applied.tenant, applied.name, applied.version, position, at, payload]));
                }
                Err(error) => return Err(poison(event, &error)),
            }
        }
        if !rows.is_empty() {
            db.execute(twins!("store_profiles.sql"), [Value::from(rows).into()]).await?;
        }
        Ok(())
    }
}
