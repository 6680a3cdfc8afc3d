"""Meta-models and adapted tasks on disk: they come back as they were, or an error says what is wrong."""

import json
import pickle
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils import _pytree as pytree

from handful.errors import ArtifactError, DataError, DivergedError, UserError
from handful.learners.learner import Learner
from handful.learners.options import options_of
from handful.learners.prototypical import PrototypicalNetwork
from handful.models.adapted_task import AdaptedTask, Estimate
from handful.models.lookup import model_of
from handful.models.meta_model import MetaModel, model_digest
from handful.models.task_bank import TaskBank
from handful.registry import LEARNERS
from handful.storage import digest_of, read_tensors, write_tensors
from handful.types import Categorical, Point, TaskSpec
from noted import noted

CLASSES = TaskSpec("classification", (4,), 3, "permuted")
SHARED = TaskSpec("classification", (4,), 3, "shared")
VALUES = TaskSpec("regression", (4,), 2, "shared")
BACKBONE = {"backbone": "mlp", "backbone_options": {"hidden": [6]}}


def cases():
    """Every learner of the registry, with every kind of task that it can do."""
    return [
        pytest.param(cls, spec, id=f"{key}-{spec.kind}-{spec.labels}")
        for key, cls in LEARNERS.items()
        for spec in (CLASSES, SHARED, VALUES)
        if spec.kind in cls.kinds and (not spec.classification or spec.labels in cls.labels)
    ]


def model(cls=PrototypicalNetwork, spec=CLASSES, **options) -> MetaModel:
    if cls.costly and "inner_steps" in options_of(cls):
        options = {"inner_steps": 3} | options
    learner = cls.build(spec, **BACKBONE, **options)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return MetaModel(learner, facts={"tasks": "toys", "selection": "none"})


def examples(spec=CLASSES, count=9):
    inputs = torch.randn(count, *spec.input_shape)
    if not spec.classification:
        return inputs, torch.randn(count, spec.outputs)
    return inputs, [str(index % 3) for index in range(count)]


@pytest.fixture
def saved(tmp_path) -> Path:
    return model().save_pretrained(tmp_path / "model")


@pytest.mark.parametrize(("cls", "spec"), cases())
def test_what_is_loaded_predicts_the_same_bits(cls, spec, tmp_path):
    """Model and task, of every learner."""
    original = model(cls, spec)
    folder = original.save_pretrained(tmp_path / "model")
    adapted = original.adapt(*examples(spec))
    adapted.save(tmp_path / "task")
    queries = torch.randn(5, 4)
    expected = original.predict(adapted, queries)
    loaded = MetaModel.from_pretrained(folder)
    task = AdaptedTask.load(tmp_path / "task")
    loaded.check(task)
    assert [leaf.shape for leaf in loaded.predict(task, queries[:0])] == [leaf[:0].shape for leaf in expected]
    found = loaded.predict(task, queries)
    assert type(found) is type(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert loaded.learner.recipe == original.learner.recipe
    assert loaded.facts == original.facts
    assert (loaded.digest, loaded.checksum) == (original.digest, original.checksum)
    for name in ("spec", "labels", "manifest", "examples", "support_digest", "targets", "estimate"):
        assert getattr(task, name) == getattr(adapted, name), name
    assert task == adapted
    assert task.to_bytes() == adapted.to_bytes()


@pytest.mark.parametrize(("cls", "spec"), cases())
def test_the_order_of_examples_and_their_ids_change_nothing(cls, spec):
    meta, (inputs, labels) = model(cls, spec), examples(spec)
    order = torch.randperm(len(inputs))
    turned = [labels[place] for place in order.tolist()] if spec.classification else labels[order]
    one, other = meta.adapt(inputs, labels), meta.adapt(inputs[order], turned, ids=[f"x{i}" for i in order.tolist()])
    assert one == other
    leaves = zip(pytree.tree_leaves(one.state), pytree.tree_leaves(other.state), strict=True)
    assert all(torch.equal(a, b) for a, b in leaves)


@pytest.mark.parametrize(("cls", "spec"), cases())
def test_examples_may_come_later_and_be_taken_out_again(cls, spec):
    original = model(cls, spec)
    inputs, answers = examples(spec)
    first = AdaptedTask.from_bytes(original.adapt(inputs[:6], answers[:6], ids=list("abcdef")).to_bytes())
    extended = original.with_examples(first, inputs[6:], answers[6:], ids=list("ghi"))
    whole = original.adapt(inputs, answers, ids=list("abcdefghi"))
    assert extended.to_bytes() == whole.to_bytes()
    assert original.without_examples(extended, list("ghi")).to_bytes() == first.to_bytes()


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_whole_numbers_are_taken_as_the_same_floats(kind):
    meta, rows, labels = model(), torch.randint(-9, 9, (9, 4)), list("abcabcabc")
    task, floats = meta.adapt(rows.to(kind), labels), meta.adapt(rows.float(), labels)
    assert task == floats
    expected = meta.predict(floats, rows.float()).logits
    assert torch.equal(meta.predict(task, rows.to(kind)).logits, expected)
    bank = TaskBank(meta)
    bank.put("a", meta.with_examples(task, rows.to(kind), labels))
    assert len(bank.predict([("a", rows.to(kind))])[0].logits) == 9
    rows[3, 1] = 2**40
    with pytest.raises(DataError, match=r"Example 3 .* 1099511627776"):
        meta.predict(task, rows.to(torch.int64))


def test_examples_that_a_task_does_not_have_cannot_be_taken_out():
    meta = model()
    task = meta.adapt(*examples(), ids=list("abcdefghi"))
    with pytest.raises(UserError, match="no example 'x'"):
        meta.without_examples(task, ["a", "x"])
    with pytest.raises(DataError, match="two classes"):
        meta.without_examples(task, [name for name in "abcdefghi" if name != "a"])


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (list("abcdefgh"), "9 examples and 8 ids"),
        (list("abcdefghij"), "9 examples and 10 ids"),
        ([], "9 examples and 0 ids"),
        (list("abcdefgha"), "Two examples have the id 'a'"),
        ([*range(8), "7"], "Two examples have the id '7'"),
    ],
)
def test_ids_that_do_not_tell_the_examples_apart_are_refused(ids, said):
    inputs, answers = examples()
    tasks = [(inputs, answers)] * 2
    for keep in (True, False):
        with pytest.raises(DataError, match=said):
            model().adapt(inputs, answers, ids=ids, keep_support=keep)
        whole, error = model().adapt_many(tasks, ids=[list("abcdefghi"), ids], keep_support=keep)
        assert isinstance(whole, AdaptedTask)
        assert re.search(f"Task 1.*{said}", str(error))


def test_added_examples_have_ids_of_their_own():
    inputs, answers = examples()
    meta = model()
    task = meta.adapt(inputs[:3], answers[:3], ids=["a", "added 1", "b"])
    with pytest.raises(DataError, match="Two examples have the id 'b'"):
        meta.with_examples(task, inputs[3:5], answers[3:5], ids=["c", "b"])
    with pytest.raises(DataError, match="2 examples and 1 id"):
        meta.with_examples(task, inputs[3:5], answers[3:5], ids=["c"])
    twice = meta.with_examples(meta.with_examples(task, inputs[3:5], answers[3:5]), inputs[5:6], answers[5:6])
    assert sorted(twice.manifest) == ["a", "added 0", "added 1", "added 2", "added 3", "b"]


def test_adapted_tasks_are_equal_by_model_examples_and_labels(saved, tmp_path):
    original, other = MetaModel.from_pretrained(saved), model()
    inputs, answers = examples()
    task = original.adapt(inputs, answers, ids=list("abcdefghi"))
    assert task == MetaModel.from_pretrained(saved).adapt(inputs, answers)
    assert len({task, original.adapt(inputs, answers, keep_support=False)}) == 1
    renamed = [f"class {answer}" for answer in answers]
    for different in (
        original.adapt(inputs + 1, answers),
        original.adapt(inputs, renamed),
        other.adapt(inputs, answers),
    ):
        assert task != different
    assert other.adapt(inputs, answers) != model().adapt(inputs, answers), "models that were not saved"
    assert task != "a task"


@pytest.mark.parametrize(
    "changes",
    [{"spec": None}, {"structure": {"x": None}}, {"pipeline": {"kind": "images", "wrong": 1}}, {"model": None}],
)
def test_a_task_of_broken_facts_is_refused(changes, saved, tmp_path):
    """Of a file whose digest is right."""
    meta = MetaModel.from_pretrained(saved)
    meta.adapt(*examples()).save(tmp_path / "task")
    rewritten(tmp_path / "task", **changes)
    with pytest.raises(ArtifactError, match="incomplete"):
        meta.for_task(AdaptedTask.load(tmp_path / "task"))


def test_a_class_can_be_added(saved):
    meta = MetaModel.from_pretrained(saved)
    task = meta.adapt(torch.randn(4, 4), ["a", "b", "a", "b"])
    more = meta.with_examples(task, torch.full((2, 4), 9.0), ["new", "new"])
    assert more.labels == ("a", "b", "new")
    assert meta.predict(more, torch.full((1, 4), 9.0)).logits.argmax().item() == 2


@pytest.mark.parametrize(("cls", "spec"), cases())
def test_a_task_that_forgets_its_examples_holds_none(cls, spec, tmp_path):
    """T36. By name and by number; a learner whose state is its examples is the exception, and keeps them as such."""
    original = model(cls, spec)
    original.save_pretrained(tmp_path / "model")
    inputs, answers = examples(spec)
    names = [f"photo {number}" for number in range(len(inputs))]
    kept, forgotten = (original.adapt(inputs, answers, ids=names, keep_support=keep) for keep in (True, False))
    kept.save(tmp_path / "kept")
    forgotten.save(tmp_path / "forgotten")
    assert {"support/inputs", "support/targets"} <= set(read_tensors(tmp_path / "kept")[0])
    tensors, facts, _ = read_tensors(tmp_path / "forgotten")
    assert all(name.startswith("state") for name in tensors)
    assert facts["holds_examples"] is forgotten.holds_examples is cls.state_holds_examples
    assert kept.holds_examples
    assert b"photo 3" in (tmp_path / "kept").read_bytes()
    assert b"photo" not in (tmp_path / "forgotten").read_bytes(), "names of files tell of examples, too"
    rows = {tuple(row) for row in inputs.tolist()}
    held = [name for name, t in tensors.items() if t.ndim == 2 and rows & {tuple(row) for row in t.tolist()}]
    assert held == (["state/inputs"] if cls.key == "neighbors" else [])
    loaded = AdaptedTask.load(tmp_path / "forgotten")
    assert loaded.support is None
    assert loaded.manifest is None
    assert loaded.examples == len(inputs)
    with pytest.raises(UserError, match="forgotten its examples"):
        original.with_examples(loaded, inputs, answers)


def test_the_model_holds_no_examples(saved):
    tensors, _, _ = read_tensors(saved / "model.safetensors")
    expected = PrototypicalNetwork.build(CLASSES, **BACKBONE).state_dict()
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in expected.items()}


def test_saving_the_same_gives_the_same_bytes(tmp_path):
    original = model()
    for name in "abcdefgh":
        original.save_pretrained(tmp_path / name)
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in "abcdefgh"}) == 1


# What is wrong with a model


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"format": "handful meta-model", "recipe": {}}', b"\xff\xfe"])
def test_the_configuration_beside_the_weights_is_a_copy_that_loading_does_not_need(saved, content):
    (saved / "config.json").unlink() if content is None else (saved / "config.json").write_bytes(content)
    (saved / "README.md").unlink()
    assert MetaModel.from_pretrained(saved).facts == {"tasks": "toys", "selection": "none"}
    model().save_pretrained(saved)
    assert json.loads((saved / "config.json").read_text())["recipe"]["learner"] == "protonet"


class Killed(BaseException):
    """In place of a `kill -9`."""


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_who_loads_while_a_model_is_saved_has_the_old_one_or_the_new_one(saved, survived, monkeypatch):
    """After each file but the last; and where the writer dies there, the next one may save."""
    replace, moved = Path.replace, []

    def until(source, target):
        if len(moved) == survived:
            raise Killed
        moved.append(target.name)
        return replace(source, target)

    new = model()
    new.facts = {"night": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", until)
        with pytest.raises(Killed):
            new.save_pretrained(saved)
    assert moved == ["config.json", "README.md"][:survived]
    assert MetaModel.from_pretrained(saved).facts == {"tasks": "toys", "selection": "none"}
    new.save_pretrained(saved)
    assert MetaModel.from_pretrained(saved).facts == {"night": 1}


def test_a_first_model_that_was_half_saved_can_be_saved_again(tmp_path, monkeypatch):
    def full(*given):
        raise UserError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("handful.models.meta_model.write_bytes", full)
        with pytest.raises(UserError, match="disk"):
            model().save_pretrained(tmp_path / "model")
    with pytest.raises(ArtifactError, match="neither a run nor a meta-model"):
        MetaModel.from_pretrained(tmp_path / "model")
    MetaModel.from_pretrained(model().save_pretrained(tmp_path / "model"))


@pytest.mark.parametrize("foreign", ["README.md", "config.json", "model.safetensors", "photo.png"])
@pytest.mark.parametrize("content", ["mine", '{"format": "handful run"}', "[]"])
def test_a_folder_of_other_files_is_left_as_it_is(foreign, content, tmp_path):
    """A project, a run, a model of another program."""
    (tmp_path / foreign).write_text(content)
    with pytest.raises(UserError, match=r"other files than a meta-model's.*new or an empty folder"):
        model().save_pretrained(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {foreign: content}


def test_what_is_added_to_a_model_s_folder_stays(saved):
    (saved / "notes.txt").write_text("mine")
    model().save_pretrained(saved)
    assert (saved / "notes.txt").read_text() == "mine"


def test_truncated_weights_are_refused(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="is truncated"):
        MetaModel.from_pretrained(saved)


class Bomb:
    opened = False

    def __reduce__(self):
        return (setattr, (Bomb, "opened", True))


def test_a_pickle_in_their_place_is_named_and_never_opened(saved):
    """T37."""
    for write in (lambda path: torch.save(Bomb(), path), lambda path: path.write_bytes(pickle.dumps(Bomb()))):
        write(saved / "model.safetensors")
        with pytest.raises(ArtifactError, match="is a pickle"):
            MetaModel.from_pretrained(saved)
        with pytest.raises(ArtifactError, match="is a pickle"):
            AdaptedTask.load(saved / "model.safetensors")
    assert not Bomb.opened


def rewritten(path: Path, **changes) -> None:
    """A whole and self-consistent file of handful with other facts."""
    tensors, facts, _ = read_tensors(path)
    write_tensors(path, tensors, facts | changes)


def test_another_format_is_refused_by_its_name(saved, tmp_path):
    rewritten(saved / "model.safetensors", format="handful dream")
    with pytest.raises(ArtifactError, match="not a meta-model but a handful dream"):
        MetaModel.from_pretrained(saved)


def test_another_schema_is_refused_with_the_way_out(saved, tmp_path):
    MetaModel.from_pretrained(saved).adapt(*examples()).save(tmp_path / "task")
    for schema in (2, 4):
        rewritten(tmp_path / "task", schema=schema)
        with pytest.raises(ArtifactError, match=rf"schema {schema}.*Install the version that wrote it, or adapt again"):
            AdaptedTask.load(tmp_path / "task")
    rewritten(saved / "model.safetensors", schema=2)
    with pytest.raises(ArtifactError, match=r"schema 2.*Install the version"):
        MetaModel.from_pretrained(saved)


def test_the_schema_of_a_task_is_this_layout(tmp_path):
    """Who changes the layout gives the schema another number."""
    model().adapt(*examples(), estimate=True).save(tmp_path / "task")
    _, facts, _ = read_tensors(tmp_path / "task")
    layout = (
        *("format", "schema", "model", "spec", "labels", "structure", "manifest", "groups", "examples"),
        *("support_digest", "pipeline", "targets", "holds_examples", "estimate"),
    )
    estimate = "metric", "mean", "examples", "groups", "by", "diverged"
    assert (facts["schema"], tuple(facts), tuple(facts["estimate"])) == (3, layout, estimate)


@pytest.mark.parametrize("pipeline", [{"kind": "images", "crop": True}, {"kind": "sounds"}])
def test_a_pipeline_of_a_newer_version_is_told_with_the_versions(pipeline, saved):
    rewritten(saved / "model.safetensors", pipeline=pipeline, handful="7.0.0")
    with pytest.raises(ArtifactError, match=r"model in .* cannot be built \(it was saved by handful 7\.0\.0"):
        MetaModel.from_pretrained(saved)


def test_a_task_is_no_model_and_a_model_no_task(saved, tmp_path):
    MetaModel.from_pretrained(saved).adapt(*examples()).save(tmp_path / "task")
    for wrong in (saved, saved / "model.safetensors", tmp_path):
        with pytest.raises(ArtifactError, match=r"not an adapted task. Make one with `handful adapt"):
            AdaptedTask.load(wrong)
    with pytest.raises(ArtifactError, match="is an adapted task, not a run"):
        MetaModel.from_pretrained(tmp_path / "task")


def test_what_is_missing_is_named_with_the_way_out(tmp_path):
    with pytest.raises(ArtifactError, match=r"absent does not exist. Make a run"):
        MetaModel.from_pretrained(tmp_path / "absent")
    with pytest.raises(ArtifactError, match="absent does not exist"):
        AdaptedTask.load(tmp_path / "absent")
    with pytest.raises(ArtifactError, match="neither a run nor a meta-model"):
        MetaModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "handful run"}')
    with pytest.raises(ArtifactError, match="resume="):
        MetaModel.from_pretrained(tmp_path)


# What is malicious about a model


def with_recipe(folder: Path, **changes) -> None:
    """A whole and self-consistent model with another recipe."""
    _, facts, _ = read_tensors(folder / "model.safetensors")
    rewritten(folder / "model.safetensors", recipe=facts["recipe"] | changes)


@pytest.mark.parametrize("trust", [(), ("trusted_package",), ("subprocess", "os", "builtins")])
@pytest.mark.parametrize("name", ["subprocess:Popen", "os:system", "builtins:print"])
def test_a_file_cannot_name_what_is_called(name, trust, saved, tmp_path, monkeypatch):
    """Nor does the package have to be one that nobody would trust."""
    called = []
    package, _, function = name.partition(":")
    monkeypatch.setattr(f"{package}.{function}", lambda *given, **options: called.append(given))
    with_recipe(saved, backbone=name, backbone_options={})
    with pytest.raises(ArtifactError, match=f"model.*{name}"):
        MetaModel.from_pretrained(saved, trust=trust)
    assert not called


def test_a_task_that_points_at_such_a_model_runs_no_code(saved, tmp_path):
    MetaModel.from_pretrained(saved).adapt(*examples()).save(tmp_path / "task")
    with_recipe(saved, backbone="json.tool:main", backbone_options={})
    sys.modules.pop("json.tool", None)
    with pytest.raises(ArtifactError, match=r"'json\.tool:main' is not a part of handful.*'json'.*trust=") as refused:
        model_of(AdaptedTask.load(tmp_path / "task"), tmp_path / "task")
    assert refused.value.code == "untrusted-model"
    assert "json.tool" not in sys.modules, "nothing is imported either"


def test_a_task_of_a_trusted_network_is_loaded_with_its_model(tmp_path):
    original = MetaModel(PrototypicalNetwork.build(CLASSES, backbone=Halving))
    original.save_pretrained(tmp_path / "model")
    task = original.adapt(*examples())
    with pytest.raises(ArtifactError, match=r"'test_meta_model'.*trust="):
        model_of(task, tmp_path / "task")
    loaded = model_of(task, tmp_path / "task", trust=[__name__])
    queries = torch.randn(3, 4)
    assert torch.equal(loaded.predict(task, queries).logits, original.predict(task, queries).logits)


def test_trust_is_given_as_names(saved):
    with pytest.raises(UserError, match=r"\('own',\)"):
        MetaModel.from_pretrained(saved, trust="own")


@pytest.mark.parametrize(
    ("learner", "changes"),
    [
        ("protonet", {"backbone_options": {"hidden": [10**7, 10**7]}}),
        ("protonet", {"backbone_options": {"hidden": [6, 10**7]}}),
        ("protonet", {"spec": {"kind": "classification", "input_shape": [10**12], "outputs": 3}}),
        ("protonet", {"spec": {"kind": "classification", "input_shape": [10**30], "outputs": 3}}),
        ("protonet", {"options": {"views": 10**12}}),
        ("in-context", {"options": {"width": 2**22}}),
        ("in-context", {"options": {"layers": 10**12}}),
        ("maml", {"options": {"inner_steps": 10**12, "learn_inner_lr": True, "inner_lr_per_step": True}}),
        ("mann", {"learner": "in-context", "options": {"width": 2**22}}),
    ],
    ids=str,
)
def test_a_recipe_cannot_ask_for_more_memory_than_the_weights_take(learner, changes, tmp_path):
    folder = model(LEARNERS[learner]).save_pretrained(tmp_path / "model")
    with_recipe(folder, **changes)
    with pytest.raises(ArtifactError, match="cannot be built"):
        MetaModel.from_pretrained(folder)


def test_weights_of_other_shapes_are_refused_before_any_are_made(saved):
    with_recipe(saved, backbone_options={"hidden": [6, 8]})
    made = []
    hook = register_module_parameter_registration_hook(lambda module, name, weight: made.append(weight.device.type))
    try:
        with pytest.raises(ArtifactError, match="cannot be built"):
            MetaModel.from_pretrained(saved)
    finally:
        hook.remove()
    assert set(made) == {"meta"}, "which has no numbers"


def test_images_of_terabytes_are_no_trouble_until_they_come(tmp_path):
    spec = TaskSpec("classification", (1, 16, 16), 3, "permuted")
    options = {"backbone": "conv4", "backbone_options": {"widths": [2, 2, 2, 2]}}
    folder = MetaModel(PrototypicalNetwork.build(spec, **options)).save_pretrained(tmp_path / "model")
    with_recipe(folder, spec={"kind": "classification", "input_shape": [1, 2**20, 2**20], "outputs": 3})
    MetaModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "recipe",
    [
        {"learner": "protonett"},
        {"learner": ["protonet"]},
        {"backbone": None},
        {"backbone": ["mlp"]},
        {"spec": None},
        {"spec": {"kind": "classification"}},
        {"spec": {"kind": "classification", "input_shape": [-1], "outputs": 3}},
        {"options": {"temperature": "hot"}},
        {"options": {"sharpness": 1}},
        {"options": None},
        {"seed": "x"},
        {"normalization": 3},
    ],
    ids=str,
)
def test_a_recipe_that_makes_no_learner_is_told_in_a_sentence(recipe, saved):
    with_recipe(saved, **recipe)
    with pytest.raises(ArtifactError, match=r"model cannot be built \(it was saved by handful"):
        MetaModel.from_pretrained(saved)


@pytest.mark.parametrize("facts", [[], None, "text", 3, {}])
def test_a_file_whose_facts_are_others_is_refused(facts, saved):
    tensors, _, _ = read_tensors(saved / "model.safetensors")
    write_tensors(saved / "model.safetensors", tensors, facts)
    for load in (MetaModel.from_pretrained, lambda path: AdaptedTask.load(path / "model.safetensors")):
        with pytest.raises(ArtifactError, match=r"model"):
            load(saved)


# Tasks and their models


def test_a_task_of_another_model_is_refused_everywhere():
    """Also where the other one is of the same kind and shape: its states would mean something else."""
    meta, other = model(), model()
    task = meta.adapt(*examples())
    for call in (
        lambda: other.predict(task, torch.randn(2, 4)),
        lambda: other.with_examples(task, *examples()),
        lambda: other.without_examples(task, ["0"]),
        lambda: other.check(task),
        lambda: TaskBank(other).put("task", task),
    ):
        with pytest.raises(UserError, match="another meta-model"):
            call()


def test_a_state_that_its_model_cannot_have_made_is_refused():
    meta = model()
    task = meta.adapt(*examples())
    meta.check(task)
    for state in ({"prototypes": torch.zeros(3, 7)}, {"other": torch.zeros(3, 6)}, {}):
        with pytest.raises(ArtifactError, match="does not fit its meta-model"):
            meta.check(replace(task, state=state))


def test_a_model_owns_its_weights():
    """Whoever trains the learner on changes no task adapted before, and no digest."""
    learner = PrototypicalNetwork.build(CLASSES, **BACKBONE)
    meta, queries = MetaModel(learner), torch.randn(5, 4)
    task, digest = meta.adapt(*examples()), meta.digest
    expected = meta.predict(task, queries)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 1
    learner.train()
    assert torch.equal(meta.predict(task, queries).logits, expected.logits)
    assert meta.digest == digest == MetaModel.from_bytes(meta.to_bytes()).digest
    assert MetaModel(learner).digest != digest
    assert learner.training


def test_the_digest_is_of_recipe_pipeline_and_weights_and_the_checksum_of_the_whole():
    one = model()
    noted = MetaModel(one.learner, facts={"tasks": "others"})
    assert (noted.digest == one.digest, noted.checksum == one.checksum) == (True, False)
    assert MetaModel(one.learner, Texts()).digest != one.digest


def test_a_model_from_before_an_option_was_added_is_still_the_one_that_its_tasks_name(saved):
    _, facts, _ = read_tensors(saved / "model.safetensors")
    options = {name: value for name, value in facts["recipe"]["options"].items() if name != "temperature"}
    with_recipe(saved, options=options)
    tensors, config, _ = read_tensors(saved / "model.safetensors")
    loaded = MetaModel.from_pretrained(saved)
    assert "temperature" in loaded.learner.recipe["options"]
    assert loaded.digest == model_digest(tensors, config) == loaded.adapt(*examples()).model_digest


class Texts:
    """A pipeline, as far as a digest looks."""

    def config(self):
        return {"kind": "texts"}


def test_a_model_goes_to_a_device_and_takes_states_along():
    meta = model()
    assert torch.equal(
        meta.to("cpu").predict(meta.adapt(*examples()), torch.zeros(1, 4)).logits.isfinite(), torch.ones(1, 3).bool()
    )
    assert meta.to("meta").learner.backbone.layers[0].weight.is_meta
    assert not meta.learner.backbone.layers[0].weight.is_meta


@pytest.mark.parametrize("key", ["protonet", "maml", "ridge-probe"])
def test_the_host_s_inference_mode_is_left_alone_and_breaks_nothing(key):
    meta = model(LEARNERS[key])
    inputs, labels = examples()
    expected = meta.predict(meta.adapt(inputs, labels), inputs)
    with torch.inference_mode():
        own = inputs.clone()
        found = meta.predict(meta.adapt(own, labels), own)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(found.logits, expected.logits)


def test_a_task_is_one_file_of_its_own(saved, tmp_path):
    task = MetaModel.from_pretrained(saved).adapt(*examples())
    with pytest.raises(UserError, match="is a folder"):
        task.save(saved)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file already exists and is not an adapted task"):
        task.save(tmp_path / "file")
    with pytest.raises(UserError, match=r"mine\.csv has the ending of a data file"):
        task.save(tmp_path / "mine.csv")
    with pytest.raises(UserError, match="Cannot write"):
        task.save(tmp_path / "file" / "task")
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "model"]


@pytest.mark.parametrize(
    ("inputs", "answers", "named"),
    [
        (torch.zeros(3, 5), ["a", "b", "a"], r"\(n, 4\), not \(3, 5\)"),
        (torch.tensor([[0.0, 1, 2, float("nan")], [0, 0, 0, 0]]), ["a", "b"], "Example 0 holds NaN"),
        (torch.zeros(3, 4), ["a", "a", "a"], "two classes, got only a"),
        (torch.zeros(3, 4), ["a", "b"], "3 examples and 2 labels"),
        (torch.zeros(0, 4), [], "needs at least one example"),
    ],
)
def test_examples_that_make_no_task_are_refused(inputs, answers, named):
    with pytest.raises(DataError, match=named):
        model().adapt(inputs, answers)


@pytest.mark.parametrize(
    ("answers", "labels"),
    [
        (torch.tensor([2, 10, 2]), ["2", "10"]),
        (torch.tensor([2.0, 0.5, 2.0]), ["0.5", "2"]),
        ([2, 2.0, "10"], ["2", "10"]),
        ([True, False, True], ["False", "True"]),
        (("b", "a", "b"), ["a", "b"]),
    ],
)
def test_classes_are_named_as_in_a_file(answers, labels):
    assert model().adapt(torch.randn(3, 4), answers).labels == tuple(labels)


def raised(result):
    """The task, or its error raised."""
    if isinstance(result, Exception):
        raise result
    return result


WAYS = {
    "adapt": lambda meta, inputs, answers: meta.adapt(inputs, answers),
    "adapt_many": lambda meta, inputs, answers: meta.adapt_many([(inputs, answers)] * 2)[0],
    "with_examples": lambda meta, inputs, answers: meta.with_examples(
        meta.adapt(inputs[:6], answers[:6]), inputs[6:], answers[6:]
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("key", "spec"), [("neighbors", CLASSES), ("neighbors", VALUES), ("protonet", CLASSES)])
def test_what_happens_to_the_given_arrays_changes_no_task(way, key, spec):
    meta, (inputs, answers) = model(LEARNERS[key], spec), examples(spec)
    answers = torch.tensor([int(answer) for answer in answers]) if spec.classification else answers
    queries, more = torch.randn(5, 4), examples(spec, 3)
    task = WAYS[way](meta, inputs, answers)

    def predictions():
        return meta.predict(task, queries), meta.predict(meta.with_examples(task, *more), queries)

    expected = predictions()
    inputs += 7
    answers *= 0
    found = predictions()
    for before, after in zip(expected, found, strict=True):
        assert torch.equal(before[0], after[0])
    assert task.support_digest == digest_of(task.support._asdict())


@pytest.mark.parametrize("way", WAYS)
def test_targets_that_are_not_one_row_per_example_are_refused(way):
    with pytest.raises(DataError, match=r"they should be \(\d, 2\)"):
        raised(WAYS[way](model(LEARNERS["ridge-probe"], VALUES), torch.randn(8, 4), torch.randn(8)))
    meta = model(LEARNERS["ridge-probe"], VALUES)
    with pytest.raises(DataError, match="Transpose them"):
        meta.adapt(torch.randn(8, 4), torch.randn(2, 8))
    with pytest.raises(DataError, match="Transpose them"):
        meta.with_examples(meta.adapt(torch.randn(2, 4), torch.randn(2, 2)), torch.randn(8, 4), torch.randn(2, 8))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (torch.zeros(6, 4).numpy(), r"as a tensor, not a ndarray.*torch\.as_tensor"),
        (torch.zeros(6, 4).tolist(), "as a tensor, not a list"),
        (torch.zeros(6, 4).double(), r"type torch\.float32, not torch\.float64\. Convert them"),
        (torch.zeros(6, 4).byte(), r"not torch\.uint8"),
        (torch.zeros(6, 5), r"\(n, 4\), not \(6, 5\)"),
    ],
)
def test_inputs_that_are_no_tensors_of_the_model_are_refused_everywhere(inputs, said):
    meta, labels = model(), list("ababab")
    task = meta.adapt(torch.randn(6, 4), labels)
    bank = TaskBank(meta)
    bank.put("task", task)
    for call in (
        lambda: meta.adapt(inputs, labels),
        lambda: raised(meta.adapt_many([(inputs, labels)])[0]),
        lambda: meta.with_examples(task, inputs, labels),
        lambda: meta.predict(task, inputs),
        lambda: raised(bank.predict([("task", inputs)])[0]),
    ):
        with pytest.raises(DataError, match=said):
            call()


def test_classes_that_a_shared_model_does_not_know_are_refused():
    with pytest.raises(DataError, match=r"has the classes 0, 1, 2, not 7"):
        model(spec=SHARED).adapt(torch.zeros(2, 4), ["0", "7"])


def test_a_model_of_fixed_way_refuses_another_number_of_classes():
    fixed = model(LEARNERS["maml"], head="slots")
    with pytest.raises(DataError, match="made for 3 classes"):
        fixed.adapt(torch.randn(4, 4), ["a", "b", "a", "b"])


def test_inputs_of_another_shape_are_refused_at_predict():
    meta = model()
    with pytest.raises(DataError, match=r"\(n, 4\), not \(2, 3\)"):
        meta.predict(meta.adapt(*examples()), torch.zeros(2, 3))


def test_the_own_estimate_is_leave_one_out():
    """Two tight clusters are told apart without the example in question; swapped labels are not."""
    inputs = torch.cat([torch.randn(4, 4) + 20, torch.randn(4, 4) - 20])
    learner = LEARNERS["centroid"].build(CLASSES)
    right = MetaModel(learner).adapt(inputs, list("aaaabbbb"), estimate=True)
    assert right.estimate == Estimate("accuracy", 1.0, 8, 8, "leave-one-out")
    swapped = MetaModel(learner).adapt(inputs[[0, 4, 5, 6, 7]], list("aabbb"), estimate=True)
    assert swapped.estimate.mean < 0.7
    assert MetaModel(learner).adapt(inputs[[0, 4, 5]], list("abb"), estimate=True).estimate is None
    values = model(LEARNERS["ridge-probe"], VALUES)
    assert values.adapt(*examples(VALUES, 2), estimate=True).estimate is None
    assert values.adapt(*examples(VALUES, 3), estimate=True).estimate.examples == 3
    assert values.adapt(*examples(VALUES, 3)).estimate is None, "it was not asked for"


def test_the_time_of_adapting_is_that_of_the_estimate_too(monkeypatch):
    meta = model()
    monkeypatch.setattr("handful.models.meta_model.own_scores", lambda *arguments: time.sleep(0.02) or [None])
    assert meta.adapt(*examples(), estimate=True).adapt_seconds >= 0.02
    assert meta.adapt_many([examples()], estimate=True)[0].adapt_seconds >= 0.02


def of_people(people=6, each=4):
    """Rows of people, nearly equal ones, whose labels are their own: there is nothing to learn of other people."""
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(people, 1, 4, generator=generator)
    inputs = (base + 0.01 * torch.randn(people, each, 4, generator=generator)).flatten(0, 1)
    names = [f"p{person}" for person in range(people) for _ in range(each)]
    return inputs, [f"class {int(name[1:]) % 2}" for name in names], names


def test_an_estimate_sees_none_of_the_group_that_it_is_scored_on():
    inputs, answers, names = of_people()
    meta = MetaModel(LEARNERS["neighbors"].build(CLASSES))
    assert meta.adapt(inputs, answers, estimate=True).estimate.mean == 1.0, "a row of the same person tells it all"
    found = meta.adapt(inputs, answers, groups=names, estimate=True).estimate
    right = 0
    for person in set(names):
        rest, own = ([i for i, name in enumerate(names) if (name == person) == same] for same in (False, True))
        task = meta.adapt(inputs[rest], [answers[i] for i in rest])
        told = [task.labels[number] for number in meta.predict(task, inputs[own]).logits.argmax(-1).tolist()]
        right += sum(label == answers[i] for label, i in zip(told, own, strict=True))
    assert found == Estimate("accuracy", right / 24, 24, len(set(names)), "leave-one-group-out")
    assert found.mean < 0.8
    one_of_a_class = ["p1" if label == "class 1" else name for label, name in zip(answers, names, strict=True)]
    assert meta.adapt(inputs, answers, groups=one_of_a_class, estimate=True).estimate is None
    assert meta.adapt(inputs, answers, groups=["all"] * 24, estimate=True).estimate is None


def test_an_estimate_sees_no_copy_of_what_it_is_scored_on():
    inputs, answers, _ = of_people(people=8, each=1)
    meta = MetaModel(LEARNERS["neighbors"].build(CLASSES, neighbors=1))
    alone = meta.adapt(inputs, answers, estimate=True).estimate
    copied = meta.adapt(inputs.repeat(3, 1), answers * 3, estimate=True).estimate
    assert copied == alone._replace(examples=24, by="leave-one-group-out")
    assert copied.mean < 1


def test_groups_are_kept_with_the_examples_for_those_that_are_added(saved, tmp_path):
    inputs, answers, names = of_people()
    meta = MetaModel.from_pretrained(saved)
    meta.adapt(inputs[:20], answers[:20], groups=names[:20]).save(tmp_path / "task")
    task = AdaptedTask.load(tmp_path / "task")
    assert dict(zip(task.manifest, task.groups, strict=True)) == {str(i): names[i] for i in range(20)}
    more = meta.with_examples(task, inputs[20:], answers[20:], groups=names[20:], estimate=True)
    assert more.estimate == meta.adapt(inputs, answers, groups=names, estimate=True).estimate
    with pytest.raises(UserError, match="Give groups for all or for none"):
        meta.with_examples(task, inputs[20:], answers[20:])
    assert meta.adapt(inputs, answers, groups=names, keep_support=False).groups is None
    with pytest.raises(DataError, match="24 examples, but groups for 3"):
        meta.adapt(inputs, answers, groups=names[:3])


def test_without_the_groups_that_a_model_was_trained_with_there_is_no_estimate():
    inputs, answers, names = of_people()
    meta = model()
    meta.pipeline = SimpleNamespace(order=None, group="patient", labels=None, of_one_task=False, config=dict)
    with noted(r"No estimate .*trained with groups \('patient'\)"):
        assert meta.adapt(inputs, answers, estimate=True).estimate is None
    assert meta.adapt(inputs, answers, groups=names, estimate=True).estimate is not None
    meta.adapt(inputs, answers)


# Predictions that are not finite


def test_what_is_not_finite_is_no_prediction():
    """Numbers that float32 holds, but not their squares."""
    meta = model()
    task = meta.adapt(*examples())
    huge = torch.cat([torch.zeros(1, 4), torch.full((1, 4), 1e30)])
    with pytest.raises(DivergedError, match="No finite prediction: adapting to its examples diverged") as raised:
        meta.predict(task, huge)
    assert raised.value.key is None
    assert meta.predict(task, huge[:1]).logits.isfinite().all()


def test_a_task_that_diverges_while_adapting_is_none():
    meta = MetaModel(LEARNERS["r2d2"].build(VALUES, backbone="raw"))
    inputs, values = examples(VALUES)
    meta.adapt(inputs, values)
    with pytest.raises(DivergedError, match="diverged"):
        meta.adapt(1e30 * inputs, values)


class Fragile(Learner):
    """Answers the mean target, or the first class, where an example has a number above 9. Not registered."""

    kinds = frozenset({"classification", "regression"})

    def __init__(self, spec, backbone):
        super().__init__()
        self.classification = spec.classification

    def adapt(self, support, spec):
        value = torch.tensor([1.0, 0.0]) if spec.classification else support.targets.mean(0)
        return {"value": torch.where(support.inputs.amax() > 9, value, torch.nan)}

    def predict(self, state, inputs):
        value = state["value"].expand(len(inputs), -1)
        return Categorical(value) if self.classification else Point(value)


type.__setattr__(Fragile, "key", "fragile")  # after the class is made, so that the registry does not know it


def test_the_own_estimate_counts_what_diverges():
    """As wrong in an accuracy; left out of an error, with its number."""
    inputs = torch.arange(10.0).reshape(10, 1).expand(10, 4) + 0.5
    for spec, answers, mean in ((CLASSES, list("ababababaa"), 0.5), (VALUES, torch.zeros(10, 2), 0.0)):
        found = MetaModel(Fragile.build(spec, backbone="raw")).adapt(inputs, answers, estimate=True).estimate
        assert (found.diverged, found.mean) == (1, mean), "without the last one there is no answer"


# Own networks


class Halving(nn.Module):
    """A user's network, in a module that can be imported."""

    def __init__(self, input_shape, *, features: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(input_shape[0], features)

    def forward(self, inputs):
        return self.linear(inputs) / 2


def not_registered(input_shape):
    return Halving(input_shape)


@pytest.mark.parametrize("backbone", [Halving, f"{__name__}:Halving"])
def test_an_own_network_is_named_on_disk_and_built_again(backbone, tmp_path):
    learner = PrototypicalNetwork.build(CLASSES, backbone=backbone, backbone_options={"features": 5})
    original = MetaModel(learner)
    original.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["recipe"]["backbone"] == f"{__name__}:Halving"
    with pytest.raises(ArtifactError, match="trust="):
        MetaModel.from_pretrained(tmp_path / "model")
    loaded = MetaModel.from_pretrained(tmp_path / "model", trust=(__name__,))
    assert loaded.learner.backbone.linear.out_features == 5
    queries = torch.randn(3, 4)
    inputs, answers = examples()
    expected = original.predict(original.adapt(inputs, answers), queries).logits
    assert torch.equal(loaded.predict(loaded.adapt(inputs, answers), queries).logits, expected)


def test_an_own_network_that_is_gone_is_named(tmp_path, monkeypatch):
    module = type(sys)("vanishing_networks")
    module.Network = type("Network", (Halving,), {"__module__": "vanishing_networks", "__qualname__": "Network"})
    monkeypatch.setitem(sys.modules, "vanishing_networks", module)
    MetaModel(PrototypicalNetwork.build(CLASSES, backbone=module.Network)).save_pretrained(tmp_path / "model")
    monkeypatch.delitem(sys.modules, "vanishing_networks")
    with pytest.raises(ArtifactError, match=r"vanishing_networks:Network' cannot be imported.*PYTHONPATH"):
        MetaModel.from_pretrained(tmp_path / "model", trust=("vanishing_networks",))


@pytest.mark.parametrize(
    "nameless", [lambda shape: nn.Linear(shape[0], 3), nn.Linear(4, 3), Halving((4,)), not_registered]
)
def test_a_network_without_a_name_cannot_be_saved_and_nothing_is_written(nameless, tmp_path):
    original = MetaModel(PrototypicalNetwork.build(CLASSES, backbone=nameless))
    with pytest.raises(UserError, match=r"package\.module:name"):
        original.save_pretrained(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_version_are_told_in_a_sentence(saved):
    tensors, config, _ = read_tensors(saved / "model.safetensors")
    write_tensors(saved / "model.safetensors", tensors | {"decoder.bias": torch.zeros(1)}, config)
    with pytest.raises(ArtifactError, match=r"do not fit its learner in this version.*Train it again"):
        MetaModel.from_pretrained(saved)


@pytest.mark.parametrize(("kind", "estimator"), [("classification", "Classifier"), ("regression", "Regressor")])
def test_the_card_names_the_estimator_of_its_kind(kind, estimator, tmp_path):
    learner = LEARNERS["maml"].build(TaskSpec(kind, (3,), 2), backbone="raw", head="slots")
    MetaModel(learner, None, {}).save_pretrained(tmp_path)
    assert f"handful.FewShot{estimator}.from_pretrained" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("key", "said"), [("protonet", "unless they are forgotten"), ("matching", "even with forgotten examples")]
)
def test_the_card_says_what_a_task_holds(key, said, tmp_path):
    text = (model(LEARNERS[key]).save_pretrained(tmp_path / "model") / "README.md").read_text()
    assert f"contains its own examples, {said}" in text


def test_the_card_says_what_it_is(saved):
    text = (saved / "README.md").read_text()
    for said in ("protonet", "mlp", "permuted labels", "toys", "no training examples", "handful adapt"):
        assert said in text


def test_the_files_are_safetensors_and_json(saved, tmp_path):
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    with safe_open(saved / "model.safetensors", framework="pt") as file:
        entry = json.loads(file.metadata()["handful"])
    assert entry["facts"] == json.loads((saved / "config.json").read_text())
