-- $1 JSON array of entities. An entity's first event says which crew it belongs to.
SELECT entities.value, (SELECT crew FROM audit WHERE entity = entities.value ORDER BY position LIMIT 1)
FROM json_each($1) AS entities
