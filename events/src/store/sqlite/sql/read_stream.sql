-- ?1 stream, ?2 version after which to read, ?3 most events
SELECT * FROM events WHERE stream = ?1 AND version > ?2 ORDER BY version LIMIT ?3
