//! Checks of a crew across its fields.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::check::profile::repeated;
use crate::decode::At;
use crate::fault::{Code, Fault, Faults, quoted};
use crate::nearest::nearest;
use crate::{ChannelKind, CrewSpec, Millis};

pub(crate) fn crew(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    // Without a list of members every reference would be unknown, which says nothing new.
    if !spec.members.is_empty() {
        members(spec, at, faults);
        channels(spec, at, faults);
        cycles(spec, &at.field("channels"), faults);
        reach(spec, at, faults);
    }
    supervision(spec, at, faults);
    liveness(spec, at, faults);
    lifetime(spec, at, faults);
    gates(spec, at, faults);
}

fn members(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    repeated(spec.members.iter().map(|member| member.name.as_str()), &at.field("members"), "name", faults);
    known_member(spec, &spec.entry, &at.field("entry"), faults);
}

/// Reports a reference to a member that the crew does not have.
fn known_member(spec: &CrewSpec, name: &str, at: &At<'_>, faults: &mut Faults) {
    if name.is_empty() || spec.member(name).is_some() {
        return;
    }
    let mut names: Vec<&str> = Vec::new();
    for name in spec.members.iter().map(|member| member.name.as_str()).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let fault = at.error(Code::UnknownMember, format!("the members are {}", names.join(", ")));
    at.report(fault.nearest(nearest(name, names)), faults);
}

fn channels(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    let mut carried = BTreeMap::new();
    for (index, channel) in spec.channels.iter().enumerate() {
        let at = at.field("channels").item(index);
        known_member(spec, &channel.from, &at.field("from"), faults);
        known_member(spec, &channel.to, &at.field("to"), faults);
        if channel.from.is_empty() || channel.to.is_empty() {
            continue;
        }
        if channel.from == channel.to {
            let at = at.field("to");
            at.report(at.error(Code::SelfChannel, "expected two different members"), faults);
        }
        for kind in &channel.kinds {
            if let Some(first) = carried.insert((&channel.from, &channel.to, kind), index)
                && first != index
            {
                let found = format!("{} -> {} for {}", channel.from, channel.to, kind.as_str());
                let fault = Fault::error(
                    Code::Duplicate,
                    &at.path,
                    format!("spec.channels[{first}] carries it already"),
                );
                at.report(fault.found(found), faults);
            }
        }
    }
}

/// Warns of cycles of task channels until every channel that lies on any is in one that was reported. They are
/// allowed: the limits of depth and the refusal of deadlocks bound them.
fn cycles(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    let edges = edges(spec, |kinds| kinds.contains(&ChannelKind::Task));
    let mut reported = BTreeSet::new();
    for (index, channel) in spec.channels.iter().enumerate() {
        let (from, to) = (channel.from.as_str(), channel.to.as_str());
        if from == to || !channel.kinds.contains(&ChannelKind::Task) || reported.contains(&(from, to)) {
            continue;
        }
        let Some(back) = shortest_path(&edges, to, from) else { continue };
        reported.insert((from, to));
        reported.extend(back.iter().zip(&back[1..]).map(|(from, to)| (*from, *to)));
        let at = at.item(index);
        let expected = "tasks may wait for each other; maxDepth bounds how deep they nest";
        let fault = Fault::warning(Code::TaskCycle, &at.path, expected);
        at.report(fault.found(format!("{from} -> {}", back.join(" -> "))), faults);
    }
}

/// Warns of members that nothing can reach.
fn reach(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    if spec.member(&spec.entry).is_none() || faults.any_below("spec.channels") {
        return;
    }
    let edges = edges(spec, |kinds| !kinds.is_empty());
    for (index, member) in spec.members.iter().enumerate().filter(|(_, member)| !member.name.is_empty()) {
        if shortest_path(&edges, &spec.entry, &member.name).is_none() {
            let at = at.field("members").item(index).field("name");
            let expected = format!("no channels lead to it from the entry {}", spec.entry);
            let fault = Fault::warning(Code::Unreachable, &at.path, expected);
            at.report(fault.found(quoted(&member.name)), faults);
        }
    }
}

type Edges<'s> = BTreeMap<&'s str, BTreeSet<&'s str>>;

fn edges(spec: &CrewSpec, carries: impl Fn(&[ChannelKind]) -> bool) -> Edges<'_> {
    let mut edges = Edges::new();
    for channel in spec.channels.iter().filter(|channel| carries(&channel.kinds)) {
        edges.entry(&channel.from).or_default().insert(&channel.to);
    }
    edges
}

/// The members on a shortest way, both ends included.
fn shortest_path<'s>(edges: &Edges<'s>, from: &'s str, to: &'s str) -> Option<Vec<&'s str>> {
    let mut came_from = BTreeMap::from([(from, from)]);
    let mut waiting = VecDeque::from([from]);
    while let Some(member) = waiting.pop_front() {
        if member == to {
            let mut path = vec![member];
            while let Some(previous) =
                path.last().and_then(|last| came_from.get(last)).filter(|p| path.last() != Some(p))
            {
                path.push(previous);
            }
            path.reverse();
            return Some(path);
        }
        for next in edges.get(member).into_iter().flatten() {
            came_from.entry(next).or_insert_with(|| {
                waiting.push_back(next);
                member
            });
        }
    }
    None
}

fn supervision(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    let backoff = &spec.supervision.backoff;
    let at = at.field("supervision").field("backoff");
    let (initial, max) = (at.field("initial"), at.field("max"));
    let is_known = !faults.any_below(&initial.path) && !faults.any_below(&max.path);
    if is_known && backoff.initial > backoff.max {
        let expected = format!("expected at most the longest wait, {}", backoff.max);
        longer(&initial, backoff.initial, expected, faults);
    }
}

fn liveness(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    let liveness = &spec.liveness;
    let at = at.field("liveness");
    if faults.any_below(&at.path) {
        return;
    }
    let lost = Millis::new(liveness.heartbeat.as_millis() * u64::from(liveness.missed));
    let reason =
        format!("an agent is lost after {} missed heartbeats of {}", liveness.missed, liveness.heartbeat);
    for (field, value) in [("progress", liveness.progress), ("orphanGrace", liveness.orphan_grace)] {
        if value <= lost {
            longer(&at.field(field), value, format!("expected more than {lost}: {reason}"), faults);
        }
    }
}

/// Warns of a budget of time that the crew's end comes before.
fn lifetime(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    let at = at.field("budget").field("wallTime");
    if let (Some(ttl), Some(wall_time)) = (spec.ttl, spec.budget.wall_time)
        && wall_time > ttl
    {
        let expected = format!("it is never used up, since the crew disbands after its ttl of {ttl}");
        at.report(Fault::warning(Code::Conflict, &at.path, expected).found(wall_time.to_string()), faults);
    }
}

/// Warns of gates that no agent gets through.
fn gates(spec: &CrewSpec, at: &At<'_>, faults: &mut Faults) {
    if spec.gym.as_ref().is_some_and(|gym| !gym.require.is_empty()) {
        let at = at.field("gym").field("require");
        let expected = "no agent can get a certificate yet, so assembly refuses the crew";
        at.report(Fault::warning(Code::NotHeld, &at.path, expected), faults);
    }
}

fn longer(at: &At<'_>, found: Millis, expected: String, faults: &mut Faults) {
    at.report(Fault::error(Code::Conflict, &at.path, expected).found(found.to_string()), faults);
}
