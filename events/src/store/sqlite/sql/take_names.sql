INSERT INTO reservations (namespace, key, stream) SELECT namespace, key, stream FROM temp.names_aside
