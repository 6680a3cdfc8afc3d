"""Devices: what there is on this machine, and waiting for one."""

import torch

from handful.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def available() -> list[str]:
    """The devices of this machine."""
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return [name for name, there in found.items() if there]


def device_named(name: str) -> torch.device:
    """One of `DEVICES`; "auto" is a GPU where there is one, else the CPU. Raises `UserError` for what is not there."""
    there = available()
    if name == "auto":
        name = there[-1]
    if name not in there:
        raise UserError(f"There is no device {name!r}. This machine has {', '.join(there)}.", field=("device",))
    return torch.device(name)


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given: a GPU works on while the program goes on."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
