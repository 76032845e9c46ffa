//! Events in the words of other tools. A translation beside the evidence, never instead of it.

use serde_json::{Value, json};

use crate::event::Recorded;
use crate::projection::summarize;

/// The version of OCSF that is written.
const OCSF: &str = "1.8.0";
/// OCSF's class *API Activity* and its category *Application Activity*.
const API_ACTIVITY: u32 = 6003;
const APPLICATION_ACTIVITY: u32 = 6;
/// OCSF's activity *Other*.
const OTHER: u32 = 99;

/// A form of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Only the evidence itself.
    #[default]
    Jsonl,
    /// CloudEvents 1.0 too.
    CloudEvents,
    /// OCSF too.
    Ocsf,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Jsonl, Self::CloudEvents, Self::Ocsf];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::CloudEvents => "cloudevents",
            Self::Ocsf => "ocsf",
        }
    }

    /// The file of the translation.
    pub(super) fn file(self) -> Option<&'static str> {
        match self {
            Self::Jsonl => None,
            Self::CloudEvents => Some("events.cloudevents.jsonl"),
            Self::Ocsf => Some("events.ocsf.jsonl"),
        }
    }

    /// An event as one line of that file.
    pub(super) fn line(self, event: &Recorded) -> String {
        match self {
            Self::Jsonl => String::new(),
            Self::CloudEvents => cloud_event(event).to_string(),
            Self::Ocsf => ocsf(event).to_string(),
        }
    }
}

fn payload(event: &Recorded) -> Value {
    serde_json::from_str(&event.payload).unwrap_or(Value::Null)
}

/// With the same attributes that the events have in JetStream.
fn cloud_event(event: &Recorded) -> Value {
    let meta = &event.meta;
    let mut attributes = json!({
        "specversion": "1.0",
        "id": event.event_id,
        "source": "urn:hypercode:log",
        "type": format!("dev.hypercode.{}", event.kind),
        "subject": event.stream,
        "time": event.recorded_at.rfc3339(),
        "dataschema": format!("urn:hypercode:event:{}:{}", event.kind, event.schema),
        "datacontenttype": "application/json",
        "position": event.position.to_string(),
        "version": event.version.to_string(),
        "commandid": event.command_id,
        "ordinal": event.ordinal.to_string(),
        "tenant": meta.tenant,
        "principal": meta.principal,
        "epoch": event.epoch.to_string(),
        "hash": event.hash,
        "data": payload(event),
    });
    for (name, value) in [
        ("correlationid", &meta.correlation_id),
        ("causationid", &meta.causation_id),
        ("traceparent", &meta.traceparent),
    ] {
        if let Some(value) = value {
            attributes[name] = value.as_ref().into();
        }
    }
    attributes
}

fn ocsf(event: &Recorded) -> Value {
    let (outcome, summary) = summarize(&event.kind, &event.payload);
    let (severity, status) = match outcome {
        "ok" => (1, 1),
        "failed" => (3, 2),
        _ => (4, 2),
    };
    json!({
        "metadata": {
            "version": OCSF,
            "product": {"name": "HyperCode", "vendor_name": "HyperCode"},
            "uid": event.event_id,
            "sequence": event.position,
            "correlation_uid": event.meta.correlation_id,
            "tenant_uid": event.meta.tenant,
        },
        "category_uid": APPLICATION_ACTIVITY,
        "class_uid": API_ACTIVITY,
        "activity_id": OTHER,
        "activity_name": &*event.kind,
        "type_uid": API_ACTIVITY * 100 + OTHER,
        "time": event.recorded_at.millis(),
        "severity_id": severity,
        "status_id": status,
        "status_detail": outcome,
        "message": summary,
        "actor": {"user": {"uid": event.meta.principal}},
        "api": {"operation": &*event.kind, "service": {"name": "hypercode"}},
        "src_endpoint": {"svc_name": "hypercode"},
        "resources": [{"uid": event.stream, "type": event.stream.kind}],
        "unmapped": {
            "causation": event.meta.causation_id,
            "traceparent": event.meta.traceparent,
            "version": event.version,
            "hash": event.hash,
            "payload": payload(event),
        },
    })
}
