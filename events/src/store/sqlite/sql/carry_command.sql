-- ?1 command id, ?2 digest
INSERT OR IGNORE INTO commands (command_id, digest) VALUES (?1, ?2)
