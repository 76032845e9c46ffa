-- $1 to $17 the columns of the events in order, each as an array. The head stays where it is.
INSERT INTO events
SELECT * FROM unnest(
    $1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::smallint[], $6::uuid[], $7::uuid[], $8::integer[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::bigint[], $16::text[],
    $17::bytea[]
)
