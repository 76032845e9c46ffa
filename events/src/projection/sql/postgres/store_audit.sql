-- $1 JSON array of rows, each the array of the columns below in their order
INSERT INTO audit (
    position, recorded_at, tenant, principal, kind, entity, crew, correlation, causation, outcome, summary
)
SELECT
    (new ->> 0)::bigint, (new ->> 1)::bigint, new ->> 2, new ->> 3, new ->> 4, new ->> 5, new ->> 6, new ->> 7,
    new ->> 8, new ->> 9, new ->> 10
FROM json_array_elements($1::json) AS rows (new)
ON CONFLICT (position) DO UPDATE
SET
    recorded_at = excluded.recorded_at, tenant = excluded.tenant, principal = excluded.principal,
    kind = excluded.kind, entity = excluded.entity, crew = excluded.crew, correlation = excluded.correlation,
    causation = excluded.causation, outcome = excluded.outcome, summary = excluded.summary
