"""Routes that predict."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from handful.errors import HandfulError
from handful.http.calls import Call, Predicting, answer
from handful.http.documents import takes
from handful.http.json_inputs import inputs_of
from handful.http.places import TaskId, checked_task
from handful.http.reading import made_of
from handful.http.schemas import Predict, PredictForTask, PredictForTasks, Predictions, PredictionsOfTasks

router = APIRouter(prefix="/v1", tags=["predictions"])


@router.post("/tasks/{task}/predict", response_model=Predictions, **takes(Predict))
async def predict(task: TaskId, call: Predicting) -> Response:
    """Predict inputs by the head of a task, or by another version."""

    def read(given: Predict) -> tuple[Predict, list[Any]]:
        return given, inputs_of(given.inputs, call.server.limits)

    return answer(await _predicted(call, task, *await made_of(call, Predict, read)))


@router.post("/predict", response_model=PredictionsOfTasks, **takes(PredictForTasks))
async def predict_for_tasks(call: Predicting) -> Response:
    """Predict inputs by each of several tasks, in their order; a problem with one of them is one of them all."""

    def read(given: PredictForTasks) -> list[tuple[PredictForTask, list[Any]]]:
        limits = call.server.limits
        return [(one, inputs_of(one.inputs, limits, field=(n, "inputs"))) for n, one in enumerate(given.root)]

    wanted = await made_of(call, PredictForTasks, read)
    made = await asyncio.gather(*(_placed(call, place, *one) for place, one in enumerate(wanted)))
    return answer(PredictionsOfTasks(made))


async def _predicted(call: Call, task: str, given: Predict, inputs: list[Any]) -> Predictions:
    return Predictions.of(await call.predict(task, inputs, given.version, given.top))


async def _placed(call: Call, place: int, given: PredictForTask, inputs: list[Any]) -> Predictions:
    """Predictions of one of several requests, whose errors say which it is."""
    try:
        return await _predicted(call, checked_task(given.task), given, inputs)
    except HandfulError as error:
        error.field = (place, *error.field)
        raise
