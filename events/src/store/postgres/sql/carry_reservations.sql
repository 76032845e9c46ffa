INSERT INTO reservations (namespace, key, stream) SELECT namespace, key, stream FROM names_aside
