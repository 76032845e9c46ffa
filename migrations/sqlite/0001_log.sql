-- The log and what must be decided in the same commit as an append (`log.db`).

-- One row per event, never changed. The order of the columns is the order in which the chain hashes them.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    stream         TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    schema         INTEGER NOT NULL,
    event_id       BLOB    NOT NULL,
    command_id     BLOB    NOT NULL,
    ordinal        INTEGER NOT NULL,
    tenant         TEXT    NOT NULL,
    principal      TEXT    NOT NULL,
    correlation_id TEXT,
    causation_id   TEXT,
    traceparent    TEXT,
    recorded_at    INTEGER NOT NULL, -- microseconds since 1970, UTC
    epoch          INTEGER NOT NULL,
    payload        TEXT    NOT NULL, -- JSON, byte for byte as it was written
    hash           BLOB    NOT NULL,
    UNIQUE (stream, version),
    UNIQUE (command_id, ordinal)
) STRICT;

-- The log's end. `fence` grows with every takeover of a shard.
CREATE TABLE head (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    position INTEGER NOT NULL,
    hash     BLOB    NOT NULL,
    fence    INTEGER NOT NULL
) STRICT;

INSERT INTO head (one, position, hash, fence) VALUES (1, 0, zeroblob(32), 0);

-- The content's digest of commands that came under an idempotency key.
CREATE TABLE commands (
    command_id BLOB PRIMARY KEY,
    digest     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Names that are taken, and by which stream.
CREATE TABLE reservations (
    namespace TEXT NOT NULL,
    key       TEXT NOT NULL,
    stream    TEXT NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;

-- The right to append to a shard's streams.
CREATE TABLE leases (
    shard  INTEGER PRIMARY KEY CHECK (shard BETWEEN 0 AND 255),
    epoch  INTEGER NOT NULL,
    holder TEXT    NOT NULL
) STRICT;
