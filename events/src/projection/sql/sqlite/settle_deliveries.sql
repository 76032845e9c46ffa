-- $1 JSON array of [message, recipient, status, detail, when], a message and recipient at most once
UPDATE deliveries SET status = settled.value ->> 2, detail = settled.value ->> 3, at = settled.value ->> 4
FROM json_each($1) AS settled
WHERE deliveries.message = settled.value ->> 0 AND deliveries.recipient = settled.value ->> 1 AND deliveries.status = 'pending'
