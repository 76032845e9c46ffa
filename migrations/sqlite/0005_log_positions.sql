-- The log begins with position 1 and every stream with version 1: nothing may stand before them. What stands there
-- already does not hold up a migration, but the log is refused when it is opened next, as are reads that meet it;
-- `hypercode audit verify --offline` names it, and what else was done.
CREATE TRIGGER events_count_from_one BEFORE INSERT ON events WHEN new.position < 1 OR new.version < 1
BEGIN
    SELECT raise(ABORT, 'positions and versions count from 1');
END;

CREATE TRIGGER events_stay_from_one BEFORE UPDATE OF position, version ON events
WHEN new.position < 1 OR new.version < 1
BEGIN
    SELECT raise(ABORT, 'positions and versions count from 1');
END;
