"""Bundled plugins of the kind tool_parsers."""
