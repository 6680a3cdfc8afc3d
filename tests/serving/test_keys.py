"""API keys: what they may do, until when, and that nothing but their hash is kept."""

import contextlib
import time
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from handful.errors import UserError
from handful.serving import keys as module
from handful.serving.keys import Identity, Keys
from handful.serving.opening import open_store
from handful.serving.sqlite import FILE
from handful.serving.sqlite_store import SqliteStore
from handful.serving.tenants import Tenants

OWN = "an-admin-key-of-the-operator-0001"


@pytest.fixture
def now():
    return SimpleNamespace(ms=1_700_000_000_000)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with SqliteStore(tmp_path_factory.mktemp("keys") / "store") as store:
        yield store


@pytest.fixture
def folder_store(shared):
    """The same for all tests, with no tenants and keys but "default"."""
    with shared.writer._engine.begin() as connection:
        for table in ("keys", "audit", "tenants WHERE tenant != 'default'"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    return shared


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request):
    if request.param == "sqlite":
        yield request.getfixturevalue("folder_store")
    else:
        with open_store(request.getfixturevalue("cluster").store()) as store:
            yield store


@pytest.fixture
def keys(store, now):
    Tenants(store, lambda: now.ms).create("acme")
    return Keys(store, lambda: now.ms)


def later(now, **how):
    return datetime.fromtimestamp(now.ms / 1000, UTC) + timedelta(**how)


def refused(keys, token):
    with pytest.raises(UserError, match="unknown, expired or revoked") as error:
        keys.check(token)
    return error.value.code == "unauthenticated"


@pytest.mark.parametrize("scope", ["predict", "write", "admin"])
def test_a_key_is_its_tenant_s_and_may_do_what_its_scope_includes(keys, scope):
    new = keys.create("acme", scope, "of the shop")
    identity = keys.check(new.token)
    assert identity == Identity("acme", new.key.id, scope)
    for place, wanted in enumerate(module.SCOPES):
        if place <= module.SCOPES.index(scope):
            identity.require(wanted)
        else:
            with pytest.raises(UserError, match=f"scope '{wanted}', but yours has '{scope}'") as error:
                identity.require(wanted)
            assert error.value.code == "forbidden"


def test_the_store_and_what_is_printed_of_a_key_hold_no_secret(folder_store, now):
    keys, store = Keys(folder_store, lambda: now.ms), folder_store
    Tenants(store, lambda: now.ms).create("acme")
    new = keys.create("acme", "write", "of the shop")
    keys.first_admin(OWN)
    store.empty_log()
    content, secret = (store.path / FILE).read_bytes(), new.token.rpartition("_")[2]
    assert new.key.id.removeprefix("key_") in new.token
    assert new.key.id.encode() in content
    assert secret.encode() not in content
    assert OWN.encode() not in content
    assert secret not in repr(new)
    assert len(bytes.fromhex(secret)) == 32


def test_a_key_expires(keys, now):
    new = keys.create("acme", "predict", "for a day", later(now, days=1))
    assert new.key.expires_at == later(now, days=1)
    now.ms += 24 * 3600 * 1000 - 1
    keys.check(new.token)
    now.ms += 1
    assert refused(keys, new.token)


@pytest.mark.parametrize("hours", [-12, 0, 12])
def test_a_key_may_last_as_long_as_there_are_dates_and_is_rotated(keys, now, hours):
    last = datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)
    new = keys.create("acme", "predict", "for ever", last.replace(tzinfo=timezone(timedelta(hours=hours))))
    assert new.key.expires_at == last - timedelta(hours=max(0, hours))
    now.ms += 24 * 3600 * 1000
    assert keys.rotate("acme", new.key.id).key.expires_at == last
    assert len(keys.list("acme")) == 2
    keys.check(new.token)


def test_a_revoked_key_is_refused_at_once_and_stays_so(keys, now):
    new, other = keys.create("acme", "write", "lost"), keys.create("acme", "write", "kept")
    keys.check(new.token)
    revoked = keys.revoke("acme", new.key.id)
    assert refused(keys, new.token)
    now.ms += 5000
    assert keys.revoke("acme", new.key.id) == revoked
    assert keys.check(other.token).key == other.key.id


def test_another_process_refuses_a_revoked_key_within_a_second(keys, store, now, monkeypatch):
    other, new = Keys(store, lambda: now.ms), keys.create("acme", "write", "lost")
    other.check(new.token)
    keys.revoke("acme", new.key.id)
    other.check(new.token)
    started = time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: started + 1.01)
    assert refused(other, new.token)


def test_a_key_that_is_read_while_it_is_revoked_is_not_held(keys, store, monkeypatch):
    new, original = keys.create("acme", "write", "lost"), store.reading

    @contextlib.contextmanager
    def held_up(tenant):
        with original(tenant) as rows:
            found = rows.directory.hashed_key(new.key.id)
            monkeypatch.setattr(store, "reading", original)
            keys.revoke("acme", new.key.id)
            rows.directory.hashed_key = lambda id_: found
            yield rows

    monkeypatch.setattr(store, "reading", held_up)
    keys.check(new.token)
    assert refused(keys, new.token)


def test_the_hot_path_reads_no_row(keys, store, monkeypatch):
    new = keys.create("acme", "predict", "hot")
    keys.check(new.token)
    monkeypatch.setattr(store, "reading", None)
    keys.check(new.token)


def test_keys_in_memory_are_bounded(keys, monkeypatch):
    monkeypatch.setattr(module, "HELD", 2)
    for name in "abcde":
        keys.check(keys.create("acme", "predict", name).token)
        assert len(keys._held) <= 2


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token + "0",
        lambda token: token.upper(),
        lambda token: token[:3] + "0" * 32 + token[35:],
        lambda token: token[3:],
        lambda token: "\ud800" * 40,
        lambda token: "",
        lambda token: "x" * 10**6,
    ],
)
def test_what_is_nearly_a_key_is_refused(keys, change):
    keys.first_admin(OWN)
    assert refused(keys, change(keys.create("acme", "predict", "one").token))


def test_a_rotated_key_overlaps_with_its_successor(keys, now):
    old = keys.create("acme", "write", "of the shop", later(now, days=30))
    now.ms += 10 * 24 * 3600 * 1000
    new = keys.rotate("acme", old.key.id, overlap=timedelta(hours=1))
    assert (new.key.name, new.key.scope, new.key.tenant) == ("of the shop", "write", "acme")
    assert new.key.expires_at == later(now, days=30)
    assert keys.check(old.token).key != keys.check(new.token).key
    now.ms += 3600 * 1000
    assert refused(keys, old.token)
    keys.check(new.token)
    with pytest.raises(UserError, match="revoked or expired"):
        keys.rotate("acme", old.key.id)


@pytest.mark.parametrize("life", [None, timedelta(days=30)])
def test_a_key_is_rotated_once_and_its_successor_again(keys, now, life):
    old = keys.create("acme", "write", "of the shop", None if life is None else later(now, **{"days": life.days}))
    new = keys.rotate("acme", old.key.id)
    now.ms += 1000
    with pytest.raises(UserError, match=f"rotated already. Rotate '{new.key.id}'"):
        keys.rotate("acme", old.key.id)
    newest = keys.rotate("acme", new.key.id)
    assert newest.key.expires_at == (None if life is None else later(now, days=life.days))
    assert len(keys.list("acme")) == 3


def test_rotation_never_prolongs_a_key(keys, now):
    old = keys.create("acme", "write", "soon over", later(now, minutes=1))
    keys.rotate("acme", old.key.id, overlap=timedelta(days=9))
    assert keys.list("acme")[0].expires_at == old.key.expires_at


def test_keys_of_other_tenants_are_none(keys):
    new = keys.create("acme", "write", "of the shop")
    for act in (keys.revoke, keys.rotate):
        with pytest.raises(UserError, match=r"The key .* does not exist") as error:
            act("default", new.key.id)
        assert error.value.code == "not-found"
    assert keys.list("default") == []
    keys.check(new.token)


def test_keys_are_listed_in_pages(keys):
    made = [keys.create("acme", "predict", name).key for name in "abc"]
    assert keys.list("acme", limit=2) == made[:2]
    assert keys.list("acme", limit=2, after=made[1].id) == made[2:]


def test_an_unknown_tenant_has_no_list_of_keys(keys):
    with pytest.raises(UserError, match="tenant 'nobody' does not exist") as caught:
        keys.list("nobody")
    assert caught.value.code == "not-found"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tenant": "nobody"}, "tenant 'nobody' does not exist"),
        ({"scope": "root"}, "Unknown scope 'root'. Give one of: predict, write, admin"),
        ({"name": ""}, "1 to 128 characters"),
        ({"expires_at": datetime(2001, 1, 1, tzinfo=UTC)}, "is in the past"),
        ({"expires_at": datetime(2101, 1, 1)}, "needs a time zone"),
    ],
)
def test_what_is_no_key_is_refused_in_a_sentence(keys, how, message):
    with pytest.raises(UserError, match=message):
        keys.create(**({"tenant": "acme", "scope": "write", "name": "one"} | how))


def test_the_audit_names_who_made_and_revoked_keys(keys, store):
    new = keys.create("acme", "write", "one", actor="ann")
    rotated = keys.rotate("acme", new.key.id, actor="bob")
    keys.revoke("acme", rotated.key.id, actor="eve")
    with store.reading("acme") as rows:
        told = [(one.actor, one.action, one.task) for one in rows.audit(9)]
    old, new = new.key.id, rotated.key.id
    assert told[1:] == [
        ("ann", "key-created", old),
        ("bob", "key-rotated", old),
        ("bob", "key-created", new),
        ("eve", "key-revoked", new),
    ]


# The first admin key


def test_the_first_start_makes_an_admin_key_once(keys):
    first = keys.first_admin(None)
    assert keys.check(first.token) == Identity("default", first.key.id, "admin")
    assert keys.first_admin(None) is None
    keys.revoke("default", first.key.id)
    assert keys.first_admin(None).token != first.token


def test_an_operator_gives_the_first_admin_key_and_replaces_it(keys):
    assert keys.first_admin(OWN) is None
    assert keys.first_admin(OWN) is None
    assert keys.check(OWN) == Identity("default", module.OPERATOR, "admin")
    assert keys.first_admin(None) is None, "there is one"
    keys.first_admin(OWN + "2")
    assert refused(keys, OWN)
    keys.check(OWN + "2")


def test_a_revoked_key_of_the_operator_does_not_come_back(keys):
    keys.first_admin(OWN)
    keys.revoke("default", module.OPERATOR)
    with pytest.raises(UserError, match=r"revoked or expired\. Give another one"):
        keys.first_admin(OWN)
    assert refused(keys, OWN)
    keys.first_admin(OWN + "2")
    keys.check(OWN + "2")


@pytest.mark.parametrize("given", ["short", "x" * 31, "x" * 257, "with a space" * 4, "ü" * 40, "hf_" + "0" * 64, ""])
def test_an_admin_key_that_cannot_be_one_is_refused_and_not_shown(keys, given):
    with pytest.raises(UserError, match="needs 32 to 256 letters") as error:
        keys.first_admin(given)
    assert given not in str(error.value) or not given
