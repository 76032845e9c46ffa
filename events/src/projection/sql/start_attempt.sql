-- ?1 task, ?2 fence, ?3 number, ?4 agent, ?5 incarnation, ?6 when
INSERT OR REPLACE INTO attempts (task, fence, number, agent, incarnation, started_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)
