"""`directdownload dashboard`: pages about the fleet, served on this machine, with the rights of its user."""
