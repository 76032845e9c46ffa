//! What is said of an attack, and what the log says.

use serde_json::Value;

use crate::stage::Stage;
use crate::support::eventually;

/// One line for an attack that was refused and is on record.
pub(crate) fn told(attack: &str, tried: &str, refused: &str, position: u64) {
    println!("{attack}  tried {tried}  refused {refused}  recorded at position {position}");
}

/// The same for one of which there is no event, and why.
pub(crate) fn told_without(attack: &str, tried: &str, refused: &str, why: &str) {
    println!("{attack}  tried {tried}  refused {refused}  not recorded: {why}");
}

/// The end of the log.
pub(crate) async fn head(stage: &Stage) -> u64 {
    stage.api.insist_get("/v1/log").await["position"].as_u64().expect("a position")
}

/// Where the log tells of it, later than `after`.
pub(crate) async fn recorded(stage: &Stage, after: u64, kind: &str, is: impl Fn(&Value) -> bool) -> u64 {
    eventually(&format!("an event `{kind}`"), async || {
        let events = stage.api.list(&format!("/v1/audit?kind={kind}")).await;
        let positions =
            events.iter().filter(|event| is(event)).filter_map(|event| event["position"].as_u64());
        positions.filter(|position| *position > after).min()
    })
    .await
}

/// What stands in an event's summary.
pub(crate) fn says(event: &Value, text: &str) -> bool {
    event["summary"].as_str().is_some_and(|summary| summary.contains(text))
}

/// The text of a field.
#[track_caller]
pub(crate) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {value:#}"))
}
