"""Registries find their members, and say what is near to a wrong name."""

import sys
import threading
import types

import pytest

from handful.errors import HandfulError, UserError
from handful.registry import BACKBONES, LEARNERS, TASKS, Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `home_of_tests` with one slow module that registers `found`."""
    folder = tmp_path / "home_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Nothing."""\n')
    (folder / "one.py").write_text("import time\ntime.sleep(0.1)\nREGISTRY.register('found', object)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.startswith("home_of_tests")]:
        del sys.modules[name]


def registry_of(monkeypatch):
    import builtins

    registry = Registry("thing", "home_of_tests")
    monkeypatch.setattr(builtins, "REGISTRY", registry, raising=False)
    return registry


def test_members_are_found_on_first_use(package, monkeypatch):
    registry = registry_of(monkeypatch)
    assert "home_of_tests" not in sys.modules
    assert list(registry) == ["found"]
    assert registry["found"] is object
    assert "found" in registry
    assert registry.items() == [("found", object)]


def test_the_name_of_a_member_lasts_where_any_process_finds_it(package, tmp_path, monkeypatch):
    """handful's own, and those of a package with an entry point; not what this process alone has registered."""
    (tmp_path / "home_of_tests_too").mkdir()
    (tmp_path / "home_of_tests_too" / "__init__.py").write_text("class Net: ...\nREGISTRY.register('net', Net)\n")
    installed = tmp_path / "too-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: too\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[home_of_tests]\nnet = home_of_tests_too\n")
    registry = registry_of(monkeypatch)
    registry.register("mine", Registry)  # of handful
    registry.register("here", test_members_are_found_on_first_use)
    names = {name: registry.lasting_name(member) for name, member in registry.items()}
    assert names == {"found": None, "here": None, "mine": "mine", "net": "net"}
    assert registry.lasting_name(object()) is None


def test_two_threads_find_all_members(package, monkeypatch):
    registry = registry_of(monkeypatch)
    found = []
    threads = [threading.Thread(target=lambda: found.append(list(registry))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["found"]] * 3


def test_a_module_that_cannot_be_imported_is_an_error_each_time(package, monkeypatch):
    (package / "two.py").write_text("import surely_not_installed\n")
    registry = registry_of(monkeypatch)
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            list(registry)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"Unknown learner 'protonett'\. Did you mean 'protonet'\?"):
        LEARNERS["protonett"]
    with pytest.raises(UserError, match=r"Known: .*maml"):
        LEARNERS["xyzzy"]


def test_two_members_of_one_name_are_refused():
    registry = Registry("thing", "json")
    registry.register("a", dict)
    registry.register("a", dict)
    with pytest.raises(HandfulError, match=r"Two things are named 'a'.*dict.*list"):
        registry.register("a", list)


def test_everything_registered_is_of_handful_and_bears_a_short_key():
    for registry in (LEARNERS, TASKS, BACKBONES):
        assert list(registry)
        for key, member in registry.items():
            assert key == key.lower()
            assert key.replace("-", "").isalnum()
            assert isinstance(member, (type, types.FunctionType))
            assert member.__doc__, f"{key} has no docstring"
            if not member.__module__.startswith("handful."):
                pytest.fail(f"{key} was registered by a test: {member.__module__}")


def test_every_race_has_candidates_that_can_run_in_it():
    """On classes that are drawn anew they classify, and labels may be drawn anew; on rows no label is."""
    races = {race for _, learner in LEARNERS.items() for race in learner.candidate_for}
    assert races == {"images", "vectors", "rows"}
    for race in ("images", "vectors"):
        candidates = [learner for _, learner in LEARNERS.items() if race in learner.candidate_for]
        assert candidates
        assert all("classification" in one.kinds and "permuted" in one.labels for one in candidates)
    of_rows = [learner for _, learner in LEARNERS.items() if "rows" in learner.candidate_for]
    places = [place for _, learner in LEARNERS.items() for place in learner.candidate_for.values()]
    assert min(places) == 1
    assert {kind for learner in of_rows for kind in learner.kinds} == {"classification", "regression"}
    assert {"pooled", "cavia", "maml", "cnp"} <= {learner.key for learner in of_rows}


def test_a_subclass_is_no_candidate_unless_it_says_so():
    assert LEARNERS["maml"].candidate_for
    assert not LEARNERS["boil"].candidate_for
    assert not type("Mine", (LEARNERS["maml"],), {}).candidate_for
    assert LEARNERS["cavia"].candidate_on
    assert not type("Mine", (LEARNERS["cavia"],), {}).candidate_on


def test_learners_declare_whether_they_use_other_tasks():
    """What is meta-trained or pre-trained does; what is fitted to a support from nothing or an encoder does not."""
    alone = {key for key, cls in LEARNERS.items() if not cls.uses_other_tasks}
    fitted = {"dummy", "centroid", "neighbors", "ridge-probe", "logistic-probe", "scratch", "contrastive"}
    assert fitted <= alone
    for key in alone:
        assert LEARNERS[key].meta_gradient == "none", key
        assert LEARNERS[key].start != "pretrained", key
