"""The OpenAI-compatible HTTP server over the one door, ``jackfield.llm``."""
