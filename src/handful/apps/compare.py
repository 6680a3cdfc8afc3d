"""Evaluated runs side by side, on the same tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from handful.errors import UserError
from handful.evaluation.intervals import interval
from handful.evaluation.report import load_scores
from handful.training.run import Run


def compare(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """One entry per setting that all runs were evaluated on, with each run's score and its gain over the best other.

    Raises `UserError` where the runs were not scored on the same tasks: another source, split seed or setting.
    """
    if len(runs) < 2:
        raise UserError("Comparing takes two runs or more, as in: handful compare runs/protonet runs/maml.")
    found = [Run.existing(run) for run in runs]
    sources = [run.config()["source"] for run in found]
    for run, source in zip(runs, sources, strict=True):
        differing = [name for name in source if source[name] != sources[0][name]]
        if differing:
            raise UserError(
                f"{run} was evaluated on other tasks than {runs[0]} ({', '.join(differing)} differ). Only scores on "
                "the same tasks compare."
            )
    own = [{_setting(s): s["rows"][0] for s in load_scores(report_folder(run.path))["settings"]} for run in found]
    shared = [setting for setting in own[0] if all(setting in settings for settings in own)]
    if not shared:
        raise UserError(
            f"The runs share no setting: {'; '.join(f'{r}: {list(o)}' for r, o in zip(runs, own, strict=True))}. "
            "Evaluate them with the same --way, --shot and --query-shot."
        )
    return [_compared(setting, runs, [settings[setting] for settings in own]) for setting in shared]


def report_folder(run: Path) -> Path:
    """Where a run's report is: `evaluate` writes into `report`, the quickstart beside its picture page."""
    return run / "report" if (run / "report").exists() else run


def _compared(setting: str, runs: Sequence[Path], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    count = min(len(row["scores"]) for row in rows)
    scores = [torch.tensor(row["scores"][:count], dtype=torch.float64) for row in rows]
    units = torch.tensor(rows[0]["units"][:count])
    sign = 1 if rows[0]["metric"] == "accuracy" else -1
    order = sorted(range(len(runs)), key=lambda index: -sign * float(scores[index].mean()))
    best = order[0]
    compared = []
    for index in order:
        entry = {
            "run": str(runs[index]),
            "learner": rows[index]["learner"],
            "score": vars(interval(scores[index], units)),
        }
        if index != best:
            entry["against_best"] = vars(interval(sign * (scores[index] - scores[best]), units))
        compared.append(entry)
    return {"setting": setting, "metric": rows[0]["metric"], "runs": compared}


def _setting(setting: dict[str, Any]) -> str:
    way = f"{setting['way']}-way " if setting["way"] else ""
    return f"{way}{setting['shot']}-shot, {setting['query_shot'] or 'all remaining'} queries"
