"""Routes that predict."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from handful.http.answers import of_each, of_one, response_of_predictions
from handful.http.calls import Predicting
from handful.http.documents import takes
from handful.http.json_inputs import inputs_of_each
from handful.http.places import TaskId
from handful.http.reading import Source, made_of, uploads_made_of
from handful.http.schemas import Predict, PredictForTask, PredictForTasks, Predictions, PredictionsOfTasks

router = APIRouter(prefix="/v1", tags=["predictions"])


@router.post("/tasks/{task}/predict", response_model=Predictions, **takes(Predict, upload=True))
async def predict(task: TaskId, call: Predicting) -> Response:
    """Predict inputs by the head of a task, or by another version."""

    def read(given: Predict, source: Source) -> tuple[Predict, list[Any]]:
        tenant = call.identity.tenant
        return given, source.inputs(given.inputs, lambda: call.service.reader_of(task, given.version, tenant=tenant))

    given, inputs = await uploads_made_of(call, Predict, read)
    made = [await call.predict(task, inputs, given.version, given.top)]
    return await response_of_predictions(call, made, of_one)


@router.post("/predict", response_model=PredictionsOfTasks, **takes(PredictForTasks))
async def predict_for_tasks(call: Predicting) -> Response:
    """Predict inputs by each of several tasks, in their order; a problem with one of them is one of them all."""

    def read(given: PredictForTasks) -> list[tuple[PredictForTask, list[Any]]]:
        inputs = inputs_of_each([one.inputs for one in given.root], call.server.limits)
        return list(zip(given.root, inputs, strict=True))

    wanted = await made_of(call, PredictForTasks, read)
    made = await call.predict_each([(one.task, inputs, one.version, one.top) for one, inputs in wanted])
    return await response_of_predictions(call, made, of_each)
