-- ?1 command id, ?2 digest
INSERT INTO commands (command_id, digest) VALUES (?1, ?2)
