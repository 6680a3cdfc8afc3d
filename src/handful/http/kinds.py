"""The kinds of problems by slug, a closed list. Their pages and docs/reference/problems.md are made from it."""

from typing import NamedTuple


class Kind(NamedTuple):
    """One kind of problem.

    status: of the response.
    title: what it is, the same for all problems of the kind.
    cause: what leads to it.
    remedy: what to do.
    """

    status: int
    title: str
    cause: str
    remedy: str


KINDS = {
    "invalid-request": Kind(
        422,
        "The request is not valid.",
        "A field is missing, unknown, of another type or out of its range, or the content is broken JSON (status 400). "
        'Types are strict: `"1"` and `true` are not numbers.',
        "Correct the place that the `pointer` names. Sending the same request again gives the same problem.",
    ),
    "ragged-input": Kind(
        422,
        "Inputs have different shapes or kinds.",
        "One request has inputs of different shapes or kinds: a vector of 3 numbers beside one of 4, a text beside a "
        "row, or a list whose parts have different lengths.",
        "Give all inputs of a request the shape that the model needs; `GET /v1/models` describes it.",
    ),
    "non-finite": Kind(
        422,
        "A number is not finite.",
        "A number is NaN or infinite, or too large for 32 bits, such as 1e39.",
        "Remove the example, or give a number. In a row, a missing cell is `null`.",
    ),
    "wrong-shape": Kind(
        422,
        "An input does not have the shape or columns of the model.",
        "The inputs agree with one another, but not with the model: another number of features, an unknown column, a "
        "text for a model of images.",
        "Compare with `GET /v1/models`, which describes each model's inputs, and with the task's own model.",
    ),
    "unknown-label": Kind(
        422,
        "A label is not a class of the model.",
        "The model has fixed classes, the same in every task, and the label is none of them.",
        "Use one of the `labels` that `GET /v1/models` lists.",
    ),
    "contradictory-labels": Kind(
        422,
        "One input has two labels.",
        "The same input comes twice with different labels: in one request, or among the new examples and those of the "
        "task.",
        "Decide for one label. To change the label of an example that the task has, send a correction.",
    ),
    "too-few-examples": Kind(
        422,
        "The examples are too few.",
        "A classification task needs examples of at least two classes, and each task needs some examples, even after "
        "removing or erasing.",
        "Send more examples, or erase the whole task.",
    ),
    "unsupported-media": Kind(
        415,
        "This kind of content is not supported.",
        "The route does not support the `Content-Type`, or the format of a file is not supported.",
        "Send JSON, or `multipart/form-data` if the route supports it. Images: PNG, JPEG, WebP, BMP or GIF. Files with "
        "examples: .zip, .csv, .parquet or .npz.",
    ),
    "payload-too-large": Kind(
        413,
        "The content is too large.",
        "The content, one input, or the head of the request is larger than the limits. If one input is too large, the "
        "status is 422 and the `pointer` names it.",
        "`GET /v1/limits` lists the limits. Send predictions in parts, and large images as `multipart/form-data`.",
    ),
    "archive-unsafe": Kind(
        422,
        "The archive has unsafe entries.",
        "The .zip file has a link, an absolute path, a path with `..`, an encrypted or nested entry, or two entries of "
        "one name, or it would unpack to more than the limits.",
        "Create the archive again from plain files: a folder for each class.",
    ),
    "unauthenticated": Kind(
        401,
        "The request has no valid key.",
        "The `Authorization` header is missing, or its key is unknown, expired or revoked. A key in the address is "
        "refused, since addresses are logged.",
        "Send `Authorization: Bearer KEY`. A key that was in an address is no longer secret: rotate it.",
    ),
    "forbidden": Kind(
        403,
        "The key does not allow this.",
        "The key has a smaller scope than the route needs (`predict` < `write` < `admin`), or the route is for admin "
        "keys of the tenant `default`.",
        "Use a key with the scope that the problem names.",
    ),
    "not-found": Kind(
        404,
        "The requested thing does not exist.",
        "The path, task, version, example or key does not exist, was erased, or belongs to another tenant; these cases "
        "are not distinguished.",
        "Check the id, and whether the key is of the right tenant.",
    ),
    "name-taken": Kind(
        409,
        "Another task has this name.",
        "A task of the tenant that is not deleted has this name, or a tenant of this name exists.",
        "Choose another name, or rename or delete the other task.",
    ),
    "version-conflict": Kind(
        412,
        "The task is at another version.",
        "The version in `If-Match` is not the one that the task has now: it was changed meanwhile. With status 409, an "
        "imported task was adapted from another model than the server has.",
        "Read the task again, decide again, and send its present version.",
    ),
    "precondition-required": Kind(
        428,
        "The request needs If-Match.",
        "The route changes a task that others may change too, and the request does not name the version that it read.",
        "Send the task's `ETag` as `If-Match`, or `If-Match: *` for any version.",
    ),
    "idempotency-in-progress": Kind(
        409,
        "The same request is being carried out.",
        "A request with the same `Idempotency-Key` has not ended yet.",
        "Wait a moment and send it again: it then gets the response of the first one.",
    ),
    "idempotency-mismatch": Kind(
        422,
        "The idempotency key belongs to another request.",
        "In the last 24 hours your tenant used the same `Idempotency-Key` with other content, on another route or for "
        "another tenant.",
        "Use a new key for each new request, and the same one only to send a request again.",
    ),
    "quota-exceeded": Kind(
        429,
        "The task or the tenant has reached its quota.",
        "The change would exceed the tenant's quota of tasks or bytes, or, with status 422, a task's limit of classes, "
        "examples or bytes.",
        "`GET /v1/usage` shows both. Erase tasks or examples that are not needed: deleted tasks count until they are "
        "erased. Waiting does not help.",
    ),
    "rate-limited": Kind(
        429,
        "Too many requests.",
        "Requests arrive faster than the server, or a proxy before it, allows for one client.",
        "Wait for the time in `Retry-After`.",
    ),
    "overloaded": Kind(
        503,
        "The server is overloaded.",
        "The queue is too long to finish the request in time, too many connections are open, or memory "
        "ran out. Nothing of the request was done.",
        "Send it again after `Retry-After`. If this lasts, send less at a time or run more servers.",
    ),
    "deadline-exceeded": Kind(
        503,
        "The time for the request is over.",
        "The request waited longer than its `X-Request-Timeout-Ms` (default: 2 seconds) before its work began, and "
        "nothing was done. With status 408, its content did not arrive within 30 seconds.",
        "Send it again, with a longer time if the server is busy.",
    ),
    "adapt-diverged": Kind(
        422,
        "Adapting or predicting did not give finite numbers.",
        "From these examples or inputs the model computes NaN or infinity: usually for inputs far from its training "
        "data.",
        "Look for cells in another unit, or huge numbers. Nothing was changed.",
    ),
    "task-quarantined": Kind(
        503,
        "The task is damaged.",
        "The stored state of a version does not match its digest, and it cannot be adapted again: its examples are not "
        "stored, or are damaged too. It is never served.",
        "Roll back to another version, or restore a backup. For operators: `handful store verify` lists all damage.",
    ),
    "storage-full": Kind(
        507,
        "The store cannot be written.",
        "The disk is full or read-only, or the database refuses writes. Nothing of the request was stored; predictions "
        "continue to work.",
        "For operators: free space; no restart is needed. Then send the request again.",
    ),
    "outcome-unknown": Kind(
        503,
        "It is not known whether the request was carried out.",
        "The server stopped, or its connection to the database was lost, during a change. With status 500, "
        "the server failed, and its log has the reason under the request id.",
        "Send the request again with the same `Idempotency-Key`: it is carried out once. Without one, check first.",
    ),
    "not-ready": Kind(
        503,
        "The server cannot do this now.",
        "The server is starting or stopping, the database cannot be reached, or the server lacks a model or encoder of "
        "the task.",
        "Send it again after `Retry-After`. If this lasts, the `detail` names what is missing.",
    ),
}
