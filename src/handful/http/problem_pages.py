"""What the kinds of problems mean, as pages of a server and as docs/reference/problems.md."""

import html
import json
import re

from handful.errors import CODES
from handful.http.kinds import KINDS
from handful.http.problems import STATUSES, of_slug
from handful.http.request_examples import PROBLEM

CODE = re.compile(r"`([^`]+)`")
INTRODUCTION = """# Problems

All errors are reported as `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)):

```json
{example}
```

`type` is one of the kinds below, and the address of its page on the server, without a key. `detail` describes what is
wrong in this request, and what to do. `instance` is the request's id, which the server's log has too. Each of `errors`
has a JSON pointer to the place in the content (`""` is the whole) and a `code`, which is finer than the kind. Sent
content is never repeated. If waiting helps, the response has `Retry-After` (seconds) and `RateLimit`.

This page is made from the code by `make reference`.
"""


def problem_html(slug: str) -> str:
    """The page of a kind of problem, of `KINDS`, as the body of a page in HTML."""
    kind, rows = KINDS[slug], "".join(f"<dt>{name}</dt>\n<dd>{_html(text)}</dd>\n" for name, text in _facts(slug))
    return f"<h1>{slug}</h1>\n<p>{_html(kind.title)}</p>\n<dl>\n{rows}</dl>"


def problems_markdown() -> str:
    """All kinds of problems on one page, which docs/reference/problems.md is."""
    parts = [INTRODUCTION.replace("{example}", json.dumps(PROBLEM, indent=2))]
    for slug, kind in KINDS.items():
        facts = "\n".join(f"- **{name}**: {text}" for name, text in _facts(slug))
        parts.append(f"## {slug}\n\n{kind.title}\n\n{facts}\n")
    return "\n".join(parts)


def _facts(slug: str) -> list[tuple[str, str]]:
    """What is to be said of a kind of problem, by a word for each."""
    kind, codes = KINDS[slug], [code for code, one in CODES.items() if one == slug]
    facts = [("Status", _statuses(slug, codes)), ("Cause", kind.cause), ("What to do", kind.remedy)]
    if codes:
        facts.append(("Codes", ", ".join(f"`{code}`" for code in codes)))
    if "retry-after" in of_slug(slug):
        facts.append(("Headers", "`Retry-After` and `RateLimit`"))
    return facts


def _statuses(slug: str, codes: list[str]) -> str:
    """The status of a kind, and those of its codes that have another one."""
    others = [f"{STATUSES[code]} (`{code}`)" for code in codes if code in STATUSES]
    return ", ".join([str(KINDS[slug].status), *others])


def _html(text: str) -> str:
    return CODE.sub(r"<code>\1</code>", html.escape(text, quote=False))
