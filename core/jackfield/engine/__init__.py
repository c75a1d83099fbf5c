"""The step loop, its process, and which request owns which KV block. No torch."""
