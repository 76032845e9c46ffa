-- ?1 the moment before which they were seen last
DELETE FROM nodes WHERE seen_at < ?1
