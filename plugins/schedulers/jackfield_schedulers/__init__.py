"""Bundled plugins of the kind schedulers."""
