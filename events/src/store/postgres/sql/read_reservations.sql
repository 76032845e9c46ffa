-- $1 namespace and $2 key after which to read, empty for the beginning; $3 most
SELECT namespace, key, stream FROM reservations WHERE (namespace, key) > ($1, $2) ORDER BY namespace, key LIMIT $3
