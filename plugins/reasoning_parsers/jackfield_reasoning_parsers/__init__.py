"""Bundled plugins of the kind reasoning_parsers."""
