-- $1 node
WITH node AS (UPDATE nodes SET expires_at = 0 WHERE id = $1)
UPDATE leases SET expires_at = 0 WHERE holder = $1
