SELECT position, hash FROM head WHERE one = 1
