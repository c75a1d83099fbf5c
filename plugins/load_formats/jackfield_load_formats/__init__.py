"""Bundled plugins of the kind load_formats."""
