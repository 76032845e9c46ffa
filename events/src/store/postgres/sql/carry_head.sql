-- $1 the head's position before, $2 its fence, $3 position, $4 hash, $5 the fence that is carried over
UPDATE head SET position = $3, hash = $4, fence = greatest(fence, $5) + 1
WHERE one = 1 AND position = $1 AND fence = $2
