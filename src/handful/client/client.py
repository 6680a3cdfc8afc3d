"""The clients of a server: `handful.Client` and `handful.AsyncClient`."""

from handful.client.connection import Awaiting, Blocking
from handful.client.operator_verbs import OperatorVerbs
from handful.client.task_verbs import TaskVerbs


class Client(TaskVerbs, OperatorVerbs, Blocking):
    """A server of `handful serve`, with the verbs of `handful.Service`. Safe to use from many threads.

    url: the address of the server, such as "https://tasks.example.org".
    key: an API key; it is sent in the header `Authorization` alone, and never to another address.
    timeout: seconds for one call of a method, with all its attempts and waits.
    attempts: how often one request is sent where the server is overloaded or not reached.
    concurrency: how many requests are on their way at once; further ones wait.
    allow_http: send the key without encryption to another machine; it always goes so to addresses of this one.
    tls: whom to trust, in place of the system's certificates.
    transport: of httpx2, in place of the network, such as `httpx2.ASGITransport(app)`.

    A call that the server refuses because it is busy, or that is lost on the way, is sent again where that is safe,
    after waits that differ by chance, until `timeout`.

    Raises `UserError` for an address that no key is sent to, and where `SSL_CERT_FILE` names no certificates. What the
    server refuses is a `UserError` or `DataError` as of the library, with the same code and place; what else goes wrong
    is a `HandfulError`. Both have the `status` of the response and its `request_id`.

    >>> import httpx2
    >>> made = {"task": "task_1", "version": 1, "model": {"name": "intents", "digest": "sha256:0"},
    ...         "predictions": [{"label": "lost card", "probability": 0.93}]}
    >>> server = httpx2.MockTransport(lambda request: httpx2.Response(200, json=made))
    >>> with Client("http://127.0.0.1:8000", "hf_key", transport=server) as client:
    ...     client.predict("task_1", ["Where is my card?"]).predictions[0].label
    'lost card'
    """


class AsyncClient(TaskVerbs, OperatorVerbs, Awaiting):
    """A `Client` to be awaited, in asyncio or trio: methods on single things are awaited, lists iterated over.

    url, key, timeout, attempts, concurrency, allow_http, tls, transport: see `Client`.

    >>> import anyio, httpx2
    >>> made = {"task": "task_1", "version": 1, "model": {"name": "intents", "digest": "sha256:0"},
    ...         "predictions": [{"label": "lost card", "probability": 0.93}]}
    >>> async def predict():
    ...     server = httpx2.MockTransport(lambda request: httpx2.Response(200, json=made))
    ...     async with AsyncClient("http://127.0.0.1:8000", "hf_key", transport=server) as client:
    ...         return (await client.predict("task_1", ["Where is my card?"])).predictions[0].label
    >>> anyio.run(predict)
    'lost card'
    """
