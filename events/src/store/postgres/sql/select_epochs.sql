SELECT shard, epoch FROM leases
