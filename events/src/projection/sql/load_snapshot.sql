-- $1 stream, $2 decider, $3 schema of the state
SELECT version, hash, state FROM snapshots WHERE stream = $1 AND decider = $2 AND state_schema = $3
