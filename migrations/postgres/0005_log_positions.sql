-- The log begins with position 1 and every stream with version 1: nothing may stand before them. What stands there
-- already does not hold up a migration; it is never read, and `hypercode audit verify` names it.
ALTER TABLE events
    ADD CONSTRAINT events_position_counts_from_one CHECK (position > 0) NOT VALID,
    ADD CONSTRAINT events_version_counts_from_one CHECK (version > 0) NOT VALID;
