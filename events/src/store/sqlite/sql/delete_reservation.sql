-- ?1 namespace, ?2 key
DELETE FROM reservations WHERE namespace = ?1 AND key = ?2
