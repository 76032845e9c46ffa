-- $1 command id. Answers one row, of nulls where the command is not known.
SELECT max(position), max(version) FROM events WHERE command_id = $1
