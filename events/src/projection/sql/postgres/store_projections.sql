-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO projections (
    name, position, skipped, error
)
SELECT
    new ->> 0, (new ->> 1)::bigint, (new ->> 2)::bigint, new ->> 3
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (name) DO UPDATE
SET
    position = excluded.position, skipped = excluded.skipped, error = excluded.error
