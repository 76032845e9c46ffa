-- $1 JSON array of [task, outcome, detail, when], a task at most once. A task has at most one live attempt.
UPDATE attempts SET outcome = new ->> 1, detail = new ->> 2, ended_at = (new ->> 3)::bigint
FROM json_array_elements($1::json) AS rows (new)
WHERE attempts.task = new ->> 0 AND attempts.outcome IS NULL
