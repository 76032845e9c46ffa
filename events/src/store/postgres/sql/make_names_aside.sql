CREATE TEMPORARY TABLE IF NOT EXISTS names_aside (namespace text, key text, stream text)
