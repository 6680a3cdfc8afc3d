"""Whatever is sent to a server, it answers with a status that it means, and tells nothing of what was sent.

Requests are drawn from strategies of our own, which damage good ones, and from the committed OpenAPI document. No
answer is a 5xx but a deliberate one, shows a trace or an input, or is no problem of the closed list; equal rounds of
requests leave the server's memory as it was.
"""

import base64
import http.client
import io
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from tests.http.processes import HEADERS, serving

from handful.http.problems import KINDS
from handful.learners.bayesian_heads import BayesianLastLayer
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.pipelines.own_tables import ManyTablesPipeline
from handful.pipelines.rows import TablePipeline
from handful.table import Table
from handful.types import TaskSpec

MARKER = "MARKER-7f3a"
"""Stands in inputs, keys and queries; no answer that refuses a request shows it."""
NAMES = ("name", "model", "label", "scope", "tenant")
"""What an answer may show where it is wrong, cut to a length."""
LONGEST = 16 * 2**10
"""Bytes of an answer that refuses a request."""

STATUSES = {200, 201, 204, 400, 401, 403, 404, 405, 406, 408, 409, 412, 413, 415, 422, 428, 429, 431, 503, 507}
ROUNDS = 3
MEBIBYTES = 8
"""By which the server's memory grows at most in a round like the one before."""

OPENAPI = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
ROWS = {"size": [1.0, 2.0, 8.0, 9.0], "color": ["red", "blue", "red", "blue"]}


def models():
    """One of arrays, two of rows, one of images and one of a value."""
    rows, photos = TablePipeline.fit(Table("rows", pa.table(ROWS)), np.arange(4)), ImagePipeline(size=8, channels=1)

    def classifier(pipeline, shape):
        return MetaModel(PrototypicalNetwork.build(TaskSpec("classification", shape, 2), backbone="linear"), pipeline)

    price = BayesianLastLayer.build(
        TaskSpec("regression", (3,), 1, "shared"), backbone="mlp", backbone_options={"hidden": [6]}
    )
    return {
        "points": classifier(None, (3,)),
        "rows": classifier(rows, rows.input_shape),
        "tables": classifier(ManyTablesPipeline(width=4, label="last"), (4,)),
        "photos": classifier(photos, photos.input_shape),
        "price": MetaModel(price),
    }


# What is sent


class Raw(str):
    """JSON as it stands."""


@dataclass
class Sent:
    """A request. path: with `{task}` and `{example}` for real ids. route: which one it is meant for."""

    route: str
    method: str
    path: str
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def picture(gray):
    content = io.BytesIO()
    Image.new("L", (8, 8), gray).save(content, "PNG")
    return {"image": base64.b64encode(content.getvalue()).decode()}


GOOD = {
    "points": ([[0.1, 0.2, 0.3], [1, 2, 3]], "label", ["a", "b"]),
    "rows": ([{"size": 1.0, "color": "red"}, {"size": 8.5, "color": "blue"}], "label", ["a", "b"]),
    "tables": ([{"weight": 1.0, "kind": "red"}, {"weight": 8.5, "kind": "blue"}], "label", ["a", "b"]),
    "photos": ([picture(7), picture(200)], "label", ["a", "b"]),
    "price": ([[0.1, 0.2, 0.3], [1, 2, 3]], "value", [1.5, 2.5]),
}


def examples(model):
    inputs, name, labels = GOOD[model]
    return [{"input": one, name: label} for one, label in zip(inputs, labels, strict=True)]


def contents(route, model):
    """A content that a route takes."""
    inputs = GOOD[model][0]
    return {
        "/v1/tasks": {"name": "new", "model": model, "examples": examples(model), "keep_examples": True},
        "/v1/tasks/{task}/examples": {"examples": examples(model)},
        "/v1/tasks/{task}/corrections": {"examples": examples(model)},
        "/v1/tasks/{task}/predict": {"inputs": inputs, "version": 1, "top": 2},
        "/v1/predict": [{"task": "{task}", "inputs": inputs}],
        "/v1/tasks/{task}/rollback": {"version": 1},
        "/v1/tasks/{task}/evaluate": {"examples": examples(model)},
        "/v1/keys": {"name": "of a test", "scope": "predict"},
        "/v1/tenants": {"name": "acme"},
    }.get(route, {})


def nested(depth, opening="[", closing="]"):
    return opening * depth + closing * depth


TOKENS = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39", "-3.5e38", "1e-400", "1e308"),
    *("9" * 400, "1" * 5000, "-0", "00", "1.", "null", "true", "false", "[]", "{}", "[[]]", "[null]"),
    *("[1, [2]]", "[[1, 2], [3]]", "[[1, 2, 3]]", "[1, 2]", "[1, 2, 3, 4]", "[" + "1," * 5000 + "1]"),
    *('"1"', '""', r'"\ud800"', r'"\udc00x"', r'"\u0000"', r'"\u202e"', r'{"\ud800": 1}', '"\x01"', "'x'", '"'),
    *('{"image": "!"}', '{"image": null}', '{"image": ""}', '{"image": "R0lGOD"}', '{"a": 1, "a": 2}'),
    *(
        f'"{MARKER}"',
        f'{{"size": "{MARKER}", "color": 5}}',
        f'{{"weight": "{MARKER}", "kind": null}}',
        f'["{MARKER}"]',
        f'{{"image": "{MARKER}"}}',
    ),
    *(nested(20), nested(40), nested(2000), nested(600, '{"a":', "1"), "[" * 3000),
    *("]", "[1,", "{", '{"a"}', "[,]", "", '"' + "x" * 40_000 + '"', '"' + MARKER * 5000 + '"'),
]


def written(value):
    """A value as JSON, in which raw parts stand as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def places(value, way=()):
    """The ways to all parts of a value."""
    yield way
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*way, name))


def with_part(value, way, part):
    """The value with another part in this place; None: without it."""
    if not way:
        return part if part is not None else Raw("")
    copied = dict(value) if isinstance(value, dict) else list(value)
    if len(way) == 1 and part is None:
        del copied[way[0]]
    else:
        copied[way[0]] = with_part(copied[way[0]], way[1:], part)
    return copied


def damaged(draw, content):
    """Bytes of a content, with something wrong in two places at most."""
    for _ in range(draw.randint(0, 2)):
        ways = [()] if isinstance(content, Raw) else list(places(content))
        way, token = draw.choice(ways), Raw(draw.choice(TOKENS))
        if way and way[-1] in NAMES:
            token = Raw(token.replace(MARKER, "some name"))
        kind = draw.randrange(10)
        if kind == 0 and isinstance(content, dict):
            content = {**content, draw.choice(["x", "", "__proto__", "id", "/~"]): token}
        else:
            content = with_part(content, way, None if kind == 1 and way else token)
    sent = written(content).encode("utf-8", "surrogatepass")
    match draw.randrange(20):
        case 0:
            sent = sent[: draw.randint(0, len(sent))]
        case 1:
            place = draw.randint(0, len(sent))
            sent = sent[:place] + draw.randbytes(draw.randint(1, 4)) + sent[place + 1 :]
        case 2:
            sent = sent.decode("utf-8", "replace").encode(draw.choice(["utf-16", "utf-32", "utf-8-sig"]))
        case 3:
            sent = draw.choice([b"", b"\xff\xfe", b"\x80" * 9, b" " * 70_000, b"\x1f\x8b\x08\x00garbage"])
    return sent


MEDIA = [
    *("text/plain", "", "application/json; charset=utf-16", "multipart/form-data", "image/png", "APPLICATION/JSON"),
    *("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/octet-stream"),
    *(f"{MARKER}/x", "\xff"),
]
ODD = {
    "x-request-timeout-ms": ["-1", "0", "abc", "1e3", "9" * 30, "", "1", "٣".encode().decode("latin-1"), "60000"],
    "if-match": ["*", '"1"', 'W/"1"', '"x"', "W/", '"9"', "9" * 40, '"1", "2"', "", "\xb2"],
    "idempotency-key": ["", "k" * 300, "\xff\xfe", MARKER, "a"],
    "authorization": [
        *("", "Bearer", "Bearer ", "Basic eDp5", f"Bearer {MARKER}", "Bearer \xff", "bearer x y z"),
        "Bearer " + "k" * 9000,
    ],
    "x-request-id": ["", "\xff", "x" * 200, "a b", "ok-1"],
    "traceparent": ["00-0-0-0", "\xff", f"00-{'a' * 32}-{'b' * 16}-01"],
    "content-encoding": ["gzip", "br"],
    "accept": ["text/html", "\xff"],
    "range": ["bytes=0-1"],
    "transfer-encoding": ["identity"],
    "cookie": [f"session={MARKER}"],
    "x-forwarded-for": [MARKER],
    "x-http-method-override": ["DELETE"],
}
QUERIES = [
    *("limit=-1", "limit=1e9", "limit=", "limit=1&limit=2", "limit=999", "x=%zz", f"x={MARKER}", "%", "&&==", "top=1"),
    *("after=%00", "after=%ff", f"after={MARKER}", "after=" + "x" * 99, "erase=maybe", "erase=true", "api_key=x"),
    *("version=99999999999999999999", "version=-1", "version=0x1", "version=%D9%A3"),
    *("name=%ED%A0%80", f"name={MARKER}", "name="),
]
IDS = [
    *("{other}", "{task}x", "task_" + "0" * 32, "TASK_" + "0" * 32, MARKER, "x" * 3000),
    *("x", "%00", "..", "..%2f..", "%ff%fe"),
]


def routes():
    """Methods and paths of the committed document."""
    document = json.loads(OPENAPI.read_text())
    found = [(method.upper(), path) for path, item in document["paths"].items() for method in item]
    return [*found, ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/"), ("GET", "/v1/%2e%2e")]


ROUTES = routes()
WRITING = [one for one in ROUTES if one[0] not in ("GET", "DELETE")]


def in_parts(draw, content):
    """A content as an upload, with parts beside it."""
    files = [b"", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04" + bytes(30), b"a,label\n1,x\n", b"PAR1", b"\x93NUMPY\x01\x00"]
    heads = [f'name="{name}"' for name in ("task", "file", "x", "", MARKER)] + [
        'name="file"; filename="../x.zip"',
        "x",
        "",
    ]
    parts = [b'Content-Disposition: form-data; name="task"\r\n\r\n' + content]
    for _ in range(draw.randrange(3)):
        head = f"Content-Disposition: form-data; {draw.choice(heads)}\r\n\r\n"
        parts.insert(draw.randint(0, 1), head.encode() + draw.choice(files))
    ending = draw.choice([b"--x--\r\n", b"--x--", b"--x", b""])
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + ending


def wrong_request(draw):
    """A request that is wrong in some way, or in several."""
    method, route = draw.choice(ROUTES if draw.random() < 0.4 else WRITING)
    sent = Sent(f"{method} {route}", method, route, headers=dict(HEADERS))
    if method in ("GET", "DELETE") or draw.random() < 0.1:
        for name in re.findall(r"{(\w+)}", route):
            if draw.random() < 0.3:
                sent.path = sent.path.replace(f"{{{name}}}", draw.choice(IDS))
        if draw.random() < 0.5:
            sent.path += "?" + "&".join(draw.sample(QUERIES, draw.randint(1, 2)))
    if route.endswith("/import") and "?" not in sent.path:
        sent.path += "?name=new"
    if method not in ("GET", "DELETE") or draw.random() < 0.05:
        sent.content = damaged(draw, contents(route, draw.choice(list(GOOD))))
        sent.headers["content-type"] = draw.choice(MEDIA) if draw.random() < 0.1 else "application/json"
        if draw.random() < 0.1:
            sent.content = in_parts(draw, sent.content)
            sent.headers["content-type"] = "multipart/form-data; boundary=x"
    if draw.random() < 0.5:
        sent.headers["if-match"] = "*"
    if draw.random() < 0.3:
        name = draw.choice(list(ODD))
        sent.headers[name] = draw.choice(ODD[name])
    if draw.random() < 0.03:
        sent.method = draw.choice(["PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW", "POST", "GET", "DELETE"])
    return sent


# What comes back


class WrongAnswerError(AssertionError):
    """An answer that should not be."""


def judge(sent, status, headers, content):
    """Raise `WrongAnswerError` for an answer that tells too much, or of which nobody thought."""
    text = content.decode("utf-8", "replace")
    shown = f"{sent}: {status} {text[:2000]}"
    if status not in STATUSES:
        raise WrongAnswerError(f"the status is none of ours: {shown}")
    if "Traceback" in text or 'File "' in text or "sqlalchemy" in text or "sqlite3" in text.lower():
        raise WrongAnswerError(f"it shows the inside: {shown}")
    if status < 400 or sent.method == "HEAD":
        return
    if MARKER in text or MARKER in str(headers):
        raise WrongAnswerError(f"it shows what was sent: {shown}")
    if len(content) > LONGEST:
        raise WrongAnswerError(f"it has {len(content)} bytes: {shown}")
    if headers.get("content-type") != "application/problem+json":
        raise WrongAnswerError(f"it is no problem: {shown}")
    problem = json.loads(content)
    slug = problem["type"].removeprefix("/problems/")
    if slug not in KINDS or {*problem} != {"type", "title", "status", "detail", "instance", "errors"}:
        raise WrongAnswerError(f"it has another shape: {shown}")
    if status == problem["status"] == 500 or problem["status"] != status:
        raise WrongAnswerError(f"it has another status: {shown}")


class Attacker:
    """Sends requests to a server, on one connection while that stays open.

    Attributes:
        cases: how many requests were sent to each route, of each origin. statuses: how often each came back.
    """

    def __init__(self, process):
        self.cases, self.statuses, self._process, self._ids = Counter(), Counter(), process, {}
        self._connection = http.client.HTTPConnection("127.0.0.1", process.port, timeout=30)

    def close(self):
        self._connection.close()

    def begin(self):
        """Have a task of each model, and no other one."""
        self._erase_all()
        for name in GOOD:
            content = {"name": f"of {name}", "model": name, "examples": examples(name)}
            status, _, made = self._answer(Sent("", "POST", "/v1/tasks", written(content).encode(), self._good()))
            assert status == 201, made
            self._ids[name] = json.loads(made)["id"]
        listed = self._answer(Sent("", "GET", f"/v1/tasks/{self._ids['points']}/examples", None, self._good()))[2]
        self._ids["example"] = json.loads(listed)["data"][0]["id"]

    def attack(self, sent, origin="own"):
        """Send one request, and judge the answer."""
        status, headers, content = self._answer(sent)
        self.cases[origin, sent.route] += 1
        self.statuses[status] += 1
        judge(sent, status, headers, content)

    def memory(self):
        """Mebibytes that the server holds."""
        self._erase_all()
        status = Path(f"/proc/{self._process.child}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def _good(self):
        return {**HEADERS, "content-type": "application/json", "if-match": "*", "x-request-timeout-ms": "60000"}

    def _erase_all(self):
        listed = json.loads(self._answer(Sent("", "GET", "/v1/tasks?limit=1000", None, self._good()))[2])
        for task in listed["data"]:
            self._answer(Sent("", "DELETE", f"/v1/tasks/{task['id']}?erase=true", None, self._good()))

    def _answer(self, sent):
        """Status, headers and content; the connection is made anew where the server closed it."""
        task = self._ids.get(self._model_of(sent), "")
        names = {"{task}": task, "{other}": self._ids.get("rows", ""), "{example}": self._ids.get("example", "")}
        names |= {"{version}": "1", "{key}": f"key_{'1' * 32}"}
        path, content = sent.path, sent.content
        for name, value in names.items():
            path = path.replace(name, value)
            content = content and content.replace(name.encode(), value.encode())
        for again in (True, False):
            try:
                return self._exchanged(sent, path, content)
            except (http.client.RemoteDisconnected, ConnectionError):
                self._connection.close()
                if not again:
                    raise
        raise AssertionError

    def _exchanged(self, sent, path, content):
        connection = self._connection
        connection.putrequest(sent.method, path, skip_accept_encoding=True)
        for name, value in sent.headers.items():
            connection.putheader(name, value.encode("latin-1"))
        if content is not None:
            connection.putheader("content-length", str(len(content)))
        connection.endheaders(content)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def _model_of(self, sent):
        content = sent.content or b""
        for name, sign in (
            ("photos", b'"image"'),
            ("rows", b'"color"'),
            ("tables", b'"weight"'),
            ("price", b'"value"'),
        ):
            if sign in content:
                return name
        return "points"


def attacked(process, count, seed=0):
    """Attack a server in equal rounds; returns the attacker, and by how many mebibytes memory grew in the last one."""
    attacker, held = Attacker(process), []
    for _ in range(ROUNDS):
        attacker.begin()
        for case in range(count // ROUNDS):
            attacker.attack(wrong_request(random.Random(f"{seed} {case}")))
        held.append(attacker.memory())
    attacker.close()
    grown = held[-1] - held[-2]
    assert grown < MEBIBYTES, f"memory grew by {grown:.0f} MiB in a round like the one before"
    return attacker


def from_document(process, count, seed=0):
    """Attack a server with requests that schemathesis draws from the committed document; returns the attacker."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, settings
    from hypothesis import given as drawn
    from hypothesis import seed as seeded

    attacker = Attacker(process)
    attacker.begin()
    operations = [
        one.ok() for one in schemathesis.openapi.from_dict(json.loads(OPENAPI.read_text())).get_all_operations()
    ]
    for operation in operations:
        cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
        if operation.method.upper() in ("GET", "DELETE"):
            cases = operation.as_strategy()

        @seeded(seed)
        @settings(
            max_examples=max(1, count // len(operations)),
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @drawn(case=cases)
        def attack(case):
            attacker.attack(_sent(case), "document")

        attack()
    attacker.memory()
    attacker.close()
    return attacker


def _sent(case):
    """A request of schemathesis, about a task that is there."""
    import requests

    draw = random.Random(repr(case.path_parameters))
    if case.path_parameters and "task" in case.path_parameters and draw.random() < 0.8:
        case.path_parameters["task"] = "TASK"
    made = requests.Request(**case.as_transport_kwargs(base_url="http://x")).prepare()
    headers = {name.lower(): value for name, value in made.headers.items() if name.lower() != "content-length"}
    headers = {name: value if isinstance(value, str) else value.decode("latin-1") for name, value in headers.items()}
    content = made.body.encode() if isinstance(made.body, str) else made.body
    route = f"{case.method.upper()} {case.operation.path}"
    return Sent(route, made.method, made.path_url.replace("TASK", "{task}"), content, {**headers, **HEADERS})


def run(folder, count, seed=0):
    """Attack a new server with both kinds of requests.

    Returns how often each status came back, and how many of our own and of the document's requests each route got.
    """
    with serving(models(), folder / "store") as process:
        of_document = from_document(process, count // 5, seed)
        own = attacked(process, count - sum(of_document.cases.values()), seed)
        process.end()
        assert process.ended() == 0
    cases, statuses = own.cases + of_document.cases, own.statuses + of_document.statuses
    routes = sorted({route for _, route in cases}, key=lambda route: (route.split()[1], route))
    return {
        "statuses": dict(sorted(statuses.items())),
        "routes": {route: [cases["own", route], cases["document", route]] for route in routes},
    }
