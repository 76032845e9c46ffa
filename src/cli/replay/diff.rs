//! What changed: between two moments, or as it happens.

use std::collections::BTreeMap;

use events::api::{Problem, ProblemKind};
use events::replay::Registry;
use serde_json::{Map, Value, json};

use super::moment::Moment;
use super::must_have_come;
use super::source::Source;
use crate::http;
use crate::output::{Output, harmless};

/// Fields that say when something changed, or again what another one says.
const SAID_ELSEWHERE: [&str; 3] = ["updated", "updatedAt", "isTerminal"];

/// Every item of a registry by its kind and id.
type Items = BTreeMap<(&'static str, String), Value>;

fn items(registry: &Registry) -> Items {
    const KINDS: [(&str, &str); 5] = [
        ("profiles", "profile"),
        ("pools", "pool"),
        ("crews", "crew"),
        ("agents", "agent"),
        ("tasks", "task"),
    ];
    let mut lists = http::registry(registry);
    let mut items = Items::new();
    for (list, kind) in KINDS {
        for item in lists.remove(list).into_iter().flatten() {
            let id = item["id"].as_str().or_else(|| item["name"].as_str()).unwrap_or_default().to_owned();
            items.insert((kind, id), item);
        }
    }
    items
}

/// The fields in which two items differ, each before and after.
fn fields(before: &Value, after: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let differs =
        |name: &&String| !SAID_ELSEWHERE.contains(&name.as_str()) && before.get(*name) != after.get(*name);
    names.filter(differs).map(|name| (name.clone(), json!([before.get(name), after.get(name)]))).collect()
}

/// The changes from one registry to another, in the order of their kinds and ids.
fn changes(before: &Items, after: &Items) -> Vec<Value> {
    let change =
        |((kind, id), item): (&(&'static str, String), &Value)| match before.get(&(*kind, id.clone())) {
            None => Some(json!({"change": "added", "kind": kind, "id": id, "value": item})),
            Some(old) => {
                let fields = fields(old, item);
                let is_changed = !fields.is_empty();
                is_changed.then(|| json!({"change": "changed", "kind": kind, "id": id, "fields": fields}))
            }
        };
    after.iter().filter_map(change).collect()
}

pub(super) async fn run(
    source: &mut Source,
    from: &Moment,
    to: &Moment,
    output: Output,
) -> Result<(), Problem> {
    let mut registry = Registry::default();
    let came = source.replay(&mut registry, Some(from)).await?;
    must_have_come(&registry, came, from)?;
    in_order(&registry, from, to)?;
    let (before, began) = (items(&registry), (registry.position(), registry.at()));
    let came = source.replay(&mut registry, Some(to)).await?;
    must_have_come(&registry, came, to)?;
    let ended = (registry.position(), registry.at());
    let changes = changes(&before, &items(&registry));
    let end = |(position, at): (events::Position, events::Timestamp)| json!({"position": position, "at": at.rfc3339()});
    let shown = json!({"from": end(began), "to": end(ended), "changes": changes});
    output.value(&shown, |_| {
        let events = ended.0.0 - began.0.0;
        let mut text = format!(
            "from position {} to {}: {events} events in {} ms\n\n",
            began.0,
            ended.0,
            ended.1.ms_since(began.1)
        );
        changes.iter().for_each(|change| text += &line(change));
        if changes.is_empty() {
            text += "nothing changed in the registry\n";
        }
        text
    })?;
    Ok(())
}

/// Refuses moments of which the second comes before the first, which nothing leads to.
fn in_order(at_first: &Registry, from: &Moment, to: &Moment) -> Result<(), Problem> {
    let (position, at) = (at_first.position(), at_first.at());
    let is_before = match (from, to) {
        (Moment::Time(from), Moment::Time(to)) => to < from,
        (_, Moment::Position(to)) => *to < position,
        (_, Moment::Time(to)) => *to < at,
    };
    match is_before {
        false => Ok(()),
        true => {
            let detail = format!("`--diff`: {to} comes before {from}; name the earlier moment first");
            Err(Problem::new(ProblemKind::Invalid, detail))
        }
    }
}

/// A change on one line.
fn line(change: &Value) -> String {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (kind, id) = (text(&change["kind"]), text(&change["id"]));
    let what = match change["fields"].as_object() {
        None => {
            let value = &change["value"];
            let about = ["name", "member", "version", "status"].map(|name| (name, &value[name]));
            let about = about.into_iter().filter(|(_, value)| !value.is_null() && **value != change["id"]);
            about.map(|(name, value)| format!("{name} {}", text(value))).collect::<Vec<_>>().join(", ")
        }
        Some(fields) => {
            let fields =
                fields.iter().map(|(name, pair)| format!("{name} {} → {}", text(&pair[0]), text(&pair[1])));
            fields.collect::<Vec<_>>().join(", ")
        }
    };
    let sign = if change["fields"].is_null() { '+' } else { '~' };
    format!("{}\n", harmless(&format!("{sign} {kind:<7} {id}  {what}")))
}

/// Shows every change as it happens, for ever.
pub(super) async fn follow(source: &Source, mut registry: Registry, output: Output) -> Result<(), Problem> {
    let mut before = items(&registry);
    let start = registry.position();
    source
        .follow(start, |event| {
            source.apply(&mut registry, event)?;
            let after = items(&registry);
            for change in changes(&before, &after) {
                let shown = json!({"position": event.position, "at": event.recorded_at.rfc3339(), "kind": &*event.kind, "change": change});
                let told = || format!("{:>6}  {}  {}", event.position, event.recorded_at.rfc3339(), line(&change));
                output.item(&shown, |_| told())?;
            }
            before = after;
            Ok(())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_was_and_what_is() {
        let item = |status: &str, updated: u64| json!({"id": "ag_1", "status": status, "updated": updated});
        let key = ("agent", "ag_1".to_owned());
        let before = Items::from([(key.clone(), item("ready", 1))]);
        let same = Items::from([(key.clone(), item("ready", 2))]);
        let after = Items::from([
            (key, item("busy", 3)),
            (("task", "tk_1".to_owned()), json!({"status": "working"})),
        ]);
        assert!(changes(&before, &same).is_empty());
        let told: String = changes(&before, &after).iter().map(line).collect();
        assert_eq!(told, "~ agent   ag_1  status ready → busy\n+ task    tk_1  status working\n");
    }
}
