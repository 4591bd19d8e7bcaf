"""A transfer: connections that fetch ranges, and the part that comes together from them."""
