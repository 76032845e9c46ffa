-- $1 stream, $2 version after which to read, $3 most events
SELECT position, stream, version, kind, schema, event_id, command_id, ordinal, tenant, principal,
    correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
FROM events WHERE stream = $1 AND version > $2 ORDER BY version LIMIT $3
