-- $1 shards, $2 epochs. An epoch never goes back.
UPDATE leases SET epoch = greatest(leases.epoch, carried.epoch)
FROM unnest($1::smallint[], $2::bigint[]) AS carried (shard, epoch)
WHERE leases.shard = carried.shard
