"""Learners in evaluation mode, without a switch that other threads would see."""

from handful.engine.cost import share_query_bytes
from handful.engine.over_tasks import share_refusals
from handful.functional.stateless import AnyModule, shared_copy


def evaluation_copy(learner: AnyModule) -> AnyModule:
    """A copy in evaluation mode, which shares all tensors and what was found out about the learner.

    The learner itself stays in its mode, whoever else uses it meanwhile.
    """
    copy = shared_copy(learner).eval()
    share_refusals(learner, copy)
    share_query_bytes(learner, copy)
    return copy
