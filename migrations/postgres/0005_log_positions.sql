-- The log begins with position 1 and every stream with version 1: nothing may stand before them. What stands there
-- already does not hold up a migration, but the log is refused when it is opened next, as are reads that meet it;
-- `hypercode audit verify --offline` names it, and what else was done.
ALTER TABLE events
    ADD CONSTRAINT events_position_counts_from_one CHECK (position > 0) NOT VALID,
    ADD CONSTRAINT events_version_counts_from_one CHECK (version > 0) NOT VALID;
