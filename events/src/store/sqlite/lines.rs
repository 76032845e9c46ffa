//! Events as the read statements give them: one text for a whole page, a line per event, a field per column.
//!
//! Lines are separated by U+001E and fields by U+001F. Neither can stand in an event: the store refuses control
//! characters in every text, and JSON allows none of these two anywhere. A page in one value is read several
//! times as fast as rows of seventeen values, each of which the driver allocates and sends by itself.

use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::{Meta, Recorded};
use crate::id::{CommandId, EventId, Position, Timestamp, Version};
use crate::store::ReadError;
use crate::store::columns::{is_stream, shared};

const LINE_END: char = '\u{1e}';
const FIELD_END: char = '\u{1f}';

/// The events of a page.
pub(super) fn events(page: &str) -> Result<Vec<Recorded>, ReadError> {
    let mut events: Vec<Recorded> = Vec::new();
    for line in page.split(LINE_END) {
        let event = event(line, events.last()).map_err(|reason| ReadError::Damaged {
            position: line
                .split(FIELD_END)
                .next()
                .and_then(|field| field.parse().ok())
                .map_or_else(|| events.last().map_or(Position(1), |last| last.position.next()), Position),
            reason: reason.into(),
        })?;
        events.push(event);
    }
    Ok(events)
}

struct Fields<'a>(std::str::SplitN<'a, char>);

impl<'a> Fields<'a> {
    fn text(&mut self) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| "a column is missing".to_owned())
    }

    fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T, String> {
        self.text()?.parse().map_err(|error: T::Err| error.to_string())
    }

    fn uuid(&mut self) -> Result<Uuid, String> {
        Uuid::try_parse(self.text()?).map_err(|error| error.to_string())
    }

    fn optional(&mut self, before: Option<&Arc<str>>) -> Result<Option<Arc<str>>, String> {
        Ok(self.text()?.strip_prefix('+').map(|text| shared(text, before)))
    }

    /// A value that is parsed only if it differs from that of the event before.
    fn same<T: Clone + FromStr<Err: std::fmt::Display>>(
        &mut self,
        before: Option<&T>,
        is: impl Fn(&T, &str) -> bool,
    ) -> Result<T, String> {
        let text = self.text()?;
        match before {
            Some(before) if is(before, text) => Ok(before.clone()),
            _ => text.parse().map_err(|error: T::Err| error.to_string()),
        }
    }
}

fn event(line: &str, before: Option<&Recorded>) -> Result<Recorded, String> {
    let mut fields = Fields(line.splitn(17, FIELD_END));
    let meta = before.map(|before| &before.meta);
    Ok(Recorded {
        position: Position(fields.parsed()?),
        stream: fields.same(before.map(|before| &before.stream), is_stream)?,
        version: Version(fields.parsed()?),
        kind: shared(fields.text()?, before.map(|before| &before.kind)),
        schema: fields.parsed()?,
        event_id: EventId(fields.uuid()?),
        command_id: CommandId(fields.uuid()?),
        ordinal: fields.parsed()?,
        meta: Meta {
            tenant: fields.same(meta.map(|meta| &meta.tenant), |tenant, text| tenant.as_str() == text)?,
            principal: fields
                .same(meta.map(|meta| &meta.principal), |principal, text| principal.as_str() == text)?,
            correlation_id: fields.optional(meta.and_then(|meta| meta.correlation_id.as_ref()))?,
            causation_id: fields.optional(meta.and_then(|meta| meta.causation_id.as_ref()))?,
            traceparent: fields.optional(meta.and_then(|meta| meta.traceparent.as_ref()))?,
        },
        recorded_at: Timestamp(fields.parsed()?),
        epoch: fields.parsed()?,
        hash: fields.parsed()?,
        payload: fields.text()?.into(),
    })
}
