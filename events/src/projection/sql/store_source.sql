-- $1 position, $2 hash. While a view is made again, the farthest position stays.
INSERT INTO source (one, position, hash) VALUES (1, $1, $2)
ON CONFLICT (one) DO UPDATE SET position = excluded.position, hash = excluded.hash
WHERE excluded.position > source.position
