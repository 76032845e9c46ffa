-- $1 streams. The inner select is one descent of the index, however long the stream is.
SELECT wanted.stream, (SELECT max(version) FROM events WHERE events.stream = wanted.stream)
FROM unnest($1::text[]) AS wanted (stream)
