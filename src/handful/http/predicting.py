"""Routes that predict."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from handful.http.calls import Predicting, answer
from handful.http.documents import takes
from handful.http.reading import content_of, inputs_of
from handful.http.schemas import Predict, Predictions

router = APIRouter(tags=["predictions"])


@router.post("/v1/tasks/{task}/predict", response_model=Predictions, **takes(Predict))
async def predict(task: str, request: Request, call: Predicting) -> Response:
    """Predict inputs by the head of a task, or by another version."""
    given = await content_of(request, Predict)
    made = await call.look(call.service.predict, task, inputs_of(given.inputs), version=given.version, top=given.top)
    return answer(Predictions.of(made))
