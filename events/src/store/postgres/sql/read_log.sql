-- $1 position after which to read, $2 most events
SELECT position, stream, version, kind, schema, event_id, command_id, ordinal, tenant, principal,
    correlation_id, causation_id, traceparent, recorded_at, epoch, payload, hash
FROM events WHERE position > $1 ORDER BY position LIMIT $2
