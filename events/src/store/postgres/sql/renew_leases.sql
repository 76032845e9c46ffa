-- $1 node, $2 shards, $3 their epochs, $4 how long, in microseconds
WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
node AS (
    INSERT INTO nodes (id, joined_at, seen_at, expires_at)
    SELECT $1, clock.now, clock.now, clock.now + $4 FROM clock
    ON CONFLICT (id) DO UPDATE SET
        joined_at = CASE WHEN nodes.expires_at <= excluded.seen_at
                    THEN excluded.joined_at ELSE nodes.joined_at END,
        seen_at = excluded.seen_at,
        expires_at = excluded.expires_at
)
UPDATE leases SET expires_at = clock.now + $4
FROM clock, unnest($2::smallint[], $3::bigint[]) AS held (shard, epoch)
WHERE leases.shard = held.shard AND leases.epoch = held.epoch AND leases.holder = $1
RETURNING leases.shard, leases.epoch
