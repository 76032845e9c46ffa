-- $1 name, $2 position, $3 skipped, $4 error
INSERT INTO projections (name, position, skipped, error) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE
SET position = excluded.position, skipped = excluded.skipped, error = excluded.error
