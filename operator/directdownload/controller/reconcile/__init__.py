"""One module per kind: read the world, call one planner, write its plan. Keys are names in the world's stores."""
