"""Bundled plugins of the kind models."""
