-- What queries read (`views.db`): everything here can be made again from the log.
-- `created` and `updated` are positions in the log, times are microseconds since 1970, UTC.

-- Which log the views were made from, and up to where.
CREATE TABLE source (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    hash     BLOB    NOT NULL
) STRICT;

CREATE TABLE projections (
    name     TEXT    PRIMARY KEY,
    position INTEGER NOT NULL,          -- the last event that it has applied
    skipped  INTEGER NOT NULL DEFAULT 0, -- events of kinds that were unknown to it
    error    TEXT                        -- why it stopped before the next event
) STRICT;

CREATE TABLE crews (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state      TEXT    NOT NULL
) STRICT;
CREATE INDEX crews_by_tenant ON crews (tenant, created);

CREATE TABLE agents (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    crew       TEXT    NOT NULL,
    member     TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state      TEXT    NOT NULL
) STRICT;
CREATE INDEX agents_by_tenant ON agents (tenant, created);
CREATE INDEX agents_by_crew ON agents (crew, created);

CREATE TABLE tasks (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    crew       TEXT    NOT NULL,
    member     TEXT    NOT NULL,
    context    TEXT    NOT NULL,
    parent     TEXT,
    status     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state      TEXT    NOT NULL
) STRICT;
CREATE INDEX tasks_by_tenant ON tasks (tenant, created);
CREATE INDEX tasks_by_crew ON tasks (crew, created);
CREATE INDEX tasks_by_status ON tasks (tenant, status, created);
CREATE INDEX tasks_by_parent ON tasks (parent, created) WHERE parent IS NOT NULL;
-- What a start of the platform has to recover, and what each crew has open.
CREATE INDEX tasks_open ON tasks (crew, id) WHERE status IN ('submitted', 'working', 'input_required');

CREATE TABLE attempts (
    task        TEXT    NOT NULL,
    fence       INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    agent       TEXT    NOT NULL,
    incarnation INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    outcome     TEXT, -- null while it is live
    detail      TEXT,
    PRIMARY KEY (task, fence)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_live ON attempts (agent) WHERE outcome IS NULL;

CREATE TABLE messages (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    crew       TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    payload    TEXT    NOT NULL
) STRICT;
CREATE INDEX messages_by_tenant ON messages (tenant, created);
CREATE INDEX messages_by_crew ON messages (crew, created);

CREATE TABLE deliveries (
    message   TEXT    NOT NULL,
    recipient TEXT    NOT NULL, -- an agent, or `member:` and the member whose next ready agent gets it
    status    TEXT    NOT NULL, -- `pending`, `taken`, `unhandled` or `dead_lettered`
    detail    TEXT,
    at        INTEGER NOT NULL,
    PRIMARY KEY (message, recipient)
) STRICT, WITHOUT ROWID;
-- What is to be delivered after a restart.
CREATE INDEX deliveries_pending ON deliveries (message) WHERE status = 'pending';

-- What each crew has used up; one without a row has used nothing.
CREATE TABLE spending (
    crew          TEXT    PRIMARY KEY,
    messages      INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_micros   INTEGER NOT NULL
) STRICT;

CREATE TABLE profiles (
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    payload    TEXT    NOT NULL,
    PRIMARY KEY (tenant, name, version)
) STRICT;
CREATE INDEX profiles_by_tenant ON profiles (tenant, created);

CREATE TABLE pools (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state      TEXT    NOT NULL
) STRICT;
CREATE INDEX pools_by_tenant ON pools (tenant, created);

CREATE TABLE audit (
    position    INTEGER PRIMARY KEY,
    recorded_at INTEGER NOT NULL,
    tenant      TEXT    NOT NULL,
    principal   TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    entity      TEXT    NOT NULL,
    crew        TEXT,
    correlation TEXT,
    causation   TEXT,
    outcome     TEXT    NOT NULL, -- `ok`, `failed` or `denied`
    summary     TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_tenant ON audit (tenant, position);
CREATE INDEX audit_by_entity ON audit (entity, position);
CREATE INDEX audit_by_crew ON audit (crew, position) WHERE crew IS NOT NULL;

-- States of entities, so that a long stream need not be folded from its beginning.
CREATE TABLE snapshots (
    stream       TEXT    NOT NULL,
    decider      TEXT    NOT NULL,
    state_schema INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    hash         BLOB    NOT NULL,
    state        TEXT    NOT NULL,
    PRIMARY KEY (stream, decider)
) STRICT;
