-- What queries read: everything here can be made again from the log.
-- `created` and `updated` are positions in the log, times are microseconds since 1970, UTC.

-- Which log the views were made from, and up to where.
CREATE TABLE source (
    one      bigint PRIMARY KEY CHECK (one = 1),
    position bigint NOT NULL,
    hash     bytea  NOT NULL
);

CREATE TABLE projections (
    name     text   PRIMARY KEY,
    position bigint NOT NULL,          -- the last event that it has applied
    skipped  bigint NOT NULL DEFAULT 0, -- events of kinds that were unknown to it
    error    text                       -- why it stopped before the next event
);

CREATE TABLE crews (
    id         text   PRIMARY KEY,
    tenant     text   NOT NULL,
    name       text   NOT NULL,
    status     text   NOT NULL,
    created    bigint NOT NULL,
    created_at bigint NOT NULL,
    updated    bigint NOT NULL,
    updated_at bigint NOT NULL,
    state      text   NOT NULL
);
CREATE INDEX crews_by_tenant ON crews (tenant, created);

CREATE TABLE agents (
    id         text   PRIMARY KEY,
    tenant     text   NOT NULL,
    crew       text   NOT NULL,
    member     text   NOT NULL,
    status     text   NOT NULL,
    created    bigint NOT NULL,
    created_at bigint NOT NULL,
    updated    bigint NOT NULL,
    updated_at bigint NOT NULL,
    state      text   NOT NULL
);
CREATE INDEX agents_by_tenant ON agents (tenant, created);
CREATE INDEX agents_by_crew ON agents (crew, created);

CREATE TABLE tasks (
    id         text   PRIMARY KEY,
    tenant     text   NOT NULL,
    crew       text   NOT NULL,
    member     text   NOT NULL,
    context   text   NOT NULL,
    parent     text,
    status     text   NOT NULL,
    created    bigint NOT NULL,
    created_at bigint NOT NULL,
    updated    bigint NOT NULL,
    updated_at bigint NOT NULL,
    state      text   NOT NULL
);
CREATE INDEX tasks_by_tenant ON tasks (tenant, created);
CREATE INDEX tasks_by_crew ON tasks (crew, created);
CREATE INDEX tasks_by_status ON tasks (tenant, status, created);
CREATE INDEX tasks_by_parent ON tasks (parent, created) WHERE parent IS NOT NULL;
-- What a start of the platform has to recover, and what each crew has open.
CREATE INDEX tasks_open ON tasks (crew, id) WHERE status IN ('submitted', 'working', 'input_required');

CREATE TABLE attempts (
    task        text   NOT NULL,
    fence       bigint NOT NULL,
    number      bigint NOT NULL,
    agent       text   NOT NULL,
    incarnation bigint NOT NULL,
    started_at  bigint NOT NULL,
    ended_at    bigint,
    outcome     text, -- null while it is live
    detail      text,
    PRIMARY KEY (task, fence)
);
CREATE INDEX attempts_live ON attempts (agent) WHERE outcome IS NULL;

CREATE TABLE messages (
    id         text   PRIMARY KEY,
    tenant     text   NOT NULL,
    crew       text   NOT NULL,
    sender     text   NOT NULL,
    created    bigint NOT NULL,
    created_at bigint NOT NULL,
    payload    text   NOT NULL
);
CREATE INDEX messages_by_tenant ON messages (tenant, created);
CREATE INDEX messages_by_crew ON messages (crew, created);

CREATE TABLE deliveries (
    message   text   NOT NULL,
    recipient text   NOT NULL, -- an agent, or `member:` and the member whose next ready agent gets it
    status    text   NOT NULL, -- `pending`, `taken`, `unhandled` or `dead_lettered`
    detail    text,
    at        bigint NOT NULL,
    PRIMARY KEY (message, recipient)
);
-- What is to be delivered after a restart.
CREATE INDEX deliveries_pending ON deliveries (message) WHERE status = 'pending';

-- What each crew has used up; one without a row has used nothing.
CREATE TABLE spending (
    crew          text    PRIMARY KEY,
    messages      bigint  NOT NULL,
    input_tokens  bigint  NOT NULL,
    output_tokens bigint  NOT NULL,
    cost_micros   bigint  NOT NULL
);

CREATE TABLE profiles (
    tenant     text   NOT NULL,
    name       text   NOT NULL,
    version    bigint NOT NULL,
    created    bigint NOT NULL,
    created_at bigint NOT NULL,
    payload    text   NOT NULL,
    PRIMARY KEY (tenant, name, version)
);
CREATE INDEX profiles_by_tenant ON profiles (tenant, created);

CREATE TABLE pools (
    id         text   PRIMARY KEY,
    tenant     text   NOT NULL,
    name       text   NOT NULL,
    status     text   NOT NULL,
    created    bigint NOT NULL,
    created_at bigint NOT NULL,
    updated    bigint NOT NULL,
    updated_at bigint NOT NULL,
    state      text   NOT NULL
);
CREATE INDEX pools_by_tenant ON pools (tenant, created);

CREATE TABLE audit (
    position    bigint PRIMARY KEY,
    recorded_at bigint NOT NULL,
    tenant      text   NOT NULL,
    principal   text   NOT NULL,
    kind        text   NOT NULL,
    entity      text   NOT NULL,
    crew        text,
    correlation text,
    causation   text,
    outcome     text   NOT NULL, -- `ok`, `failed` or `denied`
    summary     text   NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant, position);
CREATE INDEX audit_by_entity ON audit (entity, position);
CREATE INDEX audit_by_crew ON audit (crew, position) WHERE crew IS NOT NULL;

-- States of entities, so that a long stream need not be folded from its beginning.
CREATE TABLE snapshots (
    stream       text   NOT NULL,
    decider      text   NOT NULL,
    state_schema bigint NOT NULL,
    version      bigint NOT NULL,
    hash         bytea  NOT NULL,
    state        text   NOT NULL,
    PRIMARY KEY (stream, decider)
);
