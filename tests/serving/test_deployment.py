"""The files of docs/how-to/deploy do what the page on serving says of them."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from tests.http.processes import KEY, serving

from handful.client.client import Client
from handful.errors import HandfulError
from handful.serving.opening import open_store, upgrade
from listening import tls_files
from serving.worlds import classifier, points

DEPLOY = Path(__file__).parents[2] / "docs" / "how-to" / "deploy"


@pytest.mark.slow
def test_the_roles_and_the_database_of_the_docs_hold_a_store(cluster):
    text = (DEPLOY / "postgres.sql").read_text(encoding="utf-8")
    text = text.replace("handful", "documented")  # the cluster has roles of these names
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    with cluster.superuser() as connection:
        for statement in filter(str.strip, "\n".join(lines).split(";")):
            connection.execute(statement)
    upgrade(cluster.address("documented", "documented_owner"), role="documented_service")
    with open_store(cluster.address("documented", "documented_service")) as store, store.reading("default") as rows:
        assert rows.tasks(1, "") == []


@contextlib.contextmanager
def nginx(folder, server):
    """nginx with the docs' configuration in front of a server's port; yields its own port and certificate."""
    command = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if command is None:
        pytest.skip("no nginx")
    certificate, key = tls_files(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
    for documented, here in (
        ("127.0.0.1:8000", f"127.0.0.1:{server}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/ssl/tasks.example.org.pem", str(certificate)),
        ("/etc/ssl/private/tasks.example.org.key", str(key)),
    ):
        assert documented in site
        site = site.replace(documented, here)
    kept = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{one}_temp_path {folder}/{one};\n" for one in kept)
    (folder / "nginx.conf").write_text(
        f"daemon off;\nuser root;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{places}{site}}}\n"
    )
    process = subprocess.Popen([command, "-c", folder / "nginx.conf", "-e", folder / "nginx.log"])
    try:
        until = time.monotonic() + 20
        while not (folder / "pid").exists():
            assert process.poll() is None, (folder / "nginx.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.01)
        yield port, certificate
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_client_behind_the_proxy_of_the_docs_gets_all_that_the_server_says(tmp_path):
    """Among it the server's own limit of uploads, whole; and where the server is gone, that it is the server."""
    with (
        serving(classifier(), tmp_path / "store") as process,
        nginx(tmp_path, process.port) as (port, certificate),
        Client(f"https://127.0.0.1:{port}", KEY, tls=ssl.create_default_context(cafile=certificate)) as client,
    ):
        task = client.create("shelf", points(0, 1), ["apple", "pear"])
        assert client.predict(task.id, points(7)).version == 1
        assert client._http.get("/metrics").status_code == 403
        with pytest.raises(HandfulError, match=r"has more than 33,554,432 bytes\. Send less at once") as large:
            client.import_task("large", b"x" * 40_000_000)
        assert (large.value.status, large.value.slug) == (413, "payload-too-large")
        process.end()
        assert process.ended() == 0
        with pytest.raises(HandfulError, match="A proxy before the server got no response"):
            client.predict(task.id, points(7))
        with pytest.raises(HandfulError, match="may have been carried out"):
            client.delete(task.id)
