-- $1 JSON array of ids
SELECT id, created, created_at, updated, updated_at, state FROM pools WHERE id IN (SELECT value FROM json_each($1))
