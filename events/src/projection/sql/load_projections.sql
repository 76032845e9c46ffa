SELECT name, position, skipped, error FROM projections ORDER BY name
