-- ?1 namespace, ?2 key, ?3 stream
INSERT INTO reservations (namespace, key, stream) VALUES (?1, ?2, ?3)
