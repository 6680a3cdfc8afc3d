"""Options of the user's data: the roles of a table's columns, and how inputs are encoded."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from handful.errors import UserError, named, unknown_name

OF_PIPELINE = ("encoder", "tune_encoder", "long_texts", "inputs", "image_size")
"""Options of the encoding of inputs."""
OFF, AUTO, ON, LAST = "off", "auto", "on", "last"
"""Ways of tuning an encoder; the last one with a number of layers."""
RAW = "raw"
"""The kind of inputs that are not scaled."""


def _option(words: str, default: Any = None, *, settled: bool = False, of_file: bool = False) -> Any:
    """An option with its help.

    settled: whether a trained model has settled it.
    of_file: whether each file has one.
    """
    return field(default=default, metadata={"help": words, "settled": settled, "of_file": of_file})


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Each option of the user's data, with its help. `open_tasks` takes them, and the command line as flags."""

    label: str | None = _option("Column with the class.")
    task: str | None = _option("Column that names the task of each row: customer, shop, school.")
    target: str | None = _option("Column with the number to predict.")
    group: str | None = _option("Column of a writer, video, patient: rows of one are never in both support and query.")
    order: str | None = _option("Column of a date or week: the support of a task precedes its queries.")
    drop: tuple[str, ...] = _option("Column to leave out; repeatable.", ())
    decimal: str | None = _option("Decimal mark, . or , if the cells of a file are ambiguous.", of_file=True)
    dates: str | None = _option("Order of dates, dmy or mdy, if the cells of a file are ambiguous.", of_file=True)
    encoding: str | None = _option("Encoding of a text file that is not UTF-8 or UTF-16, such as cp1252.", of_file=True)
    text: str | None = _option("Column of texts, for a sentence encoder.")
    encoder: str | None = _option(
        "Pretrained network for texts or images: a name, a folder, or your own as package.module:name.",
        settled=True,
    )
    tune_encoder: str | None = _option(
        "Train the encoder, too: off, on, last:K (its last K layers), or auto (if the time suffices).",
        settled=True,
    )
    long_texts: str | None = _option(
        "Texts too long for the encoder: cut, or mean (average of their parts).", settled=True
    )
    split_by: str | None = _option(
        "Column of a domain or region, each of which is kept within one split.", settled=True
    )
    test: str | None = _option(
        "Separate data to test on; all other data are then for training and validation.", settled=True
    )
    inputs: str | None = _option(
        "raw: keep the numbers of arrays, such as token ids; default: standardize them.", settled=True
    )
    image_size: int | None = _option("Width and height of images in pixels; default: by the data.", settled=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "drop", tuple(self.drop or ()))
        for name, noun, known in (
            ("decimal", "decimal mark", (".", ",")),
            ("dates", "order of day and month", ("dmy", "mdy")),
            ("long_texts", "treatment of long texts", ("cut", "mean")),
            ("inputs", "kind of inputs", (RAW,)),
        ):
            if getattr(self, name) not in (None, *known):
                raise UserError(
                    f"The {noun} is {' or '.join(map(repr, known))}, not {getattr(self, name)!r}.",
                    field=(name,),
                    hint=f"Change {named(name)}, or remove it.",
                )
        self.tuned_layers()
        if self.image_size is not None and self.image_size < 1:
            raise UserError(
                f"The image size is at least 1 pixel, not {self.image_size}.",
                field=("image_size",),
                hint="Change {image_size}.",
            )

    def tuned_layers(self) -> int | None:
        """How many of the encoder's last layers are trained: 0 none, None all of them.

        Raises `UserError` for any other `tune_encoder`.
        """
        way = self.tune_encoder or OFF
        if way == ON:
            return None
        last, colon, count = way.partition(":")
        if way in (OFF, AUTO):
            return 0
        if last != LAST or not colon or not count.isascii() or not count.isdigit() or int(count) < 1:
            raise UserError(
                f"Tuning an encoder is {OFF}, {AUTO}, {ON} or {LAST}:K, such as {LAST}:2, not {way!r}.",
                field=("tune_encoder",),
                hint="Change {tune_encoder}, or remove it.",
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
        """Raise `UserError` with the nearest name where one of these is no option."""
        known = [option.name for option in fields(DataOptions)]
        for name in given:
            if name not in known:
                raise unknown_name("option of the data", name, known)

    def refuse(self, source: str, *names: str) -> None:
        """Raise `UserError` if one of these options is given, for it means nothing for this source."""
        for name in names:
            if getattr(self, name):
                raise UserError(
                    f"The option {name} does not apply to {source}.", field=(name,), hint=f"Remove {named(name)}."
                )
