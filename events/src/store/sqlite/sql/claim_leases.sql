-- ?1 node, ?2 shards that are left alone, ?3 most, ?4 now, ?5 until when, in microseconds
UPDATE leases SET holder = ?1, epoch = epoch + 1, expires_at = ?5
WHERE shard IN (
    SELECT shard FROM leases
    WHERE (expires_at <= ?4 OR holder = ?1) AND shard NOT IN (SELECT value FROM json_each(?2))
    ORDER BY holder <> ?1, shard
    LIMIT ?3
)
RETURNING shard, epoch
