"""Lines of a report about the pretrained encoder that a model starts from."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handful.evaluation.formatting import one_score
from handful.metrics import Metric

SHOWN = 5
"""How many data sets are named at most."""
SHORTEST = 5
"""Letters and digits that two names share if they may name one data set."""
CHOICES = {"frozen": "its frozen vectors", "map": "a linear map on its frozen vectors", "tuned": "the tuned encoder"}
OF_ANY_DATA = frozenset({"train", "training", "tests", "texts", "table", "labels", "images", "photos", "dataset"})


@dataclass(frozen=True)
class UsedEncoder:
    """A pretrained encoder, and how it came into a model.

    name, revision: see `Encoder`.
    tuned: whether it is a part of the learner, which trained it.
    provenance: facts from its model card, see `Encoder.provenance`.
    scores: on validation tasks, of the best on its vectors ("frozen"), of a linear map on them ("map"), and "tuned",
        with what was "kept", and the "share" of what tuning changed; empty without such a choice.
    """

    name: str
    revision: str
    tuned: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Its facts, by these names."""
        return {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(self).items()}

    def lines(self, metric: Metric) -> Iterable[str]:
        """Its name, revision, license and training data, and whether it is tuned."""
        state, licence = "tuned" if self.tuned else "frozen", self.provenance.get("licence", "not stated")
        yield (
            f"Encoder: {self.name}, revision {self.revision}, {state}; license: {licence}; trained on: "
            f"{self._shown() or 'not stated'}."
        )
        if self.scores:
            shown = {name: one_score(self.scores[name], metric) for name in ("frozen", "map", "tuned")}
            yield (
                f"Chosen on validation tasks: {CHOICES[self.scores['kept']]} (frozen vectors {shown['frozen']}, map "
                f"{shown['map']}, tuned {shown['tuned']})."
            )

    def warning(self, source: str) -> str:
        """What its training data may mean for scores on this source of tasks."""
        data, named = self.provenance.get("trained on", ""), Path(source).stem
        bearing = next((one for one in data.split(", ") if _alike(one, named)), None)
        if bearing is not None:
            return (
                f"**The encoder {self.name} was trained on {bearing}, which has the name of {source}. If these are the "
                f"same data, the encoder was trained on the test classes, and the scores here do not show how well new "
                f"classes are learned.**"
            )
        trained = f"on {self._shown()}" if data else "on data that its card does not name"
        return (
            f"The encoder {self.name} was trained {trained}. If the test classes were among its training data, these "
            f"scores are too good."
        )

    def _shown(self) -> str:
        data = self.provenance.get("trained on", "").split(", ")
        more = f" and {len(data) - SHOWN} more" if len(data) > SHOWN else ""
        return ", ".join(data[:SHOWN]) + more


def _alike(data: str, source: str) -> bool:
    """Whether the name of a data set on a hub and that of a file may be of the same data."""
    one, other = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (data.rpartition("/")[2], source))
    shorter = min(one, other, key=len)
    return len(shorter) >= SHORTEST and shorter not in OF_ANY_DATA and (one in other or other in one)
