-- $1 namespaces, $2 keys. Answers those that are taken.
SELECT reservations.namespace, reservations.key, reservations.stream
FROM unnest($1::text[], $2::text[]) AS wanted (namespace, key)
JOIN reservations ON reservations.namespace = wanted.namespace AND reservations.key = wanted.key
