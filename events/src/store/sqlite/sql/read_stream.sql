-- ?1 stream, ?2 version after which to read, ?3 most events. Answers one text, as `lines.rs` reads it.
SELECT group_concat(line, char(30)) FROM (
    SELECT concat_ws(
        char(31), position, stream, version, kind, schema, hex(event_id), hex(command_id), ordinal, tenant, principal,
        ifnull('+' || correlation_id, '-'), ifnull('+' || causation_id, '-'), ifnull('+' || traceparent, '-'),
        recorded_at, epoch, hex(hash), payload
    ) AS line
    FROM events WHERE stream = ?1 AND version > ?2 ORDER BY version LIMIT ?3
)
