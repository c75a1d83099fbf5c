"""A scheduler: short prompts first."""
