-- ?1 position after which to read, ?2 most events. Answers one text, as `lines.rs` reads it.
SELECT group_concat(line, char(30)) FROM (
    SELECT concat_ws(
        char(31), position, stream, version, kind, schema, hex(event_id), hex(command_id), ordinal, tenant, principal,
        ifnull('+' || correlation_id, '-'), ifnull('+' || causation_id, '-'), ifnull('+' || traceparent, '-'),
        recorded_at, epoch, hex(hash), payload
    ) AS line
    FROM events WHERE position > ?1 ORDER BY position LIMIT ?2
)
