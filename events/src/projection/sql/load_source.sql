SELECT position, hash FROM source WHERE one = 1
