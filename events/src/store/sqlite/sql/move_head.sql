-- ?1 the head's position before, ?2 position, ?3 hash
UPDATE head SET position = ?2, hash = ?3 WHERE one = 1 AND position = ?1
