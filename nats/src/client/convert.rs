//! Between our types and the client's.

use std::error::Error as _;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{RequestError, RequestErrorKind};
use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use crate::bus::BusError;
use crate::message::{Headers, Message};
use crate::subject::Subject;

fn refused(reason: impl Into<Arc<str>>) -> BusError {
    BusError::Refused { reason: reason.into() }
}

pub(super) fn headers(headers: &Headers) -> Result<HeaderMap, BusError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        let illegal = || refused(format!("the header `{}` is not legal", name.escape_debug()));
        let name = HeaderName::from_str(name).map_err(|_| illegal())?;
        map.append(name, HeaderValue::from_str(value).map_err(|_| illegal())?);
    }
    Ok(map)
}

pub(super) fn kept(subject: &str, map: &HeaderMap, body: Bytes) -> Result<Message, BusError> {
    let illegal = |error: crate::subject::InvalidSubject| refused(error.to_string());
    let mut message = Message::new(subject.parse().map_err(illegal)?, body);
    for (name, values) in map.iter() {
        for value in values {
            message.headers.push(name.to_string().into(), value.as_str().to_owned());
        }
    }
    Ok(message)
}

pub(super) fn message(message: async_nats::Message) -> Result<Message, BusError> {
    let mut converted = kept(&message.subject, &message.headers.unwrap_or_default(), message.payload)?;
    converted.reply = message.reply.and_then(|reply| reply.parse().ok());
    Ok(converted)
}

fn ms(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn request_error(error: &RequestError, subject: Subject, limit: Duration) -> BusError {
    match error.kind() {
        RequestErrorKind::TimedOut => BusError::Timeout { subject, ms: ms(limit) },
        RequestErrorKind::NoResponders => BusError::Unheard { subject },
        RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => refused(error.to_string()),
        RequestErrorKind::Other => BusError::unavailable(error.to_string()),
    }
}

pub(super) fn append_error(
    error: &PublishError,
    stream: &Arc<str>,
    subject: Subject,
    limit: Duration,
) -> BusError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            BusError::Moved { stream: Arc::clone(stream), reason: reason.into() }
        }
        // The stream that was there has gone.
        PublishErrorKind::StreamNotFound => {
            BusError::Moved { stream: Arc::clone(stream), reason: "no stream keeps the subject".into() }
        }
        PublishErrorKind::TimedOut => BusError::Timeout { subject, ms: ms(limit) },
        PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::Other => refused(error.to_string()),
        PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => {
            BusError::unavailable(error.to_string())
        }
    }
}

pub(super) fn stream_error(error: &CreateStreamError) -> BusError {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => refused(format!("open the stream: {error}")),
        CreateStreamErrorKind::JetStreamUnavailable => {
            refused("the server has no JetStream; start it with `-js` or a `jetstream` block")
        }
        _ => BusError::unavailable(format!("open the stream: {error}")),
    }
}
