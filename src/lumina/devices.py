"""Where to compute and with which numbers, chosen for the machine at hand."""

import ctypes
import os
import platform
from importlib import metadata
from typing import Any

import psutil
import torch

from lumina.errors import LuminaError, UnknownNameError
from lumina.requests import DTYPES

_LARGE_ALONE, _RETURNED_FROM = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of <malloc.h>
_LIBRARIES = ("lumina-t2x", "torch", "diffusers", "transformers", "accelerate", "peft", "pillow")


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name, if this machine has it.

    Args:
        name: Such as "cpu" or "cuda:1". "auto" is the accelerator, or the CPU without one.

    Raises:
        LuminaError: If the machine has no such device.
    """
    available = available_devices()
    if name == "auto":
        return torch.device(available[-1].partition(":")[0])
    if name not in available and f"{name}:0" not in available:
        raise LuminaError(
            f"there is no device {name!r} here", hint=f"available: {', '.join(available)}"
        )
    return torch.device(name)


def available_devices() -> list[str]:
    """Names of all devices, the CPU first."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return ["cpu", *(f"{accelerator.type}:{index}" for index in range(count))]


def pick_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The type of numbers of a name.

    Args:
        name: Such as "float32". "auto" is bfloat16 where the device is fast at it, else float32.
        device: Where to compute.

    Raises:
        UnknownNameError: If the name is none of `lumina.requests.DTYPES`.
    """
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise UnknownNameError.among(DTYPES, name, kind="dtype")
    if name == "auto":
        return torch.bfloat16 if is_fast_at_bfloat16(device) else torch.float32
    return getattr(torch, name)


def is_fast_at_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, not by way of float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Older versions of torch do not tell what the CPU can do.
        can = getattr(torch.cpu, "get_capabilities", dict)()
        return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return False


def keep_freed_memory() -> bool:
    """Make this process keep the memory of tensors that it frees, for the next ones.

    Else each tensor of some megabytes is asked of the system anew, which clears its pages: a tenth
    of the time of a training step on a CPU.

    Returns:
        Whether the C library can be told so. Only that of GNU can.
    """
    tell = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return tell is not None and bool(tell(_LARGE_ALONE, 0) and tell(_RETURNED_FROM, 2**31 - 1))


def total_memory(device: torch.device) -> int:
    """Bytes of memory that the device has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return psutil.virtual_memory().total


def free_memory(device: torch.device) -> int:
    """Bytes of memory that the device can give at this moment."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def report() -> dict[str, str]:
    """What a bug report needs to say about this machine."""
    facts = {"python": platform.python_version(), "system": platform.platform()}
    facts |= {library: metadata.version(library) for library in _LIBRARIES}
    facts["memory"] = f"{total_memory(torch.device('cpu')) / 1e9:.1f} GB"
    facts["cores"] = f"{os.cpu_count()} ({torch.get_num_threads()} used)"
    for name in available_devices():
        device = torch.device(name)
        fast = "yes" if is_fast_at_bfloat16(device) else "no"
        facts[name] = f"{_model_of(device)}, fast bfloat16: {fast}"
    chosen = pick_device()
    facts["chosen"] = f"{chosen}, {pick_dtype('auto', chosen)}".replace("torch.", "")
    return facts


def _model_of(device: torch.device) -> str:
    if device.type == "cuda":
        memory = total_memory(device) / 1e9
        return f"{torch.cuda.get_device_name(device)}, {memory:.1f} GB, CUDA {torch.version.cuda}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.processor() or platform.machine()}, {capability}"


def move(batch: Any, device: torch.device) -> Any:
    """A batch of tensors, in lists and tuples, on a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, list):
        return [move(part, device) for part in batch]
    if isinstance(batch, tuple):
        moved = (move(part, device) for part in batch)
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    return batch
