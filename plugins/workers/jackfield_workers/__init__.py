"""Bundled plugins of the kind workers."""
