-- $1 JSON array of messages
SELECT message, recipient, status, detail, at FROM deliveries
WHERE message IN (SELECT json_array_elements_text($1::json)) ORDER BY message, recipient
