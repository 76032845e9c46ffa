SELECT shard, epoch, holder, expires_at - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
FROM leases ORDER BY shard
