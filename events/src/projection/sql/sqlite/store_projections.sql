-- $1 JSON array of rows, each the array of the columns below in their order
INSERT OR REPLACE INTO projections (name, position, skipped, error)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3
FROM json_each($1)
