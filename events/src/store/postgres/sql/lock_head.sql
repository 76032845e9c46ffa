-- Nobody else moves the head until this transaction ends.
SELECT position, hash, fence FROM head WHERE one = 1 FOR UPDATE
