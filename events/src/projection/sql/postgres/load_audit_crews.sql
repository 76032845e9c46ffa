-- $1 JSON array of entities. An entity's first event says which crew it belongs to.
SELECT wanted.entity, (SELECT crew FROM audit WHERE audit.entity = wanted.entity ORDER BY position LIMIT 1)
FROM json_array_elements_text($1::json) AS wanted (entity)
