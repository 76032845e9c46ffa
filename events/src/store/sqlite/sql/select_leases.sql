SELECT shard, epoch, holder, expires_at FROM leases ORDER BY shard
