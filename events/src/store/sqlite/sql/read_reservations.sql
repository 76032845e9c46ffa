SELECT namespace, key, stream FROM reservations
