-- Those of the keys $1 of data subjects that are there and may seal.
SELECT id FROM hypercode_keys.subject_keys
WHERE id = ANY ($1) AND NOT EXISTS (SELECT FROM hypercode_keys.retired_keys WHERE retired_keys.id = subject_keys.id)
