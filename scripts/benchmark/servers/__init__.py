"""Real servers of peers, each on a private socket or port, in a directory of its own."""
