"""Bundled plugins of the kind config_formats."""
