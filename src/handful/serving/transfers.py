"""Tasks that leave as the library's files, and come in from them."""

from handful.limits import SERVICE
from handful.models.adapted_task import AdaptedTask
from handful.notes import collecting
from handful.serving.changes import Changes
from handful.serving.names import checked_name
from handful.serving.records import TaskRecord
from handful.serving.states import States, check_there, digest_of
from handful.serving.store import Store
from handful.serving.supports import adapted, imported
from handful.serving.versions import Terms


class Transfers:
    """Exports and imports tasks; see the methods of `Service`."""

    def __init__(self, store: Store, states: States, changes: Changes) -> None:
        self._store, self._states, self._changes = store, states, changes

    def export(self, task: str, version: int | None, tenant: str) -> bytes:
        """A version, the head by default, as the file of an adapted task, with its examples where they are kept."""
        with self._store.reading(tenant) as rows:
            head = rows.task(task).head
            wanted = head if version is None else rows.version(task, version)
            check_there(wanted)
            examples = rows.examples(task, wanted.number)
        if not examples:
            return self._states.load((tenant, task, wanted.number)).to_bytes()
        with collecting():
            return adapted(self._states.model(wanted.model_digest), examples, keep_support=True).to_bytes()

    def take_in(self, name: str, content: bytes, terms: Terms) -> TaskRecord:
        """Make a task of the file of an adapted task, adapted anew where it holds examples."""
        name, task = checked_name(name), AdaptedTask.from_bytes(content, limits=SERVICE, source="The file")
        meta = self._states.model(task.model_digest)
        of_model = next(
            (given for given, one in self._states.models.items() if one.digest == meta.digest), meta.digest[:8]
        )
        asked = "import", name, digest_of(content)
        with collecting() as notes, self._changes.requests.once(terms.tenant, terms.key, *asked) as request:
            if request.earlier is not None:
                return request.earlier
            self._changes.quotas.check_task(task)
            examples = imported(meta, task, self._store.ids)
            if examples is None:
                meta.check(task)
            made = task if examples is None else adapted(meta, examples)
            return self._changes.insert(name, of_model, examples, made, "imported", notes, terms, request)
