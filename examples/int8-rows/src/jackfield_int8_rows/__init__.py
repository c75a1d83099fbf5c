"""A quantization method: 8-bit weights with one scale a row."""
