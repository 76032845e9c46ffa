-- $1 command id after which to read, null for the beginning; $2 most
SELECT command_id, digest FROM commands WHERE $1 IS NULL OR command_id > $1 ORDER BY command_id LIMIT $2
