-- $1 JSON array of rows, each the array of the columns below in their order
INSERT OR REPLACE INTO profiles (tenant, name, version, created, created_at, payload)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
FROM json_each($1)
