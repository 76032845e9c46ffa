-- $1 how long ago they were seen last, in microseconds
DELETE FROM nodes WHERE seen_at < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1
