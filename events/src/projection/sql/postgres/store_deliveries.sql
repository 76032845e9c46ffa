-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO deliveries (
    message, recipient, status, at
)
SELECT
    new ->> 0, new ->> 1, new ->> 2, (new ->> 3)::bigint
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (message, recipient) DO UPDATE
SET
    status = excluded.status, at = excluded.at
