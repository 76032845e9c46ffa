-- $1 stream, $2 decider, $3 schema of the state, $4 version, $5 hash, $6 state. An older state never replaces a newer
-- one of the same schema.
INSERT INTO snapshots (stream, decider, state_schema, version, hash, state) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (stream, decider) DO UPDATE
SET state_schema = excluded.state_schema, version = excluded.version, hash = excluded.hash, state = excluded.state
WHERE excluded.version > snapshots.version OR excluded.state_schema <> snapshots.state_schema
