-- $1 JSON array of messages
SELECT message, recipient, status, detail, at FROM deliveries
WHERE message IN (SELECT value FROM json_each($1)) ORDER BY message, recipient
