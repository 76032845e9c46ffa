-- Moves the head and inserts all that goes with it, or does nothing where the head is no longer what was believed.
-- $1 the head's position before, $2 its fence, $3 position, $4 hash; $5 to $21 the columns of the events in order,
-- each as an array; $22 and $23 command ids and digests; $24 to $26 namespaces, keys and holders of reserved names.
-- The rows affected are the events inserted.
WITH moved AS (
    UPDATE head SET position = $3, hash = $4 WHERE one = 1 AND position = $1 AND fence = $2 RETURNING one
), digests AS (
    INSERT INTO commands (command_id, digest)
    SELECT new.* FROM moved, unnest($22::uuid[], $23::bytea[]) AS new
), names AS (
    INSERT INTO reservations (namespace, key, stream)
    SELECT new.* FROM moved, unnest($24::text[], $25::text[], $26::text[]) AS new
)
INSERT INTO events
SELECT new.* FROM moved, unnest(
    $5::bigint[], $6::text[], $7::bigint[], $8::text[], $9::smallint[], $10::uuid[], $11::uuid[], $12::integer[],
    $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::bigint[], $19::bigint[], $20::text[],
    $21::bytea[]
) AS new
