"""What lies in the pools of this host: one monitor per pool, its child process, the copies in it."""
