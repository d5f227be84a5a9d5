"""Reports a program's buffers on Tenstorrent devices to ttmem, and shows what the program holds.

    import ttmem

    with ttmem.AllocationClient() as client:
        weights = client.allocate(device_id=0, size=64 << 20, buffer_type=ttmem.BufferType.DRAM)
        ...
        client.deallocate(weights)

A report never blocks and never fails: it is sent by a thread of its own, and a daemon that is not there yet, or is
started again, is told of everything that lives as soon as it answers.
"""

from .books import Statistics
from .client import AllocationClient
from .connection import DEFAULT_SOCKET
from .monitor import MEMORY_TYPES, Device, Holding, Monitor
from .protocol import BufferType
from .watching import watch

__all__ = [
    "DEFAULT_SOCKET",
    "MEMORY_TYPES",
    "AllocationClient",
    "BufferType",
    "Device",
    "Holding",
    "Monitor",
    "Statistics",
    "watch",
]
__version__ = "0.1.0"
