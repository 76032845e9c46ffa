-- $1 namespace, $2 key
SELECT stream FROM reservations WHERE namespace = $1 AND key = $2
