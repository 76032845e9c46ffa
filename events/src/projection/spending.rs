//! What every crew has used up of its budget.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::database::{Writer, twins};
use super::entities::poison;
use super::{Fault, Projection};
use crate::domain::spending::{self, Spent};
use crate::event::Recorded;
use crate::id::CrewId;

pub(super) struct Spending;

#[async_trait]
impl Projection for Spending {
    fn name(&self) -> &'static str {
        "spending"
    }

    fn tables(&self) -> &'static [&'static str] {
        &["spending"]
    }

    async fn apply(&mut self, db: &mut Writer, events: &[Recorded]) -> Result<(), Fault> {
        let mut spent: BTreeMap<CrewId, Spent> = BTreeMap::new();
        for event in events {
            if let Some((crew, more)) = spending::of(event).map_err(|error| poison(event, &error))? {
                let sum = spent.entry(crew).or_default();
                *sum = sum.and(more);
            }
        }
        if !spent.is_empty() {
            let row = |(crew, Spent { messages, usage }): (&CrewId, &Spent)| {
                json!([crew, messages, usage.input_tokens, usage.output_tokens, usage.cost_micros])
            };
            let rows = Value::from_iter(spent.iter().map(row));
            db.execute(twins!("store_spending.sql"), [rows.into()]).await?;
        }
        Ok(())
    }
}
