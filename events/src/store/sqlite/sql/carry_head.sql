-- ?1 the head's position before, ?2 position, ?3 hash, ?4 the fence that is carried over
UPDATE head SET position = ?2, hash = ?3, fence = max(fence, ?4) + 1 WHERE one = 1 AND position = ?1
