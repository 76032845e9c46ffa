-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO profiles (
    tenant, name, version, created, created_at, payload
)
SELECT
    new ->> 0, new ->> 1, (new ->> 2)::bigint, (new ->> 3)::bigint, (new ->> 4)::bigint, new ->> 5
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (tenant, name, version) DO UPDATE
SET
    created = excluded.created, created_at = excluded.created_at, payload = excluded.payload
