"""Bundled plugins of the kind executors."""
