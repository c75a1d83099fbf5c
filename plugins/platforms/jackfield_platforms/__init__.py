"""Bundled plugins of the kind platforms: what a device is called and what it offers."""
