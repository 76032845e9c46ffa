UPDATE nodes SET expires_at = 0 WHERE expires_at > 0
