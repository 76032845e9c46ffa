-- $1 task, $2 fence, $3 number, $4 agent, $5 incarnation, $6 when
INSERT INTO attempts (task, fence, number, agent, incarnation, started_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (task, fence) DO UPDATE
SET number = excluded.number, agent = excluded.agent, incarnation = excluded.incarnation,
    started_at = excluded.started_at, ended_at = NULL, outcome = NULL, detail = NULL
