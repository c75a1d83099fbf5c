"""Several API processes on one port, one engine: their keeper, and what they tell each other."""
