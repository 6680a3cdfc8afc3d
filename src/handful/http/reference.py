"""The reference of the HTTP API as docs/reference/api.md, made from the OpenAPI document."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from handful.http.app import routes
from handful.http.problem_pages import problems_markdown

JSON, UPLOAD = "application/json", "multipart/form-data"
WIDTH = 110
"""Characters of a line of JSON."""

INTRODUCTION = """# The HTTP API

This page is made from [openapi.json](openapi.json) by `make reference`. A running server has the same document at
`/openapi.json` and a page to try it at `/docs`. How to run one: [serving](../how-to/serving.md).

- **Keys.** Every route under `/v1` needs `Authorization: Bearer KEY`, with a key of the scope that the route names,
  or of one above it: `predict` < `write` < `admin`. A key belongs to one tenant, and gives no access to others.
- **Content** is JSON with the fields below and no others, or `multipart/form-data` if stated. Types are strict.
- **Input** depends on the model: a text, a row as `{"column": cell}`, an array of numbers as nested lists, or an image
  as `{"image": "<base64>"}`. An example is an `input` with a `label` (classification) or a `value` (regression).
- **Uploads.** A part `task` has the JSON. Beside it are images, each in a part that the JSON names as `{"image":
  "NAME"}`, or one part `file`: .zip (a folder for each class), .csv, .parquet or .npz; then the JSON has no examples.
- **Times** are in UTC, as RFC 3339 writes them. **Ids** sort by when they were made.
- **Lists** come in pages: `data`, `has_more`, and `next_after`, which is the parameter `after` of the next page.
- **Versions.** Each change of a task makes a version. The `ETag` of a task is its version; a change with `If-Match`
  is carried out only at that version, so that two people do not overwrite each other.
- **Repetition.** A request with an `Idempotency-Key` that is sent again within 24 hours gets the first response.
  Only the token of a new key is not shown again. An `Idempotency-Key` counts within the tenant of your API key, also
  in requests about other tenants.
- **Time.** A request waits at most 2 seconds, or `X-Request-Timeout-Ms` (up to 60,000).
- **Responses** have `X-Request-Id`, yours if you sent one, and return `traceparent`.
- **Problems** are `application/problem+json` of a [closed list](problems.md). Besides those that a route names, each
    may return {everywhere}.
"""
EVERYWHERE = ("invalid-request", "unauthenticated", "forbidden", "overloaded", "not-ready", "outcome-unknown")
OF_INPUTS = ("non-finite", "ragged-input", "wrong-shape", "adapt-diverged", "task-quarantined", "deadline-exceeded")
OF_EXAMPLES = ("contradictory-labels", "too-few-examples", "unknown-label")
OF_CHANGES = ("storage-full", "deadline-exceeded")


def pages() -> dict[str, str]:
    """What the docs have of the API, by the names of the files."""
    document = routes().openapi()
    return {
        "openapi.json": json.dumps(document, indent=1, sort_keys=True) + "\n",
        "api.md": api_markdown(document),
        "problems.md": problems_markdown(),
    }


def api_markdown(document: Mapping[str, Any]) -> str:
    """The reference as Markdown.

    document: as `openapi_of` makes it.
    """
    by_tag: dict[str, list[tuple[str, str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag.setdefault(operation["tags"][0], []).append((method, path, operation))
    parts = [INTRODUCTION.replace("{everywhere}", _links(EVERYWHERE))]
    for tag, members in by_tag.items():
        parts.append(f"## {tag.capitalize()}\n\n{_index(members)}")
        parts += [_section(*member) for member in members]
    parts.append("## Types\n")
    parts += [_type_section(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n".join(parts)


def _index(members: list[tuple[str, str, Any]]) -> str:
    rows = [f"| `{method.upper()} {path}` | {_sentence(one)} |" for method, path, one in members]
    return "\n".join(["| | |", "|---|---|", *rows]) + "\n"


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    """All of one route."""
    parts = [f"### {method.upper()} {path}", operation["description"]]
    if scopes := [scope for one in operation.get("security", ()) for scope in one["key"]]:
        parts.append(f"Scope: `{scopes[0]}`.")
    parts += [*_parameters(operation), *_request(operation), *_answers(operation)]
    if slugs := list(_problems(method, path, operation)):
        parts.append(f"Problems: {_links(slugs)}.")
    return "\n\n".join(parts) + "\n"


def _parameters(operation: Mapping[str, Any]) -> Iterator[str]:
    own = [one for one in operation.get("parameters", ()) if one["name"] != "X-Request-Timeout-Ms"]
    if own:
        rows = [_row(one["name"], f"{one['in']}, {_given(one['schema'])}", one["required"], one) for one in own]
        yield "\n".join(["| parameter | | |", "|---|---|---|", *rows])


def _request(operation: Mapping[str, Any]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    if JSON in content:
        also = f", or as the part `task` of `{UPLOAD}`" if UPLOAD in content else ""
        yield f"Request: {_type(content[JSON]['schema'])}{also}."
        if "example" in content[JSON]:
            yield _block(content[JSON]["example"])
    elif content:
        yield f"Request: the bytes of a file, as `{next(iter(content))}`."


def _answers(operation: Mapping[str, Any]) -> Iterator[str]:
    for status, response in operation["responses"].items():
        if status == "default":
            continue
        content = response.get("content", {})
        others = [f"`{media}`" for media in content if media != JSON]
        schema = content.get(JSON, {}).get("schema")
        what = ", ".join(others) or (_type(schema) if schema else "a text" if content else "nothing")
        yield f"Response: {status}, {what}."
        if "example" in content.get(JSON, {}):
            yield _block(content[JSON]["example"])


def _problems(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    """Kinds of problems that come of what a route reads."""
    names = {one["name"] for one in operation.get("parameters", ())}
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get(JSON, {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    labeled, predicts = schema in ("CreateTask", "AddExamples", "Evaluate"), schema.startswith("Predict")
    changes = method != "get" and operation.get("security", [{}])[0].get("key") != ["predict"]
    found: list[str] = []
    if "{" in path or predicts:
        found.append("not-found")
    if content:
        found += ["payload-too-large", "unsupported-media"] if JSON in content else ["payload-too-large"]
    if UPLOAD in content:
        found.append("archive-unsafe")
    found += [*OF_INPUTS] if labeled or predicts else []
    found += [*OF_EXAMPLES] if labeled else []
    if (labeled and changes) or path.endswith(("/import", "/readapt")):
        found.append("quota-exceeded")
    if schema in ("CreateTask", "CreateTenant", "Rename") or path.endswith(("/import", "/restore")):
        found.append("name-taken")
    if "Idempotency-Key" in names:
        found += ["idempotency-in-progress", "idempotency-mismatch"]
    if "If-Match" in names:
        found.append("version-conflict")
        required = any(one["name"] == "If-Match" and one["required"] for one in operation["parameters"])
        found += ["precondition-required"] if required else []
    found += [*OF_CHANGES] if changes else []
    yield from dict.fromkeys(found)


def _type_section(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"### {name}", schema.get("description", "")]
    if "properties" in schema:
        required = schema.get("required", ())
        rows = [_row(one, _type(facts), one in required, facts) for one, facts in schema["properties"].items()]
        if rows:
            parts.append("\n".join(["| field | | |", "|---|---|---|", *rows]))
    else:
        parts.append(f"A {_type(schema)}.")
    return "\n\n".join(filter(None, parts)) + "\n"


def _row(name: str, kind: str, required: bool, facts: Mapping[str, Any]) -> str:
    default = facts.get("schema", facts).get("default")
    shown = "Required." if required else f"`{json.dumps(default)}` by default." if default not in (None, "") else ""
    said = " ".join(facts.get("description", "").split()).replace("|", "\\|")
    return f"| `{name}` | {kind} | {' '.join(filter(None, (shown, said)))} |"


def _type(schema: Mapping[str, Any]) -> str:
    """What a value is, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {_type(schema['additionalProperties'])} by name"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case "string":
            return "text"
        case "integer":
            return "whole number" + _range(schema)
        case "boolean":
            return "`true` or `false`"
        case "null":
            return "`null`"
        case str(name):
            return name + _range(schema)
    return "any JSON"


def _given(schema: Mapping[str, Any]) -> str:
    """What a parameter is where it is given."""
    return _type(schema).removesuffix(" or `null`")


def _range(schema: Mapping[str, Any]) -> str:
    if "maximum" not in schema:
        return f" from {schema['minimum']}" if "minimum" in schema else ""
    return f" from {schema['minimum']:,} to {schema['maximum']:,}"


def _sentence(operation: Mapping[str, Any]) -> str:
    return " ".join(str(operation["description"]).split()).partition("; ")[0].rstrip(".") + "."


def _links(slugs: Any) -> str:
    return ", ".join(f"[{slug}](problems.md#{slug})" for slug in slugs)


def _block(example: Any) -> str:
    return f"```json\n{_written(example)}\n```"


def _written(value: Any, indent: str = "") -> str:
    """JSON in which what is short stands in one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts, ends = [f"{json.dumps(name)}: {_written(one, inner)}" for name, one in value.items()], "{}"
    else:
        parts, ends = [_written(one, inner) for one in value], "[]"
    return f"{ends[0]}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{ends[1]}"
