-- ?1 JSON array of streams. The inner select is one descent of the index, however long the stream is.
SELECT streams.value, (SELECT max(version) FROM events WHERE stream = streams.value)
FROM json_each(?1) AS streams
