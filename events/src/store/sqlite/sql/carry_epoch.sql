-- ?1 shard, ?2 epoch. An epoch never goes back.
UPDATE leases SET epoch = max(epoch, ?2) WHERE shard = ?1
