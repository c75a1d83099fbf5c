"""Bundled quantization methods, by a checkpoint's ``quant_method`` or ``--quantization``."""
