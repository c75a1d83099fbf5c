"""Making a quantized checkpoint out of a plain one: ``jackfield quantize``.

What comes out is in the layout of compressed-tensors, which other engines read too. The model runs
as transformers has it, so that every architecture can be quantized that it knows.
"""

from jackfield.quantizer.recipe import ALGORITHMS, METHODS, Recipe
from jackfield.quantizer.run import QuantizeJob, quantize

__all__ = ["ALGORITHMS", "METHODS", "QuantizeJob", "Recipe", "quantize"]
