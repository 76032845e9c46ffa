-- Who holds this lock copies a log into the database: `HCcp` in ASCII.
SELECT pg_try_advisory_lock(1212375920)
