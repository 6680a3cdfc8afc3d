"""Uploads: parts counted and kept while they come, named by the task, and gone whatever happens."""

import asyncio
import errno
import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful import Service
from handful.errors import HandfulError
from handful.http.json_inputs import inputs_of
from handful.http.limits import DEFAULTS, RequestLimits
from handful.http.problems import of_error
from handful.http.uploads import uploaded
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.meta_model import MetaModel
from handful.pipelines.images import ImagePipeline
from handful.types import TaskSpec

TASK = json.dumps({"name": "shelf"}).encode()


def multipart(parts, boundary="b0undary", end="--"):
    """Content of parts, each a name, the name of its file, and what it holds."""
    content = b""
    for name, filename, body in parts:
        named = f'name="{name}"' + (f'; filename="{filename}"' if filename else "")
        content += f"--{boundary}\r\nContent-Disposition: form-data; {named}\r\n\r\n".encode() + body + b"\r\n"
    return content + f"--{boundary}{end}\r\n".encode()


def png(color):
    file = io.BytesIO()
    Image.new("L", (2, 2), color).save(file, "PNG")
    return file.getvalue()


async def threads(work, *arguments):
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def received(content, folder, limits=DEFAULTS, look=lambda upload: upload, step=50_000, boundary="b0undary"):
    """What a look at the upload gives; step: bytes that come at once."""

    async def chunks():
        for start in range(0, len(content), step):
            yield content[start : start + step]

    async def work():
        async with uploaded(chunks(), f"multipart/form-data; boundary={boundary}", folder, threads, limits) as upload:
            return look(upload)

    try:
        return asyncio.run(work())
    finally:
        assert not folder.exists() or not any(folder.iterdir())


def refused(content, folder, code, status, limits=DEFAULTS, **how):
    with pytest.raises(HandfulError) as error:
        received(content, folder, limits, **how)
    assert (error.value.code, of_error(error.value).response("id").status_code) == (code, status), error.value
    assert "MARK" not in str(error.value)


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_a_task_and_images_by_their_names(tmp_path, step):
    content = multipart([("a", "1.png", b"\r\n--b0undar"), ("task", "", TASK), ("\u00e9", "x", b"")])

    def look(upload):
        images = inputs_of([{"image": "\u00e9"}, {"image": "a"}, {"image": "a"}], image=upload.image)
        upload.check_used()
        return upload.task, upload.file, images

    wanted = ({"name": "shelf"}, None, [b"", b"\r\n--b0undar", b"\r\n--b0undar"])
    assert received(content, tmp_path / "spool", look=look, step=step) == wanted


def test_a_task_and_a_file(tmp_path):
    content = multipart([("file", "../../MARK.CSV", b"a,b\n1,2\n"), ("task", "", TASK)])

    def look(upload):
        assert upload.file.parent.parent == tmp_path / "spool"
        return upload.file.name, upload.file.read_bytes()

    assert received(content, tmp_path / "spool", look=look) == ("file.csv", b"a,b\n1,2\n")


def test_two_thousand_images_are_no_limit_of_the_framework(tmp_path):
    parts = [(f"image {number}", "x.png", b"%d" % number) for number in range(2000)]
    content = multipart([*parts, ("task", "", TASK)])

    def look(upload):
        return [upload.image(name) for name, _, _ in parts]

    assert received(content, tmp_path, look=look) == [body for _, _, body in parts]
    refused(multipart([*parts, ("one more", "x", b"")]), tmp_path, "payload-too-large", 413)


def test_a_field_of_more_than_a_mebibyte_is_read(tmp_path):
    task = json.dumps({"examples": [{"input": [0.5] * 100, "label": "a" * 100}] * 3000}).encode()
    assert len(task) > 2**20
    assert received(multipart([("task", "", task)]), tmp_path).task == json.loads(task)


def test_the_same_upload_with_two_boundaries_is_the_same_content(tmp_path):
    parts = [("task", "", TASK), ("a", "1.png", b"one"), ("b", "2.png", b"two")]

    def look(upload):
        return upload.task, upload.image("a"), upload.image("b")

    one = received(multipart(parts, "x1"), tmp_path, look=look, boundary="x1")
    assert one == received(multipart(parts[::-1], "y-2"), tmp_path, look=look, boundary="y-2")


def test_an_upload_that_is_sent_again_with_another_boundary_is_carried_out_once(tmp_path):
    """Its fingerprint is of what it holds, not of its bytes."""
    pipeline = ImagePipeline(size=2)
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    meta = MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)
    with Service(meta, tmp_path / "store") as service:

        def sent(boundary, color):
            def create(upload):
                inputs = inputs_of([{"image": "a"}, {"image": "b"}], image=upload.image)
                return service.create(upload.task["name"], inputs, ["x", "y"], idempotency_key="once").id

            parts = [("task", "", TASK), ("a", "1.png", png(0)), ("b", "2.png", png(color))]
            content = multipart(parts, boundary)
            return received(content, tmp_path / "spool", look=create, boundary=boundary)

        assert sent("one", 200) == sent("two", 200)
        with pytest.raises(HandfulError) as error:
            sent("one", 100)
        assert error.value.code == "idempotency-mismatch"


@pytest.mark.parametrize(
    ("content", "code", "status"),
    [
        (b"", "invalid-multipart", 400),
        (b"MARK", "invalid-multipart", 400),
        (multipart([("task", "", TASK)], end=""), "invalid-multipart", 400),
        (multipart([("task", "", TASK)])[:60], "invalid-multipart", 400),
        (multipart([("task", "", TASK)]).replace(b'name="task"', b"MARK"), "invalid-multipart", 400),
        (multipart([("task", "", TASK)]).replace(b"task", b"\xff\xfe"), "invalid-multipart", 400),
        (b"--b0undary\r\n" + b"MARK: x\r\n" * 20 + multipart([("task", "", TASK)]), "invalid-multipart", 400),
        (multipart([("a", "", b"")]), "invalid-data", 422),
        (multipart([("task", "", b'{"a": NaN}')]), "invalid-json", 400),
        (multipart([("task", "", TASK), ("task", "", TASK)]), "invalid-data", 422),
        (multipart([("task", "", TASK), ("MARK", "", b""), ("MARK", "", b"")]), "invalid-data", 422),
        (multipart([("task", "", TASK), ("file", "MARK.exe", b"")]), "unsupported-media", 415),
        (multipart([("task", "", TASK), ("file", "", b"")]), "unsupported-media", 415),
    ],
)
def test_what_is_no_upload_is_refused(tmp_path, content, code, status):
    for step in (5, 10**6):
        refused(content, tmp_path / "spool", code, status, step=step)


def test_another_type_of_content_is_refused(tmp_path):
    async def work(content_type):
        async with uploaded(None, content_type, tmp_path, threads):
            pass

    for content_type in ("", "application/json", "multipart/form-data", "multipart/mixed; boundary=x"):
        with pytest.raises(HandfulError, match="multipart/form-data") as error:
            asyncio.run(work(content_type))
        assert error.value.code == "unsupported-media"


def test_bytes_are_counted_while_they_come(tmp_path):
    limits = RequestLimits(upload_bytes=3_000_000, json_bytes=100, image_bytes=50, upload_files=2)
    refused(multipart([("file", "a.zip", bytes(3_000_000))]), tmp_path, "payload-too-large", 413, limits)
    refused(multipart([("task", "", b"1" * 101)]), tmp_path, "payload-too-large", 413, limits)
    refused(multipart([("a", "", b"1" * 51)]), tmp_path, "payload-too-large", 413, limits)
    refused(multipart([("a", "", b""), ("b", "", b""), ("c", "", b"")]), tmp_path, "payload-too-large", 413, limits)


def test_images_and_the_task_have_to_agree(tmp_path):
    content = multipart([("task", "", TASK), ("a", "", b"x")])

    def unknown(name):
        return lambda upload: inputs_of([{"image": "a"}, {"image": name}], image=upload.image)

    for name in ("MARK", 1, None, "task"):
        with pytest.raises(HandfulError) as error:
            received(content, tmp_path, look=unknown(name))
        assert error.value.field == ("inputs", 1, "image")
    with pytest.raises(HandfulError, match="does not refer to 1 image of the upload"):
        received(content, tmp_path, look=lambda upload: upload.check_used())


def test_nothing_is_left_when_the_client_leaves(tmp_path):
    async def chunks():
        yield multipart([("task", "", TASK), ("file", "a.zip", bytes(2_000_000))])[:1_500_000]
        assert list(tmp_path.glob("upload-*/file.zip"))
        await asyncio.sleep(60)

    async def work():
        async with uploaded(chunks(), "multipart/form-data; boundary=b0undary", tmp_path, threads):
            pass

    async def cut():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(), 0.3)

    asyncio.run(cut())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["file", "image"])
def test_a_full_disk_is_no_fault_of_the_client(tmp_path, monkeypatch, name):
    """The disk is full after a mebibyte: as on a small file system, where the test may not make one."""
    opened = Path.open

    class Full(io.BufferedRandom):
        def write(self, data):
            if self.tell() + len(data) > 2**20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    def small(path, mode="r", *more):
        return Full(io.FileIO(path, "w+")) if "w" in mode else opened(path, mode, *more)

    monkeypatch.setattr(Path, "open", small)
    content = multipart([("task", "", TASK), (name, "a.zip", bytes(2_000_000))])
    refused(content, tmp_path, "unwritable", 507)
    monkeypatch.undo()
    assert received(content, tmp_path).task == {"name": "shelf"}


def test_a_spool_on_a_disk_of_one_mebibyte(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        content = multipart([("task", "", TASK), ("file", "a.zip", bytes(2_000_000))])
        refused(content, tmp_path, "unwritable", 507)
        assert received(multipart([("task", "", TASK)]), tmp_path).task == {"name": "shelf"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


WHOLE = multipart([("task", "", TASK), ("a", "1.png", b"one"), ("file", "a.csv", b"a\n1\n")])


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(st.integers(0, len(WHOLE)), st.integers(0, 12), st.binary(max_size=12), st.integers(1, 99))
def test_damaged_content_is_read_or_refused(tmp_path_factory, start, cut, instead, step):
    content = WHOLE[:start] + instead + WHOLE[start + cut :]
    code = None
    try:
        assert received(content, tmp_path_factory.getbasetemp() / "spool", step=step).task is not None
    except HandfulError as error:
        code = error.code
    assert code in (None, "invalid-multipart", "invalid-json", "invalid-data", "unsupported-media")
