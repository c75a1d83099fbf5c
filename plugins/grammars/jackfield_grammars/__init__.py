"""Bundled plugins of the kind grammars."""
