-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO messages (
    id, tenant, crew, sender, created, created_at, payload
)
SELECT
    new ->> 0, new ->> 1, new ->> 2, new ->> 3, (new ->> 4)::bigint, (new ->> 5)::bigint, new ->> 6
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (id) DO UPDATE
SET
    tenant = excluded.tenant, crew = excluded.crew, sender = excluded.sender, created = excluded.created,
    created_at = excluded.created_at, payload = excluded.payload
