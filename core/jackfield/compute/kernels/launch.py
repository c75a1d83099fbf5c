"""What a launch has to know: the processors of the device, and whether launches may overlap."""

from functools import cache

import torch
import triton
from torch import Tensor


@cache
def num_processors(device: torch.device) -> int:
    """Streaming multiprocessors of the device; 4 where the interpreter plays the device."""
    if device.type != "cuda":
        return 4
    return torch.cuda.get_device_properties(device).multi_processor_count


@cache
def _overlaps(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def overlaps(x: Tensor) -> bool:
    """Whether kernels on x's device are launched as programmatic dependents (Hopper and newer)."""
    return _overlaps(x.device)


def power_of_2(n: int) -> int:
    """The smallest power of two that is at least n."""
    return int(triton.next_power_of_2(n))
