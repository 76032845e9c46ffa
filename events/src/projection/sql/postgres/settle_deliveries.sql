-- $1 JSON array of [message, recipient, status, detail, when], a message and recipient at most once
UPDATE deliveries SET status = new ->> 2, detail = new ->> 3, at = (new ->> 4)::bigint
FROM json_array_elements($1::json) AS rows (new)
WHERE deliveries.message = new ->> 0 AND deliveries.recipient = new ->> 1 AND deliveries.status = 'pending'
