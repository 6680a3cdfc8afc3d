"""The limit that the service is compared with: a bare Starlette route on the same server, which parses and echoes.

python -m benchmarks.service.bare PORT
"""

import sys

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """What a client sends for a prediction."""

    inputs: list[list[float]]


DECODER, ENCODER = msgspec.json.Decoder(Body), msgspec.json.Encoder()


async def echo(request: Request) -> Response:
    """Answer with what was sent."""
    return Response(ENCODER.encode(DECODER.decode(await request.body())), media_type="application/json")


APP = Starlette(
    routes=[
        Route("/v1/tasks/{task}/predict", echo, methods=["POST"]),
        Route("/readyz", lambda _: Response("ready")),
    ]
)

if __name__ == "__main__":
    uvicorn.run(APP, port=int(sys.argv[1]), log_level="warning", access_log=False)
