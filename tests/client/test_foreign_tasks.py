"""Two tenants with a client each: no verb finds anything of the other one, or shows that it is there."""

import pytest

from client import servers
from handful.client.client import Client
from handful.client.operator_verbs import OperatorVerbs
from handful.client.task_verbs import TaskVerbs
from handful.client.verbs import listing, verb
from handful.errors import UserError
from handful.http.app import make_app
from handful.serving.service import Service
from serving.worlds import classifier, points

NAME, LABELS = "a shelf of others", ["quince", "medlar"]

ON_IDS = {
    "add": lambda client, ids: client.add(ids["task"], points(9), ["plum"]),
    "correct": lambda client, ids: client.correct(ids["task"], points(9), ["plum"]),
    "delete": lambda client, ids: client.delete(ids["task"]),
    "erase": lambda client, ids: client.erase(ids["task"], ids["example"]),
    "erase_task": lambda client, ids: client.erase_task(ids["task"]),
    "evaluate": lambda client, ids: client.evaluate(ids["task"]),
    "examples": lambda client, ids: list(client.examples(ids["task"])),
    "export": lambda client, ids: client.export(ids["task"]),
    "get": lambda client, ids: client.get(ids["task"]),
    "pin": lambda client, ids: client.pin(ids["task"], 1),
    "predict": lambda client, ids: client.predict(ids["task"], points(1)),
    "predict_many": lambda client, ids: client.predict_many([(ids["own"], points(1)), (ids["task"], points(1))]),
    "readapt": lambda client, ids: client.readapt(ids["task"]),
    "remove": lambda client, ids: client.remove(ids["task"], ids["example"]),
    "rename": lambda client, ids: client.rename(ids["task"], "mine"),
    "restore": lambda client, ids: client.restore(ids["task"]),
    "revoke_key": lambda client, ids: client.revoke_key(ids["key"]),
    "roll_back": lambda client, ids: client.roll_back(ids["task"], 1),
    "rotate_key": lambda client, ids: client.rotate_key(ids["key"]),
    "version": lambda client, ids: client.version(ids["task"], 1),
    "versions": lambda client, ids: list(client.versions(ids["task"])),
}
"""Verbs on things that have ids. Those of others are not found."""

OF_OWN_TASK = {
    "erase": lambda client, ids: client.erase(ids["own"], ids["example"]),
    "remove": lambda client, ids: client.remove(ids["own"], ids["example"]),
}
"""The same with an example of others in a task of one's own."""

SHOWING = {
    "audit": lambda client: list(client.audit()),
    "keys": lambda client: list(client.keys()),
    "limits": lambda client: client.limits(),
    "models": lambda client: list(client.models()),
    "tasks": lambda client: list(client.tasks()),
    "usage": lambda client: client.usage(),
}
"""Verbs that show what there is, of one's own alone."""

OF_OPERATORS = {
    "tenants": lambda client: list(client.tenants()),
    "create_tenant": lambda client: client.create_tenant("third"),
    "create_key for others": lambda client: client.create_key("mine", "admin", tenant="others"),
    "keys of others": lambda client: list(client.keys(tenant="others")),
    "rotate_key of others": lambda client: client.rotate_key("key_1", tenant="others"),
    "revoke_key of others": lambda client: client.revoke_key("key_1", tenant="others"),
}
"""What no tenant but the operator's may, whatever there is."""

MAKING = {"create", "create_key", "import_task"}
"""Verbs that make something of one's own, whatever others have."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A client of one tenant, ids of what another one has, and what that one sees of it."""
    with Service({"points": classifier()}, tmp_path_factory.mktemp("store")) as service:
        app, tokens = make_app(service), {}
        for tenant in ("ours", "others"):
            service.tenants.create(tenant)
            tokens[tenant] = service.keys.create(tenant, "admin", f"of {tenant}").token
        with servers.blocking(app, tokens["ours"]) as ours, servers.blocking(app, tokens["others"]) as others:
            task = others.create(NAME, points(0, 1), LABELS, idempotency_key="k")
            ids = {
                "own": ours.create("a shelf of ours", points(2, 3), ["apple", "pear"]).id,
                "task": task.id,
                "example": next(iter(others.examples(task.id))).id,
                "key": next(iter(others.keys())).id,
            }
            yield ours, ids, lambda: seen(others, task.id)


def seen(client, task):
    """All that a client sees of its own."""
    lists = client.tasks(), client.versions(task), client.examples(task), client.keys(), client.audit()
    return [list(one) for one in lists], client.usage(), client.export(task)


def unknown(ids):
    """Ids of nothing, in place of those of others."""
    return {name: one if name == "own" else one[:-6] + "000000" for name, one in ids.items()}


def refusal(use, *arguments):
    """What an error says and is."""
    with pytest.raises(UserError) as error:
        use(*arguments)
    return error.value


def test_all_verbs_are_tried():
    verbs = {
        name
        for kind in (TaskVerbs, OperatorVerbs)
        for name, member in vars(kind).items()
        if isinstance(member, verb | listing)
    }
    assert verbs == {*ON_IDS, *SHOWING, "tenants", "create_tenant", *MAKING}
    assert verbs <= set(dir(Client))


@pytest.mark.parametrize("name", [*ON_IDS, *(f"{name} of one's own task" for name in OF_OWN_TASK)])
def test_ids_of_others_are_as_those_of_nothing(world, name):
    client, ids, others = world
    use = ON_IDS.get(name) or OF_OWN_TASK[name.split()[0]]
    before = others()
    foreign, nothing = refusal(use, client, ids), refusal(use, client, unknown(ids))
    assert (foreign.code, foreign.status) == ("not-found", 404)
    assert (nothing.code, nothing.status, nothing.field) == (foreign.code, foreign.status, foreign.field)
    assert without(foreign.message, ids) == without(nothing.message, unknown(ids))
    assert not any(secret in foreign.message for secret in (NAME, *LABELS))
    assert others() == before


def without(message, ids):
    for one in ids.values():
        message = message.replace(one, "")
    return message


@pytest.mark.parametrize("name", SHOWING)
def test_what_is_shown_is_of_ones_own(world, name):
    client, ids, _ = world
    shown = repr(SHOWING[name](client))
    secrets = (NAME, *LABELS, "others", ids["task"], ids["example"], ids["key"])
    assert not any(secret in shown for secret in secrets), shown


@pytest.mark.parametrize("name", OF_OPERATORS)
def test_only_the_operators_tenant_manages_tenants(world, name):
    client, _, others = world
    before = others()
    assert refusal(OF_OPERATORS[name], client).code in ("forbidden", "not-found")
    assert others() == before


def test_a_name_a_file_and_an_idempotency_key_of_others_make_something_of_ones_own(world):
    client, ids, others = world
    before = others()
    made = client.create(NAME, points(0, 1), LABELS, idempotency_key="k")
    assert made.id not in (ids["task"], ids["own"])
    again = client.import_task("a file of others", before[-1])
    assert [one.name for one in client.tasks()] == ["a shelf of ours", NAME, again.name]
    assert others() == before
    for one in (made, again):
        client.erase_task(one.id)
