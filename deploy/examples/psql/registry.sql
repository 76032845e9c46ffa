-- The registry as plain SQL shows it, to the role `hypercode_auditor` of deploy/postgres/roles.sql:
--
--   psql postgres://hypercode_auditor@HOST/DATABASE -f deploy/examples/psql/registry.sql
--
-- The views are made from the log and can change with the program; the log, `public.events`, does not.

SET search_path = hypercode_views, public;

\echo crews
SELECT crews.name, crews.status, count(agents.id) AS agents, to_timestamp(crews.created_at / 1e6) AS created
FROM crews LEFT JOIN agents ON agents.crew = crews.id
GROUP BY crews.id ORDER BY crews.created;

\echo agents
SELECT crews.name AS crew, agents.member, agents.status
FROM agents JOIN crews ON crews.id = agents.crew ORDER BY agents.created;

\echo tasks
SELECT tasks.id, crews.name AS crew, tasks.member, tasks.status, count(attempts.fence) AS attempts
FROM tasks JOIN crews ON crews.id = tasks.crew LEFT JOIN attempts ON attempts.task = tasks.id
GROUP BY tasks.id, crews.name ORDER BY tasks.created;

\echo who did what, the last ten times
SELECT position, to_timestamp(recorded_at / 1e6) AS at, principal, entity, kind, outcome
FROM audit ORDER BY position DESC LIMIT 10;

\echo where the log ends, and how far the views have come
SELECT head.position AS log, min(projections.position) AS views, count(projections.error) AS stopped
FROM head, projections GROUP BY head.position;
