"""How a meta-batch is run."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

from handful.errors import UserError, count_of
from handful.functional.inner_loop import MemoryMode

Backend: TypeAlias = Literal["vmap", "chunks", "loop"]
MEMORIES: dict[MemoryMode, str] = {
    "whole": "whole graph",
    "recompute": "steps recomputed",
    "sqrt": "sqrt(K) checkpoints",
}


@dataclass(frozen=True)
class Plan:
    """The plan of running a meta-batch. Each part may change the last bits of a sum, so the plan is saved with a run.

    backend: "vmap" (all tasks at once), "chunks" (`vmap` over `chunk` tasks), "loop" (one by one, without `vmap`).
    chunk: tasks in a part, with "chunks".
    threads: how many parts run at once, each on one core; 0: one after another, each on all cores.
    memory: what inner loops keep for the meta-gradient, see `handful.functional.inner_loop`.
    compiled: whether parts are compiled.

    Raises `UserError` for any other value.

    Example:
        >>> print(Plan.parse("chunks:4+threads:2"))
        chunks of 4, 2 task threads, whole graph
    """

    backend: Backend = "vmap"
    chunk: int = 1
    threads: int = 0
    memory: MemoryMode = "whole"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.backend not in ("vmap", "chunks", "loop"):
            raise UserError(f"A plan's backend is vmap, chunks or loop, not {self.backend!r}.")
        if self.memory not in MEMORIES:
            raise UserError(f"A plan's memory is {', '.join(MEMORIES)}, not {self.memory!r}.")
        if self.chunk < 1:
            raise UserError(f"A plan's chunk is at least 1 task, got {self.chunk}.")
        if self.threads < 0:
            raise UserError(f"A plan's threads are 1 or more, or 0 for none of its own, got {self.threads}.")

    def __str__(self) -> str:
        parts = [{"vmap": "vmap", "chunks": f"chunks of {self.chunk}", "loop": "loop"}[self.backend]]
        if self.threads:
            parts.append(count_of(self.threads, "task thread"))
        parts.append(MEMORIES[self.memory])
        return ", ".join([*parts, "compiled"] if self.compiled else parts)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A plan as written on the command line: `vmap`, `loop`, `chunks:4`, each with `+threads:2`, `+recompute`...

        Raises `UserError` for an unknown part.
        """
        fields: dict[str, Any] = {}
        for part in text.split("+"):
            name, colon, number = part.partition(":")
            if colon and not (number.isdigit() and name in ("chunks", "threads")):
                raise UserError(f"{part!r} is not a part of a plan. Only chunks:N and threads:N have a whole number.")
            if name in ("vmap", "loop", "chunks"):
                fields |= {"backend": name} | ({"chunk": int(number)} if colon else {})
            elif name == "threads" and colon:
                fields["threads"] = int(number)
            elif name in MEMORIES:
                fields["memory"] = name
            elif name == "compiled":
                fields["compiled"] = True
            else:
                raise UserError(
                    f"{part!r} is not a part of a plan. Its parts are vmap, loop or chunks:N, then +threads:N, "
                    f"+{', +'.join(MEMORIES)}, +compiled, as in loop+threads:2+recompute."
                )
        return cls(**fields)

    def written(self) -> str:
        """The text that `parse` reads."""
        parts = [f"chunks:{self.chunk}" if self.backend == "chunks" else self.backend]
        parts += [f"threads:{self.threads}"] if self.threads else []
        parts += [self.memory] if self.memory != "whole" else []
        return "+".join([*parts, "compiled"] if self.compiled else parts)

    def size(self, count: int) -> int:
        """Tasks run at once out of `count`."""
        return {"vmap": count, "chunks": min(self.chunk, count), "loop": 1}[self.backend]

    def parts(self, count: int) -> int:
        """How many parts `count` tasks are run in."""
        return -(-count // self.size(count))

    def leaner(self, count: int) -> Self | None:
        """The plan to try if memory runs out for `count` tasks: half as many at once, then keeping less."""
        if self.backend != "loop" and self.size(count) > 1:
            return replace(self, backend="chunks", chunk=-(-self.size(count) // 2))
        modes = list(MEMORIES)
        if self.memory != modes[-1]:
            return replace(self, memory=modes[modes.index(self.memory) + 1])
        return replace(self, threads=1) if self.threads > 1 else None
