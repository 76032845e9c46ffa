CREATE TEMPORARY TABLE IF NOT EXISTS names_aside (namespace TEXT, key TEXT, stream TEXT)
