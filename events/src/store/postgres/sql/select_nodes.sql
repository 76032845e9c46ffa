SELECT id, joined_at, seen_at, expires_at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM nodes ORDER BY id COLLATE "C"
