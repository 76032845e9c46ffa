-- $1 task, $2 outcome, $3 detail, $4 when. A task has at most one live attempt.
UPDATE attempts SET outcome = $2, detail = $3, ended_at = $4 WHERE task = $1 AND outcome IS NULL
