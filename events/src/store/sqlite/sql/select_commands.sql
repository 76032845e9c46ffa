-- ?1 JSON array of command ids in hexadecimal
SELECT events.command_id, max(events.position), max(events.version), commands.digest
FROM json_each(?1) AS ids
JOIN events ON events.command_id = unhex(ids.value)
LEFT JOIN commands ON commands.command_id = events.command_id
GROUP BY events.command_id
