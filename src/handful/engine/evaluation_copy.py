"""Learners in evaluation mode, without changing a mode that other threads share."""

from handful.engine.cost import share_query_bytes
from handful.engine.over_tasks import share_refusals
from handful.functional.stateless import AnyModule, shared_copy


def evaluation_copy(learner: AnyModule) -> AnyModule:
    """A copy in evaluation mode, which shares all tensors and measurements of the learner. The learner itself keeps its
    mode, so that others can use it meanwhile.
    """
    copy = shared_copy(learner).eval()
    share_refusals(learner, copy)
    share_query_bytes(learner, copy)
    return copy
