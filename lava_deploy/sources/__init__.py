"""Where a revision of LAVA comes from: each module finds, lists and fetches."""
