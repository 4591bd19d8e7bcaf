"""One module per kind: read the world, call one planner, write what it says. Keys are names in the world's stores."""
