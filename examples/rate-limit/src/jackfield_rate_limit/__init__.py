"""A middleware: a limit on the requests of each API key."""
