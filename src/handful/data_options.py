"""The options of the user's data: what the columns of a table are, and how inputs are made."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from handful.errors import UserError, named, unknown_name

OF_PIPELINE = ("encoder", "tune_encoder", "long_texts", "inputs", "image_size")
"""The options that say how inputs are made of the data."""
OFF, AUTO, ON, LAST = "off", "auto", "on", "last"
"""Ways of tuning an encoder; the last one with a number of layers."""
RAW = "raw"
"""The kind of inputs that are not scaled."""


def _option(words: str, default: Any = None, *, settled: bool = False, of_file: bool = False) -> Any:
    """An option with its help. settled: whether a trained model has settled it. of_file: whether each file has one."""
    return field(default=default, metadata={"help": words, "settled": settled, "of_file": of_file})


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Each option of the user's data, with its help. `open_tasks` takes them, and the command line as flags."""

    label: str | None = _option("Column with the class.")
    task: str | None = _option("Column that tells the tasks apart: customer, shop, school.")
    target: str | None = _option("Column with the number to predict.")
    group: str | None = _option("Column of a writer, video, patient: never on both sides of a task.")
    order: str | None = _option("Column of a date, week: the examples of a task precede its queries.")
    drop: tuple[str, ...] = _option("Column to leave out; repeatable.", ())
    decimal: str | None = _option("Decimal mark, . or ,: where the cells of a file do not show it.", of_file=True)
    dates: str | None = _option("Order of dates, dmy or mdy: where the cells of a file do not show it.", of_file=True)
    encoding: str | None = _option("Encoding of a text file that is not UTF-8 or UTF-16, such as cp1252.", of_file=True)
    text: str | None = _option("Column with a text, read by a sentence encoder.")
    encoder: str | None = _option(
        "Pretrained network that texts or images are read by: a name, a folder, or your own as package.module:name.",
        settled=True,
    )
    tune_encoder: str | None = _option(
        "Whether the encoder is trained too: off, on, last:K (its last K layers), or auto: by the minutes there are.",
        settled=True,
    )
    long_texts: str | None = _option(
        "Texts longer than the encoder reads: cut, or the mean of their parts.", settled=True
    )
    split_by: str | None = _option("Column of a domain, region: all of one is in the same split.", settled=True)
    test: str | None = _option("Other data like these to test on; then all of these are for training.", settled=True)
    inputs: str | None = _option(
        "raw: the numbers of arrays stay as they are, such as token ids; by default they are scaled.", settled=True
    )
    image_size: int | None = _option("Pixels a side of images.", settled=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", tuple(self.drop or ()))
        for name, noun, known in (
            ("decimal", "decimal mark", (".", ",")),
            ("dates", "order of day and month", ("dmy", "mdy")),
            ("long_texts", "way of long texts", ("cut", "mean")),
            ("inputs", "kind of inputs", (RAW,)),
        ):
            if getattr(self, name) not in (None, *known):
                raise UserError(
                    f"The {noun} is {' or '.join(map(repr, known))}, not {getattr(self, name)!r}.",
                    field=(name,),
                    hint=f"Change {named(name)}, or leave it out.",
                )
        self.tuned_layers()
        if self.image_size is not None and self.image_size < 1:
            raise UserError(
                f"Images have 1 pixel a side at least, not {self.image_size}.",
                field=("image_size",),
                hint="Change {image_size}.",
            )

    def tuned_layers(self) -> int | None:
        """How many of the encoder's last layers are trained: 0 none, None all of them.

        Raises `UserError` where `tune_encoder` says nothing of the kind.
        """
        way = self.tune_encoder or OFF
        if way == ON:
            return None
        last, colon, count = way.partition(":")
        if way in (OFF, AUTO):
            return 0
        if last != LAST or not colon or not count.isascii() or not count.isdigit() or int(count) < 1:
            raise UserError(
                f"An encoder is tuned {OFF}, {AUTO}, {ON} or {LAST}:K, such as {LAST}:2, not {way!r}.",
                field=("tune_encoder",),
                hint="Change {tune_encoder}, or leave it out.",
            )
        return int(count)

    def left_open(self) -> Self:
        """These options without those that a trained pipeline has settled."""
        unset: dict[str, Any] = dict.fromkeys(OF_PIPELINE)
        return replace(self, **unset)

    def for_file(self, given: "DataOptions | None") -> Self:
        """These options, but for what is given of one file alone: how it is written."""
        own = [option.name for option in fields(DataOptions) if option.metadata["of_file"]]
        return replace(self, **{name: value for name in own if given and (value := getattr(given, name))})

    @staticmethod
    def check(given: dict[str, Any]) -> None:
        """Raise a `UserError` with the nearest name where one of these is no option."""
        known = [option.name for option in fields(DataOptions)]
        for name in given:
            if name not in known:
                raise unknown_name("option of the data", name, known)

    def refuse(self, source: str, *names: str) -> None:
        """Raise a `UserError` where one of these options is given, for it means nothing for this source."""
        for name in names:
            if getattr(self, name):
                raise UserError(
                    f"The option {name} does not apply to {source}.", field=(name,), hint=f"Leave out {named(name)}."
                )
