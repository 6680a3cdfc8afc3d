"""The section of a report about the race that its learner won: candidates, scores, and why they were dropped."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handful.errors import count_of
from handful.evaluation.formatting import duration, figures, one_score
from handful.metrics import Metric, recorded_metric

HEADER = ("candidate", "validation", "behind by", "adaptation time", "dropped because")


@dataclass(frozen=True)
class RaceResult:
    """The summary that `race.json` ends with.

    winner: the name of the candidate that was kept.
    metric: what candidates were scored by.
    tasks: validation tasks on which all were scored.
    candidates: best first; each with its "name", "score", how far it is "behind" the winner, "adapt_seconds", why it
        was "dropped", and its "rounds": pairs of seconds of training and the score after them.
    left_out: by name, why other candidates were not scored.
    heads: the heads that were tried on the winner's pre-trained network, in words.
    start: names of those that no training has changed, the others had to be clearly ahead of the best of these.
    examples: the largest number on which a candidate was trained or pre-trained.
    members: of a winner that is an ensemble, with their weights, in words.
    """

    winner: str
    metric: Metric
    tasks: int
    candidates: tuple[Mapping[str, Any], ...]
    left_out: Mapping[str, str]
    heads: tuple[str, ...] = ()
    examples: int = 0
    start: tuple[str, ...] = ()
    members: str = ""

    @classmethod
    def from_json(cls, summary: Mapping[str, Any]) -> "RaceResult":
        """That of a run, see `Run.race`."""
        return cls(
            summary["winner"],
            recorded_metric(summary["metric"]),
            summary["tasks"],
            tuple(summary["candidates"]),
            summary["left_out"],
            tuple(summary.get("heads", ())),
            summary.get("examples", 0),
            tuple(summary.get("start", ())),
            summary.get("members", ""),
        )

    def markdown(self) -> str:
        """The table of candidates, and the heads that were tried on the winner's network."""
        count = len(self.candidates)
        others = f"the best of {count} candidates" if count > 1 else "the only candidate"
        trained = (
            " A trained candidate is kept only if its 60 % interval is ahead of the untrained ones."
            if self.start
            else ""
        )
        members = f" It averages the predictions of {self.members}." if self.members else ""
        parts = [
            f"{self.winner} is {others} on the same {count_of(self.tasks, 'validation task')}.{members} Of those "
            f"that are as good as the first, the fastest to adapt is kept.{trained} The number of candidates flatters "
            "these scores: those on test tasks above say what the model is worth.",
            "\n".join(f"| {' | '.join(line)} |" for line in (HEADER, ["---"] * len(HEADER), *self._rows())),
        ]
        if self.heads:
            parts.append("\n".join(["Tried on its network:", "", *(f"- {trial}" for trial in self.heads)]))
        return "\n\n".join(parts)

    def _rows(self) -> Iterable[list[str]]:
        for row in self.candidates:
            won = row["name"] == self.winner
            yield [
                f"**{row['name']}**" if won else row["name"],
                "none" if row["score"] is None else one_score(row["score"], self.metric),
                "" if won else self._behind(row),
                duration(row["adapt_seconds"]),
                "kept" if won else row["dropped"] or "",
            ]
        for name, why in self.left_out.items():
            yield [name, "", "", "", why]

    def _behind(self, row: Mapping[str, Any]) -> str:
        """By how much the winner is better, with the interval; for RMSE in squared units."""
        ends = [row["behind"][name] for name in ("mean", "low", "high")]
        if any(end is None for end in ends):
            return ""
        if self.metric.unit == "share":
            mean, low, high = (f"{100 * end:.1f}" for end in ends)
            return f"{mean} points ({low} to {high})"
        mean, low, high = map(figures, ends)
        return f"{mean} ({low} to {high}){' squared' if self.metric.root else ''}"

    @property
    def rounds(self) -> dict[str, list[tuple[float, float]]]:
        """For each meta-trained candidate, its scores by the seconds of its training."""
        return {
            row["name"]: points
            for row in self.candidates
            if (points := [(seconds, score) for seconds, score in row.get("rounds", ()) if score is not None])
        }

    @property
    def untrained(self) -> dict[str, float]:
        """For each candidate that takes no meta-steps itself, its score, if it has one."""
        own = self.rounds
        return {row["name"]: row["score"] for row in self.candidates if row["name"] not in own and row["score"]}

    @property
    def dropped(self) -> set[str]:
        """The names of the candidates that were not trained to the end."""
        return {row["name"] for row in self.candidates if row["dropped"]}
