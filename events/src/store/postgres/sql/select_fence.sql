SELECT fence FROM head WHERE one = 1
