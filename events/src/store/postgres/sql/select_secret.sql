SELECT secret FROM cluster WHERE one = 1
