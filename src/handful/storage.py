"""Files: tensors as safetensors with their facts as JSON in the same file, written whole or not at all.

Nothing is ever unpickled: a pickle can run code when it is opened.
"""

import contextlib
import hashlib
import json
import math
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from handful.errors import ArtifactError, UserError
from handful.types import TaskState

ENTRY = "handful"
"""The one metadata entry, `{"digest": ..., "facts": ...}`: safetensors writes several in any order, which would give
the same content other bytes."""

RUN_FORMAT = "handful run"
"""The format name in a run's configuration."""

DIGEST_LENGTH = 32
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""The first bytes of files of `torch.save` (a zip) and of `pickle`."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to, moved into its place at the end; on an error `path` stays.

    Its permissions follow the umask. If `path` is a link, its target is replaced.
    """
    temporary = None
    try:
        place = Path(os.path.realpath(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(f".{secrets.token_hex(8)}")  # a name of its own: `path` may have the longest
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(place)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}.",
            code="unwritable",
            hint="Choose another path with {path}, or make it writable.",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise `UserError` if no file can be written into this folder, before work is done for it. Creates nothing."""
    place = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        tempfile.TemporaryFile(dir=place).close()  # permissions do not tell: of root, of /proc
    except OSError as error:
        raise UserError(
            f"Cannot write {folder}: {error.strerror} ({place}).",
            code="unwritable",
            hint="Choose another place with {path}.",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, as_json(value, indent=2) + "\n")


def as_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON in UTF-8: invalid bytes in names of files are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode()  # \udce9, as JSON itself writes it


def read_json(path: Path) -> Any:
    """Read a JSON file; `ArtifactError` if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist.", code="missing-artifact") from error
    except (ValueError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON: {error}.") from error


def finite(value: Any) -> Any:
    """The same with null for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_bytes(path: Path) -> bytes:
    """The content of a file; `ArtifactError` if it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist.", code="missing-artifact") from error
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror or error}).") from error


def tensors_to_bytes(tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[bytes, str]:
    """Tensors and their facts as a safetensors file, and its checksum: the same content gives the same bytes."""
    # Copies, since safetensors refuses tensors that share memory, as tied weights do.
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    text = as_json(facts)
    checksum = digest_of(whole, text)
    return save(whole, {ENTRY: _opening(checksum) + text + "}"}), checksum


def tensors_from_bytes(content: bytes, source: object) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, facts and checksum of what `tensors_to_bytes` wrote.

    Raises `ArtifactError`, which names the source, where it is something else, or not whole.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        entry = header.get("__metadata__", {}).get(ENTRY)
    except (SafetensorError, ValueError, RecursionError, KeyError, RuntimeError) as error:
        if content.startswith(PICKLES):
            raise ArtifactError(
                f"{source} is a pickle (as torch.save writes). handful never opens pickles, which can run any code; it "
                f"reads its own safetensors files.",
                code="untrusted-model",
            ) from error
        raise ArtifactError(
            f"{source} is truncated or not a safetensors file ({error}). Create it again, or get a complete copy."
        ) from error
    if entry is None:
        raise ArtifactError(f"{source} is a safetensors file, but not one made by handful.")
    text = entry[len(_opening("")) + DIGEST_LENGTH : -1]
    checksum = digest_of(tensors, text)
    if entry != _opening(checksum) + text + "}":
        raise ArtifactError(f"{source} was altered or damaged: its content does not match its digest.")
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise ArtifactError(f"{source} is a safetensors file, but not one of handful: its facts are no JSON object.")
    # Cloned, since they begin anywhere in the file, and on some processors a matrix product has other last bits where
    # its factors are not aligned as new tensors are. After the digest: of a bool that is 2, a clone is 1.
    return {name: tensor.clone() for name, tensor in tensors.items()}, facts, checksum


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Write tensors and their facts to one safetensors file; returns its checksum, which loading compares."""
    content, checksum = tensors_to_bytes(tensors, facts)
    write_bytes(path, content)
    return checksum


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, facts and checksum of a file of `write_tensors`; `ArtifactError` if it is not one, or not whole."""
    return tensors_from_bytes(read_bytes(path), path)


def is_there(path: Path) -> bool:
    """Whether a path exists; `ArtifactError` if that may not be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}).") from error
    return True


def format_of(path: Path) -> str | None:
    """The kind of a file of handful, such as "adapted task"; None for another file."""
    try:
        return str(read_tensors(path)[1]["format"]).removeprefix("handful ")
    except (ArtifactError, KeyError):
        return None


def check_folder(path: Path) -> None:
    """Raise `ArtifactError`, with the kind of file, if this is not a folder and so cannot be a run."""
    if not is_there(path):
        raise ArtifactError(f"{path} does not exist. Make a run with `handful train`.", code="missing-artifact")
    if path.is_file():
        found = f"an {kind}" if (kind := format_of(path)) else "a file"  # an adapted task
        raise ArtifactError(
            f"{path} is {found}, not a run. Use a folder made by `handful train`.", code="missing-artifact"
        )


def is_run(path: Path) -> bool:
    """Whether this folder holds a run; another program's `config.json` does not make it one."""
    try:
        config = read_json(path / "config.json")
    except ArtifactError:
        return False
    return isinstance(config, dict) and config.get("format") == RUN_FORMAT


def flatten(state: TaskState, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """A state's tensors by names joined with "/", and its structure as JSON (null stands for a tensor)."""
    if isinstance(state, Tensor):
        return {prefix: state}, None
    items = state.items() if isinstance(state, dict) else enumerate(state)
    tensors: dict[str, Tensor] = {}
    structures = {}
    for name, part in items:
        below, structures[name] = flatten(part, f"{prefix}/{name}" if prefix else str(name))
        tensors |= below
    return tensors, structures if isinstance(state, dict) else list(structures.values())


def unflatten(tensors: dict[str, Tensor], structure: Any, prefix: str = "") -> TaskState:
    """The state that `flatten` took apart."""
    if structure is None:
        return tensors[prefix]
    items = structure.items() if isinstance(structure, dict) else enumerate(structure)
    parts = {name: unflatten(tensors, part, f"{prefix}/{name}" if prefix else str(name)) for name, part in items}
    return parts if isinstance(structure, dict) else list(parts.values())


def _opening(digest: str) -> str:
    return f'{{"digest": "{digest}", "facts": '


def digest_of(tensors: dict[str, Tensor], facts: str = "") -> str:
    """A hash of names, shapes, types, numbers and facts."""
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # NumPy lacks bfloat16
    return digest.hexdigest()[:DIGEST_LENGTH]
