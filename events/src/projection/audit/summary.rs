//! What happened, in a line for a person: a template per kind, filled from the event's payload.

use serde_json::Value;

/// Most characters that a value from a payload may take in a summary.
const VALUE_CHARS_MAX: usize = 160;

const OK: &str = "ok";
const FAILED: &str = "failed";
const DENIED: &str = "denied";

/// Kind, outcome and template. `{a.b}` is the value of field `b` of `a`; `{a.#}` is the length of the list `a`.
const SUMMARIES: &[(&str, &str, &str)] = &[
    ("profile_applied", OK, "profile {name} has version {version}"),
    ("pool_applied", OK, "pool {name} has version {version}"),
    ("pool_resized", OK, "{size.min} to {size.max} sandboxes stand by"),
    ("pool_drained", OK, "nothing stands by: {reason}"),
    ("pool_degraded", FAILED, "{failures} sandboxes in a row did not come up: {detail}"),
    ("pool_recovered", OK, "sandboxes come up again"),
    ("standby_requested", OK, "{sandbox_kind} sandbox {sandbox} is to stand by"),
    ("standby_ready", OK, "{sandbox} stands by after {took_ms} ms"),
    ("standby_claimed", OK, "{agent} incarnation {incarnation} has claimed {sandbox}"),
    ("standby_failed", FAILED, "{sandbox} did not come up: {detail}"),
    ("standby_dirty", OK, "{sandbox} is not used: {reason}"),
    ("standby_released", OK, "{sandbox} has served"),
    ("standby_destroyed", OK, "{sandbox} is gone"),
    ("crew_assembly_started", OK, "crew {name} is brought up with {seats.#} agents"),
    ("crew_assembled", OK, "every member is ready"),
    ("crew_assembly_failed", FAILED, "not every member came up: {reason}"),
    ("crew_scaled", OK, "member {member} gets {added.#} agents and gives up {removed.#}"),
    ("crew_paused", OK, "no tasks are given out"),
    ("crew_resumed", OK, "tasks are given out again"),
    ("crew_draining", OK, "no new tasks are taken"),
    ("crew_disbanding", OK, "the crew ends: {reason}"),
    ("crew_disbanded", OK, "nothing of the crew is left"),
    ("crew_killed", OK, "the crew is killed by {by}: {reason}"),
    ("restart_scheduled", FAILED, "{failed} ended ({exit}); {agents.#} agents restart in {delay_ms} ms"),
    ("restart_completed", OK, "{agent} is ready again as incarnation {incarnation} after {took_ms} ms"),
    ("restarts_exhausted", FAILED, "{failed} failed too often: {action}"),
    ("agent_let_go", OK, "{agent} is not started again: it ended ({exit})"),
    ("agent_condemned", OK, "{agent} is to be killed by {killed.by}: {killed.reason}"),
    ("agent_set_aside", FAILED, "{agent} is counted on no longer: it was quarantined"),
    ("agent_woke", OK, "{agent} is ready again as incarnation {incarnation}"),
    ("budget_exhausted", FAILED, "{used} of {limit} {what} are used up: {on_breach}"),
    (
        "budget_raised",
        OK,
        "the crew may use more: tokens {tokens}, messages {messages}, milliseconds {wall_ms}",
    ),
    ("agent_requested", OK, "{member}[{replica}] is wanted with profile {profile} version {profile_version}"),
    ("sandbox_claimed", OK, "incarnation {incarnation} gets {sandbox_kind} sandbox {sandbox}"),
    ("agent_warming", OK, "incarnation {incarnation} is linked"),
    ("agent_ready", OK, "incarnation {incarnation} is ready"),
    ("agent_hibernating", OK, "incarnation {incarnation} ends until there is something to do"),
    ("agent_unhealthy", FAILED, "incarnation {incarnation} ended ({exit}): {detail}"),
    ("agent_recovering", OK, "incarnation {incarnation} follows"),
    ("agent_draining", OK, "no more work is taken: {reason}"),
    ("agent_quarantined", FAILED, "set aside: {reason}"),
    ("agent_failed", FAILED, "given up: {reason}"),
    ("agent_terminated", OK, "ended: {reason}"),
    ("agent_killed", OK, "killed by {by}: {reason}"),
    ("secret_resolved", OK, "incarnation {incarnation} gets secret {name} from {source} {reference}"),
    ("agent_log_kept", OK, "{bytes} bytes of what incarnation {incarnation} wrote are kept"),
    ("agent_logs_erased", OK, "nothing is kept of what it wrote up to incarnation {to}"),
    ("task_submitted", OK, "{from} asks {member}"),
    ("attempt_started", OK, "attempt {attempt} by {agent} incarnation {incarnation}"),
    ("attempt_ended", FAILED, "attempt {attempt} ended ({ended}): {detail}"),
    ("task_progressed", OK, "{message} {progress}/{total}"),
    ("task_checkpointed", OK, "attempt {attempt} wrote a checkpoint"),
    ("child_delegated", OK, "{to} gets {child} under key {key}"),
    ("input_requested", OK, "question {key} is open"),
    ("input_answered", OK, "question {key}: {answer.action} by {answer.by}"),
    ("cancel_requested", OK, "it is called off: {reason}"),
    ("task_completed", OK, "attempt {attempt} completed it"),
    ("task_failed", FAILED, "{message}"),
    ("task_canceled", OK, "called off: {reason}"),
    ("task_rejected", FAILED, "the handler would not: {message}"),
    ("task_dead_lettered", FAILED, "tried as often as allowed ({ended}): {message}"),
    ("task_retried", OK, "it is tried again"),
    (
        "result_refused",
        DENIED,
        "a result of attempt {attempt} came under fence {fence}, which was over; the newest is {newest}",
    ),
    ("usage_reported", OK, "{agent} says that it used models"),
    ("message_sent", OK, "{from.member}[{from.replica}] to {to}: {message}"),
    ("messages_acked", OK, "{by.member}[{by.replica}] took {taken.#} and left {unhandled.#}"),
    ("message_dead_lettered", FAILED, "{message} was given up after {deliveries} deliveries ({reason})"),
    ("message_denied", DENIED, "{from.member}[{from.replica}] to {to}, {count} times ({reason}): {rule}"),
    ("delegate_denied", DENIED, "{from.member}[{from.replica}] to {to}, {count} times ({reason}): {rule}"),
    ("frame_refused", DENIED, "{from.member}[{from.replica}] named its own `{field}`, {count} times"),
    ("artifact_granted", OK, "{agent.member}[{agent.replica}] may read {digest} ({reason})"),
    ("artifact_kept", OK, "{digest} is kept, {bytes} bytes"),
    ("state_put", OK, "{by.member}[{by.replica}] wrote {scope} key {key} version {version}"),
    ("access_denied", DENIED, "{permission} was denied {count} times: {reason}"),
    ("audit_exported", OK, "evidence from position {from} on, as {format}"),
    ("projection_rebuilt", OK, "views are made again: {name}"),
    (
        "subject_erased",
        OK,
        "key {key} of a data subject is destroyed, with {tasks} tasks and {artifacts} artifacts: {reason}",
    ),
    ("platform_started", OK, "{node} starts, version {version}; after a crash: {after_crash}"),
    ("platform_stopped", OK, "{node} stops"),
    ("key_created", OK, "{node} made {key} with fingerprint {fingerprint}"),
    ("settings_changed", OK, "{node} is set up otherwise in {changed.#} settings"),
    ("schema_migrated", OK, "the log has the schema of version {version}"),
    ("sandbox_tampered", DENIED, "{sandbox} was tampered with ({what}), {count} times: {detail}"),
    ("tenant_killed", OK, "{crews.#} crews of tenant {tenant} are killed by {killed.by}: {killed.reason}"),
    ("token_minted", OK, "{holder} gets token {token}: {purpose}"),
    ("token_revoked", OK, "token {token} opens nothing any more: {reason}"),
    ("role_granted", OK, "{principal} has the role {role}"),
    ("role_revoked", OK, "{principal} has the role {role} no longer"),
    ("agent_issuer_named", OK, "tokens of agents are issued by {issuer}"),
    ("agent_key_made", OK, "key {key} will sign tokens of agents"),
    ("agent_key_activated", OK, "key {key} signs tokens of agents"),
    ("agent_key_retired", OK, "key {key} signs tokens of agents no longer: {reason}"),
    ("agent_key_revoked", OK, "key {key} is accepted no longer: {reason}"),
    ("secret_set", OK, "secret {name} has a value, version {version}"),
    ("secret_deleted", OK, "secret {name} has no value any more: {reason}"),
];

/// The outcome and the template of a kind; `None` for one that is not known.
pub(super) fn of(kind: &str) -> Option<(&'static str, &'static str)> {
    let found = SUMMARIES.iter().find(|(known, ..)| *known == kind)?;
    Some((found.1, found.2))
}

/// Fills a template from a payload. A field that is not there leaves nothing behind.
pub(super) fn fill(template: &str, payload: &Value) -> String {
    let mut text = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (path, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        text.push_str(&value(path, payload));
        rest = after;
    }
    text.push_str(rest);
    text
}

fn value(path: &str, payload: &Value) -> String {
    let mut found = payload;
    for field in path.split('.') {
        match (field, found) {
            ("#", Value::Array(list)) => return list.len().to_string(),
            _ => found = found.get(field).unwrap_or(&Value::Null),
        }
    }
    let text = match found {
        Value::Null => String::new(),
        Value::String(text) => crate::seal::covered(text).to_owned(),
        other => other.to_string(),
    };
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(VALUE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain;

    #[test]
    fn every_kind_has_a_summary() {
        let known: Vec<&str> = domain::kinds().collect();
        let summarised: Vec<&str> = SUMMARIES.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(summarised, known);
    }

    #[test]
    fn templates_are_filled_from_the_payload() {
        let payload = json!({"a": {"b": "x\ny"}, "list": [1, 2], "n": 1.5, "long": "y".repeat(999)});
        assert_eq!(fill("{a.b} {list.#} {n} {none}.", &payload), "x y 2 1.5 .");
        assert_eq!(fill("{long}", &payload).len(), VALUE_CHARS_MAX);
        let sealed = json!({"reason": "sealed:1:k_1:AAAA"});
        assert_eq!(fill("it is called off: {reason}", &sealed), "it is called off: [sealed]");
        assert_eq!(fill("no field", &json!(null)), "no field");
    }
}
