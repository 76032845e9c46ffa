-- ?1 node, ?2 shards and their epochs, ?3 until when, in microseconds
UPDATE leases SET expires_at = ?3
WHERE holder = ?1 AND EXISTS (
    SELECT 1 FROM json_each(?2) AS held
    WHERE held.value ->> 0 = leases.shard AND held.value ->> 1 = leases.epoch
)
RETURNING shard, epoch
