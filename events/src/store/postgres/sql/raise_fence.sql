UPDATE head SET fence = fence + 1 WHERE one = 1 RETURNING position, hash, fence
