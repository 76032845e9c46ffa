-- $1 shard, $2 holder
INSERT INTO leases (shard, epoch, holder) VALUES ($1, 1, $2)
ON CONFLICT (shard) DO UPDATE SET epoch = leases.epoch + 1, holder = excluded.holder
RETURNING epoch
