-- $1 JSON array of rows, each the array of the columns below in their order
INSERT OR REPLACE INTO pools (id, tenant, name, status, created, created_at, updated, updated_at, state)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8
FROM json_each($1)
