-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO pools (
    id, tenant, name, status, created, created_at, updated, updated_at, state
)
SELECT
    new ->> 0, new ->> 1, new ->> 2, new ->> 3, (new ->> 4)::bigint, (new ->> 5)::bigint, (new ->> 6)::bigint,
    (new ->> 7)::bigint, new ->> 8
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (id) DO UPDATE
SET
    tenant = excluded.tenant, name = excluded.name, status = excluded.status, created = excluded.created,
    created_at = excluded.created_at, updated = excluded.updated, updated_at = excluded.updated_at,
    state = excluded.state
