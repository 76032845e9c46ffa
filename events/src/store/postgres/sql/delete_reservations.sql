-- $1 namespaces, $2 keys
DELETE FROM reservations USING unnest($1::text[], $2::text[]) AS freed (namespace, key)
WHERE reservations.namespace = freed.namespace AND reservations.key = freed.key
