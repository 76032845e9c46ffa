SELECT id, joined_at, seen_at, expires_at FROM nodes ORDER BY id
