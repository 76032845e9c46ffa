-- $1 command id after which to read, null for the beginning; $2 most
SELECT command_id, digest FROM commands
WHERE command_id > coalesce($1, '00000000-0000-0000-0000-000000000000') ORDER BY command_id LIMIT $2
