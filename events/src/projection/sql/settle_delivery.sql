-- $1 message, $2 recipient, $3 status, $4 detail, $5 when
UPDATE deliveries SET status = $3, detail = $4, at = $5
WHERE message = $1 AND recipient = $2 AND status = 'pending'
