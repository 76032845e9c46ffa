-- $1 command ids, $2 their digests
INSERT INTO commands (command_id, digest) SELECT * FROM unnest($1::uuid[], $2::bytea[]) ON CONFLICT DO NOTHING
