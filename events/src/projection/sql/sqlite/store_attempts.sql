-- $1 JSON array of rows, each the array of the columns below in their order
INSERT OR REPLACE INTO attempts (task, fence, number, agent, incarnation, started_at, ended_at, outcome, detail)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, value ->> 8
FROM json_each($1)
