"""Registries: defining a learner, a task source or a backbone registers it; no second list is kept.

A registry finds its members on first use: it imports the modules of one package of handful and the entry points of
other packages. Until then nothing heavy is imported, so that `handful --help` stays quick.
"""

import importlib
import pkgutil
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from handful.errors import HandfulError, unknown_name

Member = TypeVar("Member")


class Registry(Generic[Member]):
    """Names to members of one kind.

    noun: what a member is called in messages.
    home: the package or module whose import registers handful's own members; it is also the entry-point group for those
        of other packages.
    more: other modules with members.
    """

    def __init__(self, noun: str, home: str, *more: str) -> None:
        self.noun = noun
        self.home, self.more = home, more
        self._members: dict[str, Member] = {}
        self._discovered = False
        self._discovering = threading.RLock()  # a module that is imported may ask for a member

    def register(self, name: str, member: Member) -> None:
        """Add a member; a second one of the same name is a programming error."""
        taken = self._members.get(name)
        if taken is not None and _home(taken) != _home(member):
            raise HandfulError(f"Two {self.noun}s are named {name!r}: {_home(taken)} and {_home(member)}.")
        self._members[name] = member

    def __getitem__(self, name: str) -> Member:
        """The member of this name; `UserError` with the nearest name for an unknown one."""
        self._discover()
        if name not in self._members:
            raise unknown_name(self.noun, name, self._members)
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._members))

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._members

    def items(self) -> list[tuple[str, Member]]:
        """All names and members, sorted by name."""
        return [(name, self._members[name]) for name in self]

    def lasting_name(self, member: object) -> str | None:
        """The name by which any process finds this member: of handful's own and of those of entry points; else None."""
        packages = {__package__, *(entry.module.partition(".")[0] for entry in entry_points(group=self.home))}
        for name, registered in self.items():
            if registered is member and _home(member).partition(".")[0] in packages:
                return name
        return None

    def _discover(self) -> None:
        with self._discovering:
            if self._discovered:
                return
            self._discovered = True
            try:
                home = importlib.import_module(self.home)
                for module in pkgutil.iter_modules(getattr(home, "__path__", [])):
                    importlib.import_module(f"{self.home}.{module.name}")
                for module_name in self.more:
                    importlib.import_module(module_name)
                for entry in entry_points(group=self.home):
                    entry.load()
            except BaseException:
                self._discovered = False
                raise


def _home(member: object) -> str:
    return f"{getattr(member, '__module__', '?')}.{getattr(member, '__qualname__', member)}"


LEARNERS: Registry[Any] = Registry("learner", "handful.learners")
TASKS: Registry[Any] = Registry("task source", "handful.tasks")
BACKBONES: Registry[Any] = Registry("backbone", "handful.backbones", "handful.encoders.tuned")
METRICS: Registry[Any] = Registry("metric", "handful.metrics")
