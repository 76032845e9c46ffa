-- $1 node, $2 shards that are left alone, $3 most, $4 how long, in microseconds. The head is locked, so claims come one
-- after another; a lease that is being renewed is waited for and looked at again.
WITH clock AS (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
free AS (
    SELECT leases.shard FROM leases, clock
    WHERE (leases.expires_at <= clock.now OR leases.holder = $1) AND leases.shard <> ALL ($2)
    ORDER BY leases.holder <> $1, leases.shard
    LIMIT $3
    FOR UPDATE OF leases
)
UPDATE leases SET holder = $1, epoch = leases.epoch + 1, expires_at = clock.now + $4
FROM free, clock
WHERE leases.shard = free.shard
RETURNING leases.shard, leases.epoch
