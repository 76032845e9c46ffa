-- $1 JSON array of [task, outcome, detail, when], a task at most once. A task has at most one live attempt.
UPDATE attempts SET outcome = ended.value ->> 1, detail = ended.value ->> 2, ended_at = ended.value ->> 3
FROM json_each($1) AS ended
WHERE attempts.task = ended.value ->> 0 AND attempts.outcome IS NULL
