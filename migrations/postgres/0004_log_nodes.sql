-- Which nodes there are, and until when each holds its shards. Times are microseconds since 1970, UTC, by the
-- database's clock; an `expires_at` of 0 says that a lease was given back, or that a node has left.

ALTER TABLE leases ADD COLUMN expires_at bigint NOT NULL DEFAULT 0;

INSERT INTO leases (shard, epoch, holder) SELECT shard, 0, '' FROM generate_series(0, 255) AS shard
ON CONFLICT DO NOTHING;

CREATE TABLE nodes (
    id         text   PRIMARY KEY,
    joined_at  bigint NOT NULL,
    seen_at    bigint NOT NULL,
    expires_at bigint NOT NULL
);

-- By this the nodes know each other's messages.
CREATE TABLE cluster (
    one    smallint PRIMARY KEY CHECK (one = 1),
    secret bytea    NOT NULL
);

INSERT INTO cluster (one, secret)
VALUES (1, sha256((gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text)::bytea));

-- Bytes by their SHA-256, in parts of at most 1 MiB; one node has them in files.
CREATE TABLE artifacts (
    digest bytea  PRIMARY KEY,
    size   bigint NOT NULL
);
CREATE TABLE artifact_parts (
    digest bytea   NOT NULL,
    number integer NOT NULL,
    bytes  bytea   NOT NULL,
    PRIMARY KEY (digest, number)
);
