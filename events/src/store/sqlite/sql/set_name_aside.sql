-- ?1 namespace, ?2 key, ?3 stream
INSERT INTO temp.names_aside (namespace, key, stream) VALUES (?1, ?2, ?3)
