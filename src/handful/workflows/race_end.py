"""The end of a race: its winner as an ordinary meta-model, and the summary in its record."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from handful.errors import count_of
from handful.evaluation.formatting import duration
from handful.models.meta_model import MetaModel
from handful.storage import finite, write_json, write_text
from handful.training.performance import performance
from handful.workflows.race_entrants import Entrant, Track
from handful.workflows.race_scores import Scored


@dataclass(frozen=True)
class Finish:
    """The result of a race.

    scores: the best of each candidate.
    dropped: why some were not trained to the end.
    rounds: of those that were meta-trained, the seconds that each had trained after its rounds, and its scores then.
    examples: the largest number on which a candidate was trained or pre-trained.
    start: the names of the untrained ones, where others had to be clearly ahead of them.
    facts: what else the model says of itself.
    """

    winner: Entrant
    scores: dict[str, Scored]
    dropped: dict[str, str]
    rounds: dict[str, list[tuple[float, float]]]
    examples: int
    start: Sequence[str] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def finished(track: Track, finish: Finish) -> MetaModel:
    """Save the winner as an ordinary meta-model, and the record of the race."""
    winner, run, record = finish.winner, track.run, track.record
    score, judge = finish.scores[winner.name], track.judge
    ranked = sorted(finish.scores, key=lambda name: judge.rank(finish.scores[name]), reverse=True)
    facts = {
        "tasks": track.experiment.source.name,
        "trained steps": winner.steps,
        "kept step": winner.kept_step,
        "selection": (
            f"the best of {count_of(len(ranked), 'candidate')} on the same {len(score.scores)} tasks of the val split"
        ),
        "metric": track.metric.name,
        "validation score": judge.score(score),
        "adaptation time": duration(score.seconds),
        "examples": winner.examples,
        "plan": winner.plan or "None",
        "seed": track.experiment.seed,
        "race": finite({name: judge.score(finish.scores[name]) for name in ranked}),
        **finish.facts,
        **track.experiment.start(),
    }
    learner, pipeline = winner.learner(), winner.track.tasks.pipeline
    model = MetaModel(learner, pipeline, facts, whole_encoder=track.experiment.whole_encoder)
    history = winner.history or [{"step": 0, "seconds": round(record.spent, 3), "val": judge.score(score)}]
    write_text(run.path / "metrics.jsonl", "".join(f"{json.dumps(row)}\n" for row in history))
    model.save_pretrained(run.path / "model")
    record.end(summary(track, finish, ranked))
    shutil.rmtree(run.path / "checkpoints" / "race", ignore_errors=True)
    if winner.steps:
        tasks, expected = winner.training_tasks(), winner.predicted_bytes
        speed = performance(history, learner, tasks, winner.batch, predicted_bytes=expected)
        write_json(run.path / "performance.json", speed)
    return model


def summary(track: Track, finish: Finish, ranked: Sequence[str]) -> dict[str, Any]:
    """The summary that `race.json` ends with: the winner, and each candidate, the best first.

    Of a candidate: its score, by how much it is behind the winner with the 95 % interval (in the unit in which scores
    are averaged), seconds to adapt to a task, why it was dropped, and after each round the seconds that it had trained
    and its score then. Of the winner: what was tried on its pre-trained network, and the members of an ensemble. Of
    all: the most examples on which one was trained, for the ladder beside a winner that saw none, and which no training
    has changed.
    """
    best = finish.scores[finish.winner.name]
    rows = []
    for name in ranked:
        gap = track.judge.ahead(best, finish.scores[name])
        rows.append(
            {
                "name": name,
                "score": track.judge.score(finish.scores[name]),
                "behind": {"mean": gap.mean, "low": gap.low, "high": gap.high},
                "adapt_seconds": finish.scores[name].seconds,
                "dropped": finish.dropped.get(name),
                "rounds": finish.rounds.get(name, []),
            }
        )
    left_out = {name: why for name, why in finish.dropped.items() if name not in finish.scores}
    facts = {"winner": finish.winner.name, "metric": track.metric.name, "tasks": len(best.scores)}
    facts |= {"heads": track.record.results.get(f"heads of {finish.winner.name}", [])}
    facts |= {"examples": finish.examples, "start": list(finish.start), "members": finish.facts.get("members", "")}
    return finite(facts | {"candidates": rows, "left_out": left_out})  # type: ignore[no-any-return]
