"""Images of requests are read as the library reads the same bytes, or refused with the same code."""

import base64
from functools import partial

import numpy as np
import pytest
from pictures import READ, REFUSED

from handful import Service
from handful.errors import DataError
from handful.http.json_inputs import inputs_of
from handful.http.problems import of_error
from handful.learners.prototypical import PrototypicalNetwork
from handful.limits import SERVICE
from handful.models.meta_model import MetaModel
from handful.notes import collecting
from handful.pipelines.images import ImagePipeline
from handful.types import TaskSpec


def model(channels):
    pipeline = ImagePipeline(size=8, channels=channels)
    spec = TaskSpec("classification", pipeline.input_shape, 2, "permuted")
    return MetaModel(PrototypicalNetwork.build(spec, backbone="linear"), pipeline)


@pytest.fixture(scope="module", params=[1, 3], ids=["gray model", "color model"])
def world(request, tmp_path_factory):
    """A model, a service, and a task of both."""
    meta = model(request.param)
    support, labels = [READ["jpeg"], READ["webp"], READ["bmp"]], ["a", "b", "b"]
    library = meta.adapt(meta.pipeline.encode(support), labels)
    with Service(meta, tmp_path_factory.mktemp("images") / "store") as service:
        yield meta, library, service, service.create("shelf", support, labels).id


def sent(content):
    return inputs_of([{"image": base64.b64encode(content).decode()}])


def outcome(work):
    """What some work gives with its notes, or the code and the field of its error."""
    with collecting() as notes:
        try:
            return work(), [note.code for note in notes]
        except DataError as error:
            return error.code, error.field


@pytest.mark.parametrize("kind", READ)
def test_an_image_gives_the_digits_of_the_library(world, kind):
    meta, library, service, task = world
    wanted, said = outcome(lambda: meta.predict(library, meta.pipeline.encode([READ[kind]])).logits.softmax(-1)[0])
    made, also_said = outcome(lambda: service.predict(task, sent(READ[kind])))
    if isinstance(wanted, str):
        assert (made, also_said) == (wanted, said)
    else:
        assert list(made.predictions[0].probabilities.values()) == pytest.approx(wanted.tolist(), abs=1e-6)
        assert [note.code for note in made.notes] == said


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_has_the_code_of_the_library_and_its_place(world, kind):
    meta, _, service, task = world
    content, status = REFUSED[kind]
    with pytest.raises(DataError) as error:
        service.predict(task, [*sent(READ["color"]), *sent(content)])
    assert error.value.field == ("inputs", 1)
    assert of_error(error.value).response("id").status_code == status
    with pytest.raises(DataError) as same:
        meta.pipeline.stored([content], SERVICE)
    assert (same.value.code, same.value.field) == (error.value.code, ("inputs", 0))


@pytest.mark.parametrize("kind", ["color", "jpeg", "webp", "bmp", "gif", "palette"])
def test_a_damaged_image_is_never_more_than_refused(kind):
    pipeline, generator = ImagePipeline(size=8, channels=3), np.random.default_rng(1)
    for _ in range(25):
        content = bytearray(READ[kind])
        for place in generator.integers(0, len(content), 3):
            content[place] = generator.integers(256)
        found, field = outcome(partial(pipeline.stored, [bytes(content)]))
        assert field == ("inputs", 0) if isinstance(found, str) else found.shape == (1, 3, 8, 8)
