-- ?1 node
UPDATE nodes SET expires_at = 0 WHERE id = ?1
