"""Requests and responses as an example for each main route, for the API page and docs/reference/api.md."""

from typing import Any, NamedTuple

TASK_ID = "task_0199c5a1f3b27c4e8d6a5b4c3d2e1f00"
EXAMPLE_ID = "ex_0199c5a1f3b27c4e8d6a5b4c3d2e1f01"
KEY_ID = "key_0199c5a1f3b27c4e8d6a5b4c3d2e1f02"
MODEL = {"name": "tickets", "digest": "eae897aa2f34b2777b8abd2268fc4be4"}
TASK = {
    "id": TASK_ID,
    "name": "shop 12",
    "model": MODEL,
    "version": 1,
    "labels": ["delivery", "refund"],
    "targets": [],
    "examples": 4,
    "keep_examples": True,
    "estimate": None,
    "created_at": "2026-11-30T09:12:44.512Z",
    "deleted_at": None,
    "notes": [],
}
PREDICTIONS = {
    "task": TASK_ID,
    "version": 1,
    "model": MODEL,
    "predictions": [
        {"label": "refund", "probability": 0.93, "probabilities": {"refund": 0.93, "delivery": 0.07}}
        | dict.fromkeys(("value", "deviation", "low", "high"))
    ],
    "notes": [],
}
EXAMPLES = [
    {"input": "Where is my parcel?", "label": "delivery"},
    {"input": "It has not arrived yet.", "label": "delivery"},
    {"input": "I want my money back.", "label": "refund"},
    {"input": "Please return the amount.", "label": "refund"},
]
PROBLEM = {
    "type": "/problems/non-finite",
    "title": "A number is not finite.",
    "status": 422,
    "detail": "A number of the input is NaN or infinite.",
    "instance": "req_5f0c9a4b7d3e21688a1b2c3d",
    "errors": [
        {
            "pointer": "/examples/3/input",
            "code": "non-finite",
            "detail": "A number of the input is NaN or infinite.",
        }
    ],
}
"""What went wrong, as a response says it."""


class Exchange(NamedTuple):
    """A request and its response.

    request: None for one without content.
    """

    request: Any
    answer: Any


EXCHANGES = {
    ("post", "/v1/tasks"): Exchange({"name": "shop 12", "model": "tickets", "examples": EXAMPLES}, TASK),
    ("post", "/v1/tasks/{task}/predict"): Exchange(
        {"inputs": ["You charged me twice, give it back."], "top": 2}, PREDICTIONS
    ),
    ("post", "/v1/predict"): Exchange([{"task": TASK_ID, "inputs": ["Give it back."]}], [PREDICTIONS]),
    ("post", "/v1/tasks/{task}/examples"): Exchange(
        {"examples": [{"input": "My password does not work.", "label": "account"}]},
        TASK | {"version": 2, "labels": ["account", "delivery", "refund"], "examples": 5},
    ),
    ("post", "/v1/tasks/{task}/corrections"): Exchange(
        {"examples": [{"input": "It has not arrived yet.", "label": "refund"}]}, TASK | {"version": 3}
    ),
    ("post", "/v1/tasks/{task}/rollback"): Exchange({"version": 1}, TASK),
    ("get", "/v1/tasks"): Exchange(None, {"data": [TASK], "has_more": False, "next_after": None}),
    ("get", "/v1/tasks/{task}/examples"): Exchange(
        None,
        {"data": [{"id": EXAMPLE_ID, **EXAMPLES[0], "value": None}], "has_more": True, "next_after": EXAMPLE_ID},
    ),
    ("post", "/v1/keys"): Exchange(
        {"name": "scanner", "scope": "predict", "expires_at": "2030-01-31T00:00:00Z"},
        {
            "id": KEY_ID,
            "tenant": "default",
            "name": "scanner",
            "scope": "predict",
            "created_at": "2026-11-30T09:12:44.512Z",
            "expires_at": "2030-01-31T00:00:00.000Z",
            "revoked_at": None,
            "token": "hf_0199c5a1f3b27c4e8d6a5b4c3d2e1f02_...",
            "notes": [],
        },
    ),
}
"""By method and path. The response stands for all that succeed."""
