"""A tool parser: calls that stand on a line of their own."""
