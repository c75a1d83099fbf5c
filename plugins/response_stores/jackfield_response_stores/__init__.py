"""Bundled plugins of the kind response_stores."""
