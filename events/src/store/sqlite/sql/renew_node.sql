-- ?1 node, ?2 now, ?3 until when, in microseconds
INSERT INTO nodes (id, joined_at, seen_at, expires_at) VALUES (?1, ?2, ?2, ?3)
ON CONFLICT (id) DO UPDATE SET
    joined_at = CASE WHEN expires_at <= ?2 THEN ?2 ELSE joined_at END,
    seen_at = ?2,
    expires_at = ?3
