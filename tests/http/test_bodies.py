"""Content of requests: JSON that all decoders agree on, within limits, and errors that show nothing of it."""

import asyncio
import json
import math
import threading

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handful.errors import DataError
from handful.http.bodies import collected, read_json
from handful.http.limits import RequestLimits

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\:{[]},'), max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('a:{["\\', max_size=3), inner, max_size=4),
    max_leaves=12,
)
PLACES = ("X", "[1, X]", '{"inputs": [[0.5, X]]}', '{"name": "a", "unknown": {"deep": [{"x": X}]}}', '{"a": 1, "b": X}')
few = settings(max_examples=80, deadline=None, database=None, derandomize=True)


def refused(content, code="invalid-json"):
    with pytest.raises(DataError) as error:
        read_json(content)
    assert error.value.code == code
    assert "MARK" not in str(error.value)
    str(error.value).encode()
    return error.value


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "nan", "0x10", "1.", "01", "+1"])
def test_what_is_no_number_of_json_is_refused_in_each_position(place, number):
    refused(place.replace("X", number).encode())


@pytest.mark.parametrize("place", [*PLACES, '{X: "MARK"}', '{"a": {X: 1}}'])
@pytest.mark.parametrize(
    "text", [rb'"MARK\ud800"', rb'"\udc00MARK"', rb'"\ud800\u0041"', b'"MARK\xed\xa0\x80"', b'"\xff"', b'"MARK\x00"']
)
def test_nan_or_a_lone_surrogate_anywhere_is_an_error_that_can_be_written(place, text):
    before, after = place.encode().split(b"X")
    refused(before + text + after)
    assert read_json(before + rb'"\ud83d\ude00\u0000"' + after)  # whole characters, also escaped, are none of these


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ('{"inputs": [[1, 2], [3, 1e999]], "x": 1E400}', ("inputs", 1, 1)),
        ('{"a": {"b": -1e999}}', ("a", "b")),
        ("1e999", ()),
        (f"[0, {'9' * 5000}]", (1,)),
        ("[1e999, nothing]", ()),
    ],
)
def test_a_number_that_no_float_is_has_its_place(content, field):
    assert refused(content.encode(), "non-finite").field == field


@pytest.mark.parametrize(
    "content",
    [b"", b" ", b"{", b'{"a": MARK}', b"[1,]", b"1 2", b"\xef\xbb\xbf1", '"é"'.encode("utf-16"), b'"\\', b"'a'"],
)
def test_what_is_no_json_is_refused(content):
    refused(content)


DEEP = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'[{"MARK":' * 50_000,
    b"[" * 33 + b"]" * 33,
    b'{"x": "\\"", "a":' + b"[" * 10**5,
]


def in_small_stack(work):
    """Run something in a thread with the smallest stack that a thread may have here."""
    result = []
    before = threading.stack_size(128 * 1024)
    try:
        thread = threading.Thread(target=lambda: result.append(work()))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    return result[0]


@pytest.mark.parametrize("place", [b"X", b'{"inputs": X}', b'{"a": {"unknown": [1, X]}}', b'["[", X'])
def test_a_hundred_thousand_brackets_end_neither_the_request_nor_the_process(place):
    def work():
        return [refused(place.replace(b"X", deep)) for deep in DEEP]

    for error in [*work(), *in_small_stack(work)]:
        assert "deep" in str(error)


def test_what_is_as_deep_as_the_limit_is_read_on_a_small_stack_too():
    content = b"[" * 32 + b"]" * 32
    assert in_small_stack(lambda: json.dumps(read_json(content))) == content.decode()
    assert read_json(b'["' + b"[{" * 10**5 + b'\\"]"]')  # in a text, brackets are letters
    assert len(read_json(b"[" + b"[]," * 999 + b"{}]")) == 1000


@few
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
@example({"a:b": [{"{": ":"}, {"\\": '"'}]}, True, None)
def test_two_decoders_give_one_truth(value, ascii_only, indent):
    content = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert repr(read_json(content)) == repr(json.loads(content)) == repr(value)  # repr: 1 is no True, and no 1.0


@few
@given(
    st.lists(st.sampled_from(["[", "]", "{", "}", ",", ":", '"', '"a"', "\\", "1", "-1.5e3", "true", " "]), max_size=9)
)
def test_what_one_decoder_takes_the_other_reads_alike(parts):
    content = "".join(parts).encode()
    try:
        value = read_json(content)
    except DataError:
        return
    assert repr(value) == repr(json.loads(content))


@few
@given(VALUES)
def test_a_field_that_stands_twice_is_refused_wherever_it_is(value):
    field = json.dumps(value)
    assert "twice" in str(refused(f'[{{"a": 1, "b": {{"x\\"": {field}, "x\\"": 2}}}}]'.encode()))
    assert "twice" in str(refused(f'{{"a": {field}, "\\u0061": {field}}}'.encode()))


def test_numbers_keep_their_types():
    assert list(map(type, read_json(b'[1, 1.0, -0, "1", true, 1e2, 18446744073709551616]'))) == [
        int, float, int, str, bool, float, int,
    ]  # fmt: skip
    assert math.copysign(1, read_json(b"-0.0")) == -1


def test_content_is_counted_while_it_comes():
    seen = []

    async def chunks():
        for number in range(100):
            seen.append(number)
            yield bytes(10)

    assert len(asyncio.run(collected(chunks(), 1000))) == 1000
    seen.clear()
    with pytest.raises(DataError, match="more than 25 bytes") as error:
        asyncio.run(collected(chunks(), 25))
    assert error.value.code == "payload-too-large"
    assert seen == [0, 1, 2]
    with pytest.raises(DataError, match="more than 3 bytes"):
        read_json(b"1234", RequestLimits(json_bytes=3))
