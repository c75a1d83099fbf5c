"""A load format: weights from one NumPy archive."""
