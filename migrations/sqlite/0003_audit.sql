-- What proves that the log is what it was (`audit.db`): nothing here can be made again once it is lost.

-- The Merkle tree over the events' hashes, 256 neighbouring hashes a row; shorter at the right edge.
CREATE TABLE tiles (
    level  INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hashes BLOB    NOT NULL,
    PRIMARY KEY (level, number)
) STRICT, WITHOUT ROWID;

-- What was signed.
CREATE TABLE checkpoints (
    size   INTEGER PRIMARY KEY, -- leaves of the tree: the position of the last event
    note   TEXT    NOT NULL,    -- the signed note, as it was given away
    cut_at INTEGER NOT NULL     -- microseconds since 1970, UTC
) STRICT;

-- The public keys that have signed, each from which size on.
CREATE TABLE keys (
    key   TEXT    PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT;

-- Up to which size each sink has got the checkpoints.
CREATE TABLE sinks (
    name TEXT    PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT;
