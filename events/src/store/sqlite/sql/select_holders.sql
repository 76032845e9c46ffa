-- ?1 JSON array of [namespace, key]
SELECT namespace, key, stream FROM reservations
WHERE (namespace, key) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))
