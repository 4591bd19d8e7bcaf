"""The pools of this host: one monitor per pool, its child process, the copies and leftovers in it."""
