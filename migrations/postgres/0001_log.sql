-- The log and what must be decided in the same commit as an append.

-- One row per event, never changed. The order of the columns is the order in which the chain hashes them.
CREATE TABLE events (
    position       bigint   PRIMARY KEY,
    stream         text     COLLATE "C" NOT NULL,
    version        bigint   NOT NULL,
    kind           text     NOT NULL,
    schema         smallint NOT NULL,
    event_id       uuid     NOT NULL,
    command_id     uuid     NOT NULL,
    ordinal        integer  NOT NULL,
    tenant         text     NOT NULL,
    principal      text     NOT NULL,
    correlation_id text,
    causation_id   text,
    traceparent    text,
    recorded_at    bigint   NOT NULL, -- microseconds since 1970, UTC
    epoch          bigint   NOT NULL,
    payload        text     NOT NULL, -- JSON, byte for byte as it was written, therefore never jsonb
    hash           bytea    NOT NULL,
    UNIQUE (stream, version),
    UNIQUE (command_id, ordinal)
);

-- The log's end. `fence` grows with every takeover of a shard, so that an appender notices.
CREATE TABLE head (
    one      smallint PRIMARY KEY CHECK (one = 1),
    position bigint   NOT NULL,
    hash     bytea    NOT NULL,
    fence    bigint   NOT NULL
);

INSERT INTO head (one, position, hash, fence) VALUES (1, 0, decode(repeat('00', 32), 'hex'), 0);

-- The content's digest of commands that came under an idempotency key.
CREATE TABLE commands (
    command_id uuid  PRIMARY KEY,
    digest     bytea NOT NULL
);

-- Names that are taken, and by which stream.
CREATE TABLE reservations (
    namespace text NOT NULL,
    key       text NOT NULL,
    stream    text NOT NULL,
    PRIMARY KEY (namespace, key)
);

-- The right to append to a shard's streams.
CREATE TABLE leases (
    shard  smallint PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    epoch  bigint   NOT NULL,
    holder text     NOT NULL
);
