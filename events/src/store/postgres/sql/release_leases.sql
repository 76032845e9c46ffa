-- $1 node, $2 shards, $3 their epochs
UPDATE leases SET expires_at = 0
FROM unnest($2::smallint[], $3::bigint[]) AS held (shard, epoch)
WHERE leases.shard = held.shard AND leases.epoch = held.epoch AND leases.holder = $1
