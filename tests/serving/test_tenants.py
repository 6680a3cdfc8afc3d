"""Tenants, and who manages them."""

import pytest

from handful.errors import UserError
from handful.serving.keys import Identity
from handful.serving.opening import open_store
from handful.serving.tenants import Tenants


@pytest.fixture
def store(place):
    with open_store(place) as store:
        yield store


@pytest.fixture
def tenants(store):
    return Tenants(store, lambda: 1_700_000_000_000)


def test_the_default_tenant_is_always_there_and_others_are_made(tenants, store):
    assert tenants.get("default").name == "default"
    made = tenants.create("acme", actor="ann")
    assert tenants.get("acme") == made
    assert [one.name for one in tenants.list()] == ["acme", "default"]
    assert [one.name for one in tenants.list(limit=1, after="acme")] == ["default"]
    with store.reading("acme") as rows:
        assert [(one.actor, one.action, one.task) for one in rows.audit(9)] == [("ann", "tenant-created", "acme")]
        assert [one.name for one in rows.directory.tenants(9, "")] == ["acme"], "a tenant's own rows alone"


def test_taken_and_unknown_names_are_refused(tenants):
    for name, code in (("default", "name-taken"), ("", "invalid-request")):
        with pytest.raises(UserError) as error:
            tenants.create(name)
        assert error.value.code == code
    with pytest.raises(UserError, match="tenant 'nobody' does not exist") as error:
        tenants.get("nobody")
    assert error.value.code == "not-found"


@pytest.mark.parametrize("name", ["", "Acme", "-x", "a b", "a/b", "ä", "x" * 64, "a\n", ".."])
def test_names_that_read_as_others_are_refused(tenants, name):
    with pytest.raises(UserError, match="name of a tenant has 1 to 63 characters"):
        tenants.create(name)


def test_an_admin_of_default_manages_all_tenants_and_others_their_own():
    Identity("default", "key_1", "admin").require_managing("acme")
    Identity("acme", "key_2", "admin").require_managing("acme")
    with pytest.raises(UserError) as foreign:
        Identity("acme", "key_2", "admin").require_managing("default")
    with pytest.raises(UserError) as below:
        Identity("default", "key_3", "write").require_managing("default")
    assert (foreign.value.code, below.value.code) == ("not-found", "forbidden")
