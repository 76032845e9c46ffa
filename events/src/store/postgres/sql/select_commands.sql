-- $1 command ids. Answers those that were appended.
SELECT events.command_id, max(events.position), max(events.version), commands.digest
FROM events LEFT JOIN commands ON commands.command_id = events.command_id
WHERE events.command_id = ANY ($1)
GROUP BY events.command_id, commands.digest
