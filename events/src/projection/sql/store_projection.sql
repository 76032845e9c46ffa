-- ?1 name, ?2 position, ?3 skipped, ?4 error
INSERT OR REPLACE INTO projections (name, position, skipped, error) VALUES (?1, ?2, ?3, ?4)
