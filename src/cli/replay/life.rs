//! The life of one entity on a page.

use events::api::{Problem, ProblemKind};
use events::projection::summarize;
use events::replay::{Life, Relation, Step};
use events::{Position, StreamId};
use serde_json::{Value, json};

use super::moment::Moment;
use super::source::Source;
use crate::http::Envelope;
use crate::output::{Output, harmless};

/// Hex digits of an id that are shown.
const SHOWN_DIGITS: usize = 8;

pub(super) async fn run(
    source: &mut Source,
    entity: &str,
    to: Option<&Moment>,
    follow: bool,
    output: Output,
) -> Result<(), Problem> {
    let stream = stream(entity)?;
    let mut life = Life::of(stream.clone());
    let (mut steps, mut last) = (Vec::new(), Position(0));
    while let Some(event) = source.next().await? {
        if to.is_some_and(|to| !to.includes(&event)) {
            break;
        }
        last = event.position;
        if let Some(step) = life.step(&event)
            && source.knows(&event)?
        {
            steps.push(step);
        }
    }
    if steps.is_empty() && !follow {
        return Err(Problem::new(
            ProblemKind::NotFound,
            format!("nothing happened to `{stream}` until then"),
        ));
    }
    let shown = json!({"entity": stream, "steps": steps.iter().map(value).collect::<Vec<_>>()});
    output.value(&shown, |_| page(&stream, &steps))?;
    if follow {
        source
            .follow(last, |event| match life.step(event) {
                Some(step) if source.knows(event)? => output.item(&value(&step), |_| line(&step)),
                _ => Ok(()),
            })
            .await?;
    }
    Ok(())
}

/// An entity by its stream, or by its id where that says its kind.
fn stream(entity: &str) -> Result<StreamId, Problem> {
    let kind = [("cr_", "crew"), ("ag_", "agent"), ("tk_", "task"), ("pl_", "pool")];
    let kind = kind.iter().find(|(prefix, _)| entity.starts_with(prefix)).map(|(_, kind)| *kind);
    let named = kind.map_or_else(|| entity.to_owned(), |kind| format!("{kind}/{entity}"));
    named.parse().map_err(|_| {
        let detail = format!("`{entity}` is no entity; expected KIND/ID, such as `task/tk_…`");
        Problem::new(ProblemKind::Invalid, detail)
    })
}

fn value(step: &Step) -> Value {
    let cause = step.cause.as_ref().map(|(position, kind)| json!({"position": position, "kind": &**kind}));
    let event = Envelope::try_from(&step.event).ok();
    json!({"relation": step.relation, "sinceMs": step.since_ms, "cause": cause, "event": event})
}

fn page(stream: &StreamId, steps: &[Step]) -> String {
    let own: Vec<&Step> = steps.iter().filter(|step| step.relation == Relation::Own).collect();
    let mut text = match (own.first(), own.last()) {
        (Some(first), Some(last)) => format!(
            "the life of {stream}: {} events from {} on, in {} ms\n\n",
            own.len(),
            first.event.recorded_at.rfc3339(),
            last.event.recorded_at.ms_since(first.event.recorded_at)
        ),
        _ => format!("{stream} has no events of its own here; others speak of it\n\n"),
    };
    steps.iter().for_each(|step| text += &(line(step) + "\n"));
    text
}

/// A step on one line: what happened to the entity stands out, what lies around it is set in.
fn line(step: &Step) -> String {
    let event = &step.event;
    let (outcome, summary) = summarize(&event.kind, &event.payload);
    let time = event.recorded_at.rfc3339();
    let time = time.get(11..23).unwrap_or(&time);
    let outcome = if outcome == "ok" { String::new() } else { format!("{} ", outcome.to_uppercase()) };
    let what = match step.relation {
        Relation::Own => {
            format!("{:>8}  {}: {outcome}{summary}", format!("+{} ms", step.since_ms), event.kind)
        }
        Relation::Effect => {
            format!("{:>8}    led to {}: {}: {outcome}{summary}", "", event.stream, event.kind)
        }
        Relation::Mention => {
            format!("{:>8}    named by {}: {}: {outcome}{summary}", "", event.stream, event.kind)
        }
    };
    let cause = match (&step.cause, step.relation) {
        (Some((position, kind)), Relation::Own) => format!(", because of {kind} at {position}"),
        _ => String::new(),
    };
    let line = format!("{:>6}  {time}  {what}  ({}{cause})", event.position, event.meta.principal);
    harmless(&short(&line))
}

/// Long ids cut to what tells them apart.
fn short(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut digits = 0;
    for c in text.chars() {
        digits = if c.is_ascii_hexdigit() { digits + 1 } else { 0 };
        let is_tail = digits > SHOWN_DIGITS;
        if !is_tail {
            shown.push(c);
        } else if digits == SHOWN_DIGITS + 1 {
            shown.push('…');
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ids_are_cut_and_words_are_not() {
        assert_eq!(
            short("task/tk_20543bbd97f95faebb7cd0756fc16327@3 faded 123"),
            "task/tk_20543bbd…@3 faded 123"
        );
    }

    #[test]
    fn an_id_that_says_its_kind_is_enough() {
        assert_eq!(stream("tk_1").expect("a stream").to_string(), "task/tk_1");
        assert_eq!(stream("pl_1").expect("a stream").to_string(), "pool/pl_1");
        assert_eq!(stream("outbox/ag_1/2").expect("a stream").to_string(), "outbox/ag_1/2");
        assert!(stream("nonsense").is_err());
    }
}
