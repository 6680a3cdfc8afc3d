"""Routes that predict."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from handful.errors import HandfulError
from handful.http.calls import Call, Predicting, answer
from handful.http.documents import takes
from handful.http.places import TaskId, checked_task
from handful.http.reading import content_of, inputs_of
from handful.http.schemas import Predict, PredictForTask, PredictForTasks, Predictions, PredictionsOfTasks

router = APIRouter(prefix="/v1", tags=["predictions"])


@router.post("/tasks/{task}/predict", response_model=Predictions, **takes(Predict))
async def predict(task: TaskId, request: Request, call: Predicting) -> Response:
    """Predict inputs by the head of a task, or by another version."""
    return answer(await _predicted(call, task, await content_of(request, Predict)))


@router.post("/predict", response_model=PredictionsOfTasks, **takes(PredictForTasks))
async def predict_for_tasks(request: Request, call: Predicting) -> Response:
    """Predict inputs by each of several tasks, in their order; a problem with one of them is one of them all."""
    wanted = (await content_of(request, PredictForTasks)).root
    made = await asyncio.gather(*(_placed(call, place, one) for place, one in enumerate(wanted)))
    return answer(PredictionsOfTasks(made))


async def _predicted(call: Call, task: str, given: Predict) -> Predictions:
    inputs = inputs_of(given.inputs)
    return Predictions.of(await call.look(call.service.predict, task, inputs, version=given.version, top=given.top))


async def _placed(call: Call, place: int, given: PredictForTask) -> Predictions:
    """Predictions of one of several requests, whose errors say which it is."""
    try:
        return await _predicted(call, checked_task(given.task), given)
    except HandfulError as error:
        error.field = (place, *error.field)
        raise
