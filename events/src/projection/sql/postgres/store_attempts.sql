-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO attempts (
    task, fence, number, agent, incarnation, started_at, ended_at, outcome, detail
)
SELECT
    new ->> 0, (new ->> 1)::bigint, (new ->> 2)::bigint, new ->> 3, (new ->> 4)::bigint, (new ->> 5)::bigint,
    (new ->> 6)::bigint, new ->> 7, new ->> 8
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (task, fence) DO UPDATE
SET
    number = excluded.number, agent = excluded.agent, incarnation = excluded.incarnation,
    started_at = excluded.started_at, ended_at = excluded.ended_at, outcome = excluded.outcome,
    detail = excluded.detail
