-- $1 namespaces, $2 keys, $3 streams
INSERT INTO names_aside (namespace, key, stream) SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
