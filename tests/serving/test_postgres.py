"""A store in PostgreSQL: its roles and row security, its schema, what fails, and what is tried again."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import psycopg
import pytest
from sqlalchemy import event, text, true
from tests.http.apps import caller

from client import servers
from handful import Service
from handful.errors import ArtifactError, HandfulError, UserError
from handful.http.app import make_app
from handful.serving import postgres, postgres_store
from handful.serving.directory import EVERYONE, Directory
from handful.serving.opening import open_store, upgrade
from handful.serving.postgres_store import PostgresStore
from handful.serving.rows import Rows
from handful.serving.schema import check_schema
from handful.serving.tables import METADATA
from serving.clusters import OWNER, SERVICE, name_of
from serving.oracle import check
from serving.schemas import HEAD, NEXT, migrations
from serving.worlds import classifier, filled, points

TENANTED = [table.name for table in METADATA.sorted_tables if "tenant" in table.c]


@pytest.fixture
def address(cluster):
    return cluster.store()


@pytest.fixture
def own(cluster):
    """A store whose schema or settings are changed."""
    return cluster.own_store()


@pytest.fixture
def store(address):
    with open_store(address) as store:
        yield store


def made(service, name="shelf", **options):
    return service.create(name, points(1, 2, 3, 4), ["a", "a", "b", "b"], **options)


def test_tasks_are_kept_in_postgresql(address, cluster):
    with Service(classifier(), address) as service:
        task = made(service)
        service.add(task.id, points(5), ["c"])
        receipt = service.erase(task.id, [service.examples(task.id)[4].id])
        assert "vacuum" in receipt.remains
        assert check(service) == 3
    with open_store(address) as store, store.reading("default") as rows:
        assert rows.task(task.id).head.number == 3


def test_a_client_reads_in_a_receipt_what_remains(address):
    with Service(classifier(), address) as service:
        task = made(service)
        key = service.keys.create("default", "write", "of a test").token
        with servers.blocking(make_app(service), key) as client:
            assert "vacuum" in client.erase(task.id, service.examples(task.id)[0].id).remains
            assert "backups" in client.erase_task(task.id).remains


def test_commits_are_counted_and_timed(address):
    with Service(classifier(), address) as service:
        call = caller(service)
        before = service.store.measured.commits
        made(service)
        with pytest.raises(UserError, match="does not exist"):
            service.delete("none")
        assert service.store.measured.commits == before + 1
        lines = call("GET", "/metrics").text.splitlines()
        found = dict(line.split() for line in lines if line.startswith("handful_commit"))
        assert float(found["handful_commits_total"]) == before + 1
        assert 0 < float(found["handful_commit_seconds_total"]) < 60
        assert not [line for line in lines if "wal_bytes" in line]


def test_every_table_with_a_tenant_is_under_row_security(address, cluster):
    with Service(classifier(), address) as service:
        made(service, tenant="t", idempotency_key="k")
    with cluster.superuser(name_of(address)) as connection:
        forced = "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
        assert {name for (name,) in connection.execute(forced)} == set(TENANTED)
        assert connection.execute("SELECT COUNT(*) FROM tasks").fetchone() == (1,)
    with psycopg.connect(address) as connection:
        for name in TENANTED:
            assert connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone() == (0,)
        connection.execute("SELECT set_config('handful.tenant', 'u', true)")
        for name in TENANTED:
            assert connection.execute(f"SELECT COUNT(*) FROM {name} WHERE tenant = 't'").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            connection.execute("INSERT INTO tasks VALUES ('t', 'x', 'x', true, 1)")


@pytest.mark.parametrize("role", ["root", "bypass", "changed", OWNER, "stranger"])
def test_a_role_for_which_row_security_does_not_hold_is_refused(address, cluster, role):
    name = name_of(address)
    with cluster.superuser(name) as connection:
        for made, options in (("bypass", "BYPASSRLS"), ("stranger", "")):
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [made]).fetchone():
                connection.execute(f"CREATE ROLE {made} LOGIN {options}")
    place = cluster.address(name, role)
    reason = "is a superuser or has BYPASSRLS"
    if role == "changed":
        place = f"{cluster.address(name, 'root')}&options=-crole={SERVICE}"
    elif role == OWNER:
        reason = "owns the table"
    elif role == "stranger":
        reason = r"'stranger' may not use the store\. Run `handful store upgrade`"
    with pytest.raises(UserError, match=reason):
        open_store(place)


@pytest.mark.slow
def test_a_table_without_row_security_or_rights_is_refused(own, cluster):
    with cluster.superuser(name_of(own)) as connection:
        connection.execute("ALTER TABLE heads NO FORCE ROW LEVEL SECURITY")
        with pytest.raises(UserError, match="table heads has no row security"):
            open_store(own)
        connection.execute(f"REVOKE DELETE ON supports FROM {SERVICE}")
        upgrade(cluster.address(name_of(own), OWNER))
        open_store(own).close()
        connection.execute(f"REVOKE DELETE ON supports FROM {SERVICE}")
        with pytest.raises(UserError, match="may not DELETE in the table supports"):
            open_store(own)


@pytest.mark.slow
def test_the_audit_cannot_be_changed(store):
    store.write("t", lambda rows: rows.log(1, "ann", "created", "task_1", 1))
    for change in ("UPDATE audit SET actor = 'bob'", "DELETE FROM audit"):
        with pytest.raises(Exception, match="permission denied"):
            store.write("t", lambda rows, change=change: rows._run(text(change)))


# Tenants


def uses(service, task, example):
    """What another tenant could try, with the ids of a task and of an example."""
    u = {"tenant": "u"}
    return [
        lambda: service.get(task, **u),
        lambda: service.versions(task, **u),
        lambda: service.examples(task, **u),
        lambda: service.examples(task, 1, **u),
        lambda: service.predict(task, points(1), **u),
        lambda: service.predict(task, points(1), version=1, **u),
        lambda: service.export(task, **u),
        lambda: service.add(task, points(5), ["c"], **u),
        lambda: service.correct(task, points(5), ["c"], **u),
        lambda: service.remove(task, [example], **u),
        lambda: service.roll_back(task, 1, **u),
        lambda: service.delete(task, **u),
        lambda: service.restore(task, **u),
        lambda: service.erase(task, [example], **u),
        lambda: service.erase_task(task, **u),
    ]


def leaks(service):
    """What a tenant gets to see or to change of another one's."""
    task = made(service, tenant="t", idempotency_key="k")
    example = service.examples(task.id, tenant="t")[0].id
    service.store.write("t", lambda rows: rows.directory.insert_key("key_1", "till", "admin", "hash", 1, None))
    found = []
    for number, use in enumerate(uses(service, task.id, example)):
        try:
            found.append((number, use()))
        except UserError as error:
            if error.code != "not-found":
                raise
    found += service.tasks(tenant="u")
    with service.store.reading("u") as rows:
        found += rows.audit(99)
        found += (
            rows.versions(task.id)
            + rows.examples(task.id, 1)
            + rows.receipts.of_task(task.id)
            + rows.support(task.id, 1)
        )
        found += (
            rows.deleted_before(10**15)
            + sorted(rows.known_examples(task.id, [example]))
            + rows.versions_with(task.id, [example])
        )
        found += filter(None, [rows.state(task.id, 1), rows.answer("k", 0), rows.last_number(task.id)])
        found += rows.directory.keys(9, "") + rows.directory.tenants(9, "")
        found += filter(None, [rows.directory.hashed_key("key_1"), rows.directory.has_admin(1)])
    made(service, tenant="u", idempotency_key="k")  # the same name and key
    assert service.get(task.id, tenant="t") == task
    return found


def without_filters(monkeypatch):
    monkeypatch.setattr(Rows, "_own", lambda _, table: true())
    monkeypatch.setattr(Directory, "_own", lambda _, table: true())
    monkeypatch.setattr(Rows, "_of", lambda _, table, task: table.c.task == task)


@pytest.mark.slow
def test_row_security_holds_where_a_query_forgets_the_tenant(address, monkeypatch):
    without_filters(monkeypatch)
    with Service(classifier(), address) as service:
        assert leaks(service) == []


@pytest.mark.slow
def test_queries_are_of_one_tenant_without_row_security(own, cluster, monkeypatch):
    with Service(classifier(), own) as service, cluster.superuser(name_of(own)) as connection:
        for name in TENANTED:
            connection.execute(f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY")
        assert leaks(service) == []
        without_filters(monkeypatch)
        with service.store.reading("u") as rows:
            assert len(rows.tasks(9)) == 2, "without both, tenants see one another's tasks"


@pytest.mark.slow
def test_keys_of_all_tenants_are_found_only_before_it_is_known_whose_they_are(store):
    for tenant in ("t", "u"):
        store.write(tenant, lambda rows: rows.directory.insert_tenant(1))
        store.write(
            tenant, lambda rows, id_=f"key_{tenant}": rows.directory.insert_key(id_, "x", "admin", "h", 1, None)
        )
    with store.reading(EVERYONE) as rows:
        assert {key.id for key in rows.directory.keys(9, "")} == {"key_t", "key_u"}
        assert rows.tasks(9) == []
    for change in ("UPDATE keys SET scope = 'admin'", "DELETE FROM keys"):
        assert store.write(EVERYONE, lambda rows, change=change: rows._run(text(change)).rowcount) == 0
    with store.reading("t") as rows:
        assert [row.id for row in rows._run(text("SELECT id FROM keys"))] == ["key_t"]


def test_an_operator_asks_once_whichever_tenant_it_is_about(address):
    with Service(classifier(), address) as service:
        asks = {
            "tenant": lambda name: service.tenants.create(name, idempotency_key="tenant").name,
            "key": lambda name: service.keys.create(name, "write", "k", idempotency_key="key").key.id,
        }
        ids = {one: asks[one]("asked") for one in asks}
        assert {one: asks[one]("asked") for one in asks} == ids
        rotated = [service.keys.rotate("asked", ids["key"], idempotency_key="rotate").key.id for _ in range(2)]
        assert [one.id for one in service.keys.list("asked")] == [ids["key"], rotated[0]]
        assert rotated[0] == rotated[1]
        for ask in asks.values():
            with pytest.raises(UserError, match="earlier, different request"):
                ask("other")
        for name in ("asked", "default"):
            check(service, name)
        with service.store.reading("asked") as rows:
            assert rows.answer("key", 0) is None, "a tenant sees nothing of what others asked about it"


# Schemas


@pytest.mark.slow
def test_no_store_an_older_and_a_newer_one_are_refused(cluster, tmp_path, monkeypatch):
    name = cluster.database()
    owner, service = cluster.address(name, OWNER), cluster.address(name)
    with pytest.raises(ArtifactError, match=r"does not contain a store yet\. Create one with `handful store upgrade`"):
        open_store(service)
    with pytest.raises(UserError, match="The role of the service is missing"):
        upgrade(owner)
    with pytest.raises(UserError, match="no role 'nobody there'"):
        upgrade(owner, role="nobody there")
    with pytest.raises(UserError, match="Log in as the owner"):
        upgrade(service, role=SERVICE)
    upgrade(owner, role=SERVICE)
    open_store(service).close()
    folder = migrations(tmp_path)
    monkeypatch.setattr(postgres_store, "check_schema", partial(check_schema, migrations=folder))
    with pytest.raises(
        ArtifactError, match=f"schema {HEAD} of an earlier version. Upgrade it with `handful store upgrade"
    ):
        open_store(service)
    upgrade(owner, migrations=folder)
    open_store(service).close()
    monkeypatch.undo()
    for use in (lambda: open_store(service), lambda: upgrade(owner)):
        with pytest.raises(ArtifactError, match=f"has the schema {NEXT}, but this version of handful reads {HEAD}"):
            use()


RENAMED = "op.execute(\"UPDATE tasks SET name = name || '!'\")"


def two_tenants(address):
    with Service(classifier(), address) as service:
        made(service, tenant="t")
        made(service, tenant="u")


def names(cluster, address):
    with cluster.superuser(name_of(address)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM tasks ORDER BY tenant")]


@pytest.mark.slow
def test_a_migration_of_data_reaches_the_rows_of_all_tenants(own, cluster, tmp_path, monkeypatch):
    two_tenants(own)
    owner, folder = cluster.address(name_of(own), OWNER), migrations(tmp_path, RENAMED)
    with monkeypatch.context() as patch:
        patch.setattr(
            postgres_store, "unguard", lambda connection: connection.exec_driver_sql("SET LOCAL row_security = off")
        )
        with pytest.raises(Exception, match="row-level security"):
            upgrade(owner, migrations=folder)
    assert names(cluster, own) == ["shelf", "shelf"]
    upgrade(owner, migrations=folder)
    assert names(cluster, own) == ["shelf!", "shelf!"]
    with cluster.superuser(name_of(own)) as connection:
        forced = "SELECT COUNT(*) FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
        assert connection.execute(forced).fetchone() == (len(TENANTED),)


@pytest.mark.slow
def test_an_earlier_store_is_counted_anew(own, cluster):
    """Versions before counted examples and states alone."""
    two_tenants(own)
    with Service(classifier(), own) as service:
        for name in ("t", "u"):
            filled(service, name)
        wanted = [service.usage(tenant=name) for name in ("t", "u")]
    with cluster.superuser(name_of(own)) as connection:
        connection.execute("UPDATE tasks SET bytes = 1")
        connection.execute("UPDATE tenants SET bytes = 1")
        connection.execute("ALTER TABLE requests ALTER COLUMN task SET NOT NULL")
        connection.execute("UPDATE alembic_version SET version_num = '0004'")
    upgrade(cluster.address(name_of(own), OWNER))
    with Service(classifier(), own) as service:
        assert [service.usage(tenant=name) for name in ("t", "u")] == wanted
        check(service, "t")
        service.keys.create("t", "predict", "one", idempotency_key="k")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("op.execute('DELETE FROM supports')", "would change supports from 8 rows to 0"),
        ("raise RuntimeError('killed')", "killed"),
    ],
)
def test_a_failing_migration_leaves_everything_as_it_was(own, cluster, tmp_path, more, reason):
    two_tenants(own)
    with pytest.raises(Exception, match=reason):
        upgrade(cluster.address(name_of(own), OWNER), migrations=migrations(tmp_path, f"{RENAMED}; {more}"))
    assert names(cluster, own) == ["shelf", "shelf"]
    with Service(classifier(), own) as service:
        assert check(service, "t") == 1


# What fails


def backend(rows):
    return rows._run(text("SELECT pg_backend_pid()")).scalar()


def end(cluster, pid):
    with cluster.superuser() as connection:
        return connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).rowcount


@pytest.mark.slow
@pytest.mark.parametrize("state", ["40001", "40P01", "23505"])
def test_a_transaction_that_others_made_impossible_is_begun_anew(store, state):
    runs = []

    def work(rows):
        rows.log(1, "ann", "created", "task_1", 1)
        runs.append(1)
        if len(runs) < 3:
            rows._run(text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$"))
        return "done"

    assert store.write("t", work) == "done"
    with store.reading("t") as rows:
        assert [entry.number for entry in rows.audit(9)] == [1]
    assert len(runs) == 3


@pytest.mark.slow
def test_two_that_wait_for_one_another_are_both_done(store):
    both, runs = threading.Barrier(2), []

    def run(tenant, order):
        def work(rows):
            rows._run(text(f"SELECT pg_advisory_xact_lock({order[0]})"))
            runs.append(tenant)
            if len(runs) <= 2:
                both.wait(10)
            rows._run(text(f"SELECT pg_advisory_xact_lock({order[1]})"))

        store.write(tenant, work)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, "tu", [(1, 2), (2, 1)]))
    assert len(runs) == 3


@pytest.mark.slow
def test_a_lost_connection_is_replaced_where_nothing_was_written(store, cluster):
    with pytest.raises(HandfulError, match="nothing of this request was stored") as error, store.reading("t") as rows:
        rows.tasks(end(cluster, backend(rows)))
    assert error.value.code == "unavailable"
    pids = []

    def work(rows):
        rows.log(1, "ann", "created", "task_1", 1)
        pids.append(backend(rows))
        if len(pids) == 1:
            end(cluster, pids[0])
        rows.log(2, "ann", "added", "task_1", 2)

    store.write("t", work)
    end(cluster, pids[1])  # while nobody uses it
    with store.reading("t") as rows:
        assert [entry.action for entry in rows.audit(9)] == ["created", "added"]
    assert len(set(pids)) == 2


@pytest.mark.slow
def test_where_a_commit_is_lost_its_outcome_is_unknown(store, cluster):
    pids = []

    def work(rows):
        rows.log(1, "ann", "created", "task_1", 1)
        pids.append(backend(rows))

    event.listen(store._engine, "commit", lambda _: end(cluster, pids[-1]), once=True)
    with pytest.raises(HandfulError, match="this request may have been carried out") as error:
        store.write("t", work)
    assert (error.value.code, len(pids)) == ("failed", 1)
    store.write("t", work)


@pytest.mark.slow
def test_a_constraint_that_fails_at_the_end_is_no_unknown_outcome(store):
    with pytest.raises(Exception, match="violates foreign key"):
        store.write("t", lambda rows: rows.set_head("task_1", 1))


@pytest.mark.slow
def test_what_was_acknowledged_is_there_after_the_server_died(address, cluster, monkeypatch):
    monkeypatch.setattr(postgres, "PAUSES", (0.0, 0.01))
    with Service(classifier(), address) as service:
        tasks = [made(service, f"shelf {number}").id for number in range(5)]
        cluster.stop()
        with pytest.raises(HandfulError, match=r"The database failed .*nothing of this request was stored") as error:
            made(service, "later")
        assert error.value.code == "unavailable"
        cluster.start()
        assert [task.id for task in service.tasks()] == tasks
        made(service, "later")
        check(service)


@pytest.mark.slow
def test_connections_are_bounded(address, monkeypatch):
    monkeypatch.setattr(postgres, "CONNECTIONS", 1)
    monkeypatch.setattr(postgres, "WAIT", 1)
    with (
        open_store(address) as store,
        store.reading("t"),
        pytest.raises(HandfulError, match="All 1 connections") as error,
        store.reading("t"),
    ):
        pass
    assert error.value.code == "unavailable"


@pytest.mark.slow
def test_what_the_database_cannot_keep_is_one_sentence(address):
    with Service(classifier(), address) as service:
        with pytest.raises(UserError, match=r"cannot store a text.*NUL"):
            service.get("task_\0")
        with pytest.raises(UserError, match=r"cannot store a text.*NUL"):
            made(service, actor="ann\0")
        with pytest.raises(UserError, match="pg_dump"):
            service.store.backup("copy")


@pytest.mark.slow
def test_settings_with_which_data_could_be_lost_are_refused(own, cluster):
    with cluster.superuser(name_of(own)) as connection:
        connection.execute(f'ALTER DATABASE "{name_of(own)}" SET synchronous_commit = off')
    with pytest.raises(UserError, match="synchronous_commit = off"):
        open_store(own)


def test_an_address_is_checked_and_its_password_is_in_no_message(monkeypatch):
    with pytest.raises(UserError, match="address of the database cannot be read"):
        open_store("postgresql://host:port/x")
    for opened in (open_store, partial(upgrade, role=SERVICE)):
        for place in ("ann:secret-7f3a@127.0.0.1:1/x", "127.0.0.1:1/x?user=ann&password=secret-7f3a"):
            with pytest.raises(HandfulError) as error:
                opened(f"postgresql://{place}")
            assert re.fullmatch(
                r"The database postgresql://\S*127\.0\.0\.1:1/x\S* cannot be reached \(.*Connection refused\)\. "
                r"Start PostgreSQL, or check the address\.",
                str(error.value),
            )
            assert error.value.code == "unavailable"
            assert "secret-7f3a" not in str(error.value)
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs psycopg, .*pip install '\.\[postgres\]'"):
        open_store("postgres://x/y")


def test_a_database_that_refuses_says_why(cluster):
    for place, why in (
        (cluster.address("none"), 'database "none" does not exist'),
        (cluster.address("postgres", "nobody"), 'role "nobody" does not exist'),
    ):
        for opened in (open_store, partial(upgrade, role=SERVICE)):
            with pytest.raises(HandfulError) as error:
                opened(place)
            assert str(error.value).startswith(f"The database {place.partition('?')[0]}")
            assert " refuses the connection (" in str(error.value)
            assert str(error.value).endswith(f"{why}). Check its address, role and password.")


# Several processes


@pytest.mark.slow
def test_a_request_with_a_key_that_two_processes_get_is_carried_out_once(address, monkeypatch):
    both, write = threading.Barrier(2), PostgresStore.write

    def together(store, tenant, work):
        both.wait(10)
        return write(store, tenant, work)

    monkeypatch.setattr(PostgresStore, "write", together)
    with Service(classifier(), address) as one, Service(classifier(), address) as other, ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(made, service, name, idempotency_key="k") for service, name in ((one, "x"), (other, "x"))]
        errors = [request.exception() for request in asked]
        [done] = [request.result() for request, error in zip(asked, errors, strict=True) if error is None]
        [error] = filter(None, errors)
        assert error.code in ("idempotency-in-progress", "name-taken")
        monkeypatch.undo()
        assert [made(service, "x", idempotency_key="k") for service in (one, other)] == [done, done]
        assert [task.id for task in one.tasks()] == [done.id]


@pytest.mark.slow
def test_a_change_by_another_process_is_seen_at_once(address):
    with Service(classifier(), address) as one, Service(classifier(), address) as other:
        task = made(one)
        assert other.predict(task.id, points(9)).version == 1
        example = one.add(task.id, points(5), ["c"]) and one.examples(task.id)[4].id
        shown = other.predict(task.id, points(9))
        assert (shown.version, shown.predictions) == (2, one.predict(task.id, points(9)).predictions)
        one.erase(task.id, [example])
        with pytest.raises(UserError, match="was erased"):
            other.predict(task.id, points(9), version=2)
        assert other.predict(task.id, points(9)).version == 3
