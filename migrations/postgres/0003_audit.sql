-- What proves that the log is what it was: nothing here can be made again once it is lost.

-- The Merkle tree over the events' hashes, 256 neighbouring hashes a row; shorter at the right edge.
CREATE TABLE tiles (
    level  smallint NOT NULL,
    number bigint   NOT NULL,
    hashes bytea    NOT NULL,
    PRIMARY KEY (level, number)
);

-- What was signed.
CREATE TABLE checkpoints (
    size   bigint PRIMARY KEY, -- leaves of the tree: the position of the last event
    note   text   NOT NULL,    -- the signed note, as it was given away
    cut_at bigint NOT NULL     -- microseconds since 1970, UTC
);

-- The public keys that have signed, each from which size on.
CREATE TABLE keys (
    key   text   PRIMARY KEY,
    since bigint NOT NULL
);

-- Up to which size each sink has got the checkpoints.
CREATE TABLE sinks (
    name text   PRIMARY KEY,
    size bigint NOT NULL
);
