"""Load by `wrk`, which one core of offers far more than a server in Python takes."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SCRIPT = """
local bodies, paths = {}, {}
for line in io.lines("BODIES") do bodies[#bodies + 1] = line end
for line in io.lines("PATHS") do paths[#paths + 1] = line end
local headers = { ["Content-Type"] = "application/json", ["Authorization"] = "Bearer KEY" }
math.randomseed(0)
request = function()
  return wrk.format("POST", paths[math.random(#paths)], headers, bodies[math.random(#bodies)])
end
"""


class Rate(NamedTuple):
    """What one run of wrk met. failed: answers other than 2xx and 3xx, and errors of sockets. p99: milliseconds."""

    requests: float
    p99: float
    failed: int


def rate(
    folder: Path, port: int, paths: Sequence[str], bodies: Sequence[object], key: str, *, connections: int, seconds: int
) -> Rate:
    """Requests a second that a server takes of connections that send one after the other to random paths."""
    program = shutil.which("wrk")
    if program is None:
        raise SystemExit("This row needs wrk: apt-get install wrk.")
    (folder / "bodies").write_text("\n".join(map(json.dumps, bodies)))
    (folder / "paths").write_text("\n".join(paths))
    script = SCRIPT.replace("BODIES", str(folder / "bodies")).replace("PATHS", str(folder / "paths"))
    (folder / "load.lua").write_text(script.replace("KEY", key))
    said = subprocess.run(
        [
            *(program, "--threads", "1", "--connections", str(connections), "--duration", str(seconds), "--latency"),
            *("--timeout", "10", "--script", str(folder / "load.lua"), f"http://127.0.0.1:{port}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Rate(
        float(_found(r"Requests/sec:\s+([\d.]+)", said)),
        _milliseconds(_found(r"99%\s+(\S+)", said)),
        sum(map(int, errors.groups() if errors else ())) + int(refused[1] if refused else 0),
    )


def _found(pattern: str, said: str) -> str:
    found = re.search(pattern, said)
    if found is None:
        raise SystemExit(f"wrk said something else than expected:\n{said}")
    return found[1]


def _milliseconds(written: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", written).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}[unit]
