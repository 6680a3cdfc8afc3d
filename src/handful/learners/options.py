"""The options of a learner: what its constructor takes by keyword, checked by name, type and range."""

import inspect
import math
import typing
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from handful.errors import UserError, unknown_name
from handful.types import Kind


class OptionRange(NamedTuple):
    """Which numbers an option may be.

    words: as messages and `handful list` say it.
    """

    words: str
    holds: Callable[[float], bool]


Count: TypeAlias = Annotated[int, OptionRange("of 1 or more", lambda value: value >= 1)]
CountOrZero: TypeAlias = Annotated[int, OptionRange("of 0 or more", lambda value: value >= 0)]
Positive: TypeAlias = Annotated[float, OptionRange("above 0", lambda value: value > 0)]
NotNegative: TypeAlias = Annotated[float, OptionRange("of 0 or more", lambda value: value >= 0)]
BelowOne: TypeAlias = Annotated[float, OptionRange("between 0 and 1", lambda value: 0 < value < 1)]
Fraction: TypeAlias = Annotated[float, OptionRange("from 0 to 1", lambda value: 0 <= value <= 1)]


class ByKind(NamedTuple):
    """A default that is another one for classes than for values."""

    classification: Any
    regression: Any

    def __str__(self) -> str:
        return f"{self.classification}; {self.regression} for values"


def by_kind(*, classification: Any, regression: Any) -> Any:
    """A default for each kind of task; `Any`, since a constructor gets the one of its task."""
    return ByKind(classification, regression)


def options_of(cls: Any) -> dict[str, inspect.Parameter]:
    """The options of a learner: its constructor's keyword-only arguments that it does not fix, with its defaults."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    return {
        p.name: p.replace(default=cls.own_defaults.get(p.name, p.default))
        for p in parameters
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in cls.fixed_options
    }


def defaults_of(cls: Any, kind: Kind) -> dict[str, Any]:
    """The options of a learner with their defaults for a kind of task."""
    defaults = {name: parameter.default for name, parameter in options_of(cls).items()}
    return {name: getattr(value, kind) if isinstance(value, ByKind) else value for name, value in defaults.items()}


def check_names(cls: Any, options: Iterable[str]) -> None:
    """Raise `UserError` for a name that is no option of a learner, but may be another argument of its `build`.

    Checked wherever options come from a file: one of them could name a network, and its code, where nobody looks.
    """
    for name in options:
        if name not in options_of(cls):
            raise unknown_name(f"option of {cls.key!r}", name, options_of(cls))


def check_options(cls: Any, options: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """All options of a learner with their values: the given ones checked, else the defaults for a kind of task."""
    known = defaults_of(cls, kind)
    hints = hints_of(cls)
    for name, value in options.items():
        if name in cls.fixed_options:
            raise UserError(
                f"The learner {cls.key!r} fixes the option {name!r} at {cls.fixed_options[name]!r}: leave it out, or "
                f"choose the learner {_free_to_choose(cls, name)!r}."
            )
        if name not in known:
            raise unknown_name(f"option of {cls.key!r}", name, known)
        if not _fits(value, hints[name]):
            raise UserError(f"The option {name!r} of {cls.key!r} is {written_type(hints[name])}, not {value!r}.")
    return known | options


def _free_to_choose(cls: Any, option: str) -> str:
    """The nearest learner above `cls` that leaves this option open."""
    open_to_it = (base for base in cls.__mro__ if "key" in vars(base) and option not in base.fixed_options)
    return str(next(open_to_it).key)


def hints_of(cls: Any) -> dict[str, Any]:
    """The types and ranges of a constructor's arguments."""
    return typing.get_type_hints(cls.__init__, include_extras=True)


def written_type(hint: Any) -> str:
    """A type and range in words, as messages and lists of options show it."""
    hint, ranges = _parts(hint)
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    article = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
    return " ".join([article.get(getattr(hint, "__name__", ""), str(hint)), *(one.words for one in ranges)])


def _fits(value: Any, hint: Any) -> bool:
    hint, ranges = _parts(hint)
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if hint in (int, float):
        number = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
        return number and math.isfinite(value) and all(one.holds(value) for one in ranges)
    return isinstance(value, hint) if isinstance(hint, type) else True


def _parts(hint: Any) -> tuple[Any, tuple[OptionRange, ...]]:
    if typing.get_origin(hint) is Annotated:
        bare, *ranges = typing.get_args(hint)
        return bare, tuple(ranges)
    return hint, ()
