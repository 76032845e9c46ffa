-- Inserts the rows that are bound; a slot that is left unbound inserts nothing.
-- `{rows}`: slots of the table's 17 columns in order
INSERT INTO events SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL
