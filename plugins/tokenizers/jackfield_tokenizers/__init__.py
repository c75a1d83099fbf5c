"""Bundled plugins of the kind tokenizers."""
