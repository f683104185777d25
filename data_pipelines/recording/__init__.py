"""Raw recordings of the world, as others write them: one reader a kind."""
