"""What each page shows, from the picture alone. Pure: no I/O, no clock."""
