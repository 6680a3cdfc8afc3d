"""Devices: those of this machine, and waiting for one."""

import torch

from handful.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def available() -> list[str]:
    """The devices of this machine."""
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, there in found.items() if there]


def device_named(name: str) -> torch.device:
    """One of `DEVICES`; "auto" is a GPU if available, else the CPU. Raises `UserError` for a missing device."""
    there = available()
    if name == "auto":
        name = there[-1]
    if name not in there:
        raise UserError(
            f"The device {name!r} is not available. This machine has {', '.join(there)}.", field=("device",)
        )
    return torch.device(name)


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work: a GPU runs asynchronously."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
