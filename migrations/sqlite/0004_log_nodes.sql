-- Which nodes there are, and until when each holds its shards. Times are microseconds since 1970, UTC; an
-- `expires_at` of 0 says that a lease was given back, or that a node has left.

ALTER TABLE leases ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;

WITH RECURSIVE shards (shard) AS (SELECT 0 UNION ALL SELECT shard + 1 FROM shards WHERE shard < 255)
INSERT OR IGNORE INTO leases (shard, epoch, holder) SELECT shard, 0, '' FROM shards;

CREATE TABLE nodes (
    id         TEXT    PRIMARY KEY,
    joined_at  INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

-- By this the nodes know each other's messages.
CREATE TABLE cluster (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    secret BLOB    NOT NULL
) STRICT;

INSERT INTO cluster (one, secret) VALUES (1, randomblob(32));
