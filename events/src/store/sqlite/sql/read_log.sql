-- ?1 position after which to read, ?2 most events
SELECT * FROM events WHERE position > ?1 ORDER BY position LIMIT ?2
