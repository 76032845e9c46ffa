-- Roles of a HyperCode database, of which neither can change or remove what has happened.
--
--   hypercode_node      for the platform: appends events and keeps the views
--   hypercode_auditor   for people: reads the log, the views and the checkpoints, writes nothing
--
-- Run it as the database's owner, after `hypercode migrate` has made the log's tables, and again after each later
-- `hypercode migrate`. Then give the roles passwords of their own (`\password hypercode_node` in psql), and name
-- `hypercode_node` in the platform's `HYPERCODE_DATABASE_URL`.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hypercode_node') THEN
        CREATE ROLE hypercode_node LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'hypercode_auditor') THEN
        CREATE ROLE hypercode_auditor LOGIN;
    END IF;
    -- Views are made again in temporary tables.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO hypercode_node', current_database());
END
$$;

-- The log: insert and read. Only the head moves, only names are given back, only leases change hands.
GRANT SELECT ON events, commands, head, reservations, leases, hypercode_schema TO hypercode_node, hypercode_auditor;
GRANT INSERT ON events, commands, reservations TO hypercode_node;
GRANT UPDATE ON head, leases TO hypercode_node;
GRANT DELETE ON reservations TO hypercode_node;

-- The nodes, what only they know, and the bytes that they keep. These may be personal data in clear, so auditors see
-- that they are there and not what they are.
GRANT SELECT ON nodes, artifacts TO hypercode_node, hypercode_auditor;
GRANT SELECT ON cluster, artifact_parts TO hypercode_node;
REVOKE SELECT ON artifact_parts FROM hypercode_auditor;
GRANT INSERT ON nodes, artifacts, artifact_parts TO hypercode_node;
GRANT UPDATE ON nodes, artifact_parts TO hypercode_node;
GRANT DELETE ON nodes TO hypercode_node;
GRANT DELETE ON artifacts, artifact_parts TO hypercode_node; -- what an erased data subject alone refers to

-- The keys of data subjects are the platform's own, and nobody else's to read.
CREATE SCHEMA IF NOT EXISTS hypercode_keys;
ALTER SCHEMA hypercode_keys OWNER TO hypercode_node;
REVOKE ALL ON SCHEMA hypercode_keys FROM PUBLIC, hypercode_auditor;

-- Checkpoints of all nodes: inserted and read, never changed.
CREATE SCHEMA IF NOT EXISTS hypercode_audit;
CREATE TABLE IF NOT EXISTS hypercode_audit.checkpoints (
    origin text COLLATE "C" NOT NULL,
    size bigint NOT NULL,
    note text NOT NULL,
    received_at bigint NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (origin, size)
);
GRANT USAGE ON SCHEMA hypercode_audit TO hypercode_node, hypercode_auditor;
GRANT SELECT ON hypercode_audit.checkpoints TO hypercode_node, hypercode_auditor;
GRANT INSERT ON hypercode_audit.checkpoints TO hypercode_node;

-- The views can be made again from the log, so they are the platform's own.
CREATE SCHEMA IF NOT EXISTS hypercode_views;
ALTER SCHEMA hypercode_views OWNER TO hypercode_node;
GRANT USAGE ON SCHEMA hypercode_views TO hypercode_auditor;
ALTER DEFAULT PRIVILEGES FOR ROLE hypercode_node IN SCHEMA hypercode_views GRANT SELECT ON TABLES TO hypercode_auditor;

-- What a platform under another role has made there before is handed over: only its owner writes the table of keys anew,
-- which ends a key for good, and makes views anew.
DO $$
DECLARE
    made text;
BEGIN
    FOR made IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname IN ('hypercode_keys', 'hypercode_views') AND tableowner <> 'hypercode_node'
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO hypercode_node', made);
    END LOOP;
END
$$;
GRANT SELECT ON ALL TABLES IN SCHEMA hypercode_views TO hypercode_auditor;
