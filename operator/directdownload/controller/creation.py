"""Creates the placements of a plan, a portion in each look at their Template.

Called by `reconcile/templates`. Promises: no look creates more than `PORTION`, whatever fails; placements that the API
server refuses stop no others; an API server that throttles gets nothing more until the pause that it asked for is over,
and one that is away gets only a few requests.
"""

import dataclasses
import logging
from collections.abc import Sequence

from directdownload.cluster import errors, kinds
from directdownload.controller.context import Context, dump, gather
from directdownload.controller.queue import Key
from directdownload.planning.selection import Target
from directdownload.resources import base, naming
from directdownload.resources.template import Template

logger = logging.getLogger(__name__)

#: This many placements are created one after the other, so that the free slots go to the first of them, those with the
#: most space. The others have to wait in line, where they are sorted.
_IN_ORDER = 32
#: The next look follows at once: thousands of placements would keep a worker for a minute, in which nobody looks at the
#: Template.
PORTION = 200
#: So many answers in one look are lost before the API server counts as away. A single one says nothing: its placement
#: may even have been created.
_UNANSWERED = 3


def in_order(context: Context, template: Template, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Those last whose creation failed in the last look: if they were first, no others would ever follow."""
    failed = context.world.refused.get(template.uid, frozenset())
    return tuple(sorted(targets, key=lambda target: target.name in failed))


@dataclasses.dataclass(slots=True)
class _Look:
    """The outcome so far; `ended`: nothing more is sent, for this reason."""

    failed: dict[str, errors.ApiError] = dataclasses.field(default_factory=dict)
    created: int = 0
    unanswered: int = 0
    ended: errors.ApiError | None = None

    def note(self, target: Target, error: errors.ApiError) -> None:
        self.failed[target.name] = error
        self.unanswered += isinstance(error, errors.Unreachable)
        if isinstance(error, errors.TooManyRequests) or self.unanswered >= _UNANSWERED:
            self.ended = error


async def create(context: Context, template: Template, targets: Sequence[Target]) -> None:
    """Creates the first `PORTION` of them; one that is refused, or whose answer is lost, stops no others.

    Raises the error if none could be created, or if the API server throttles: then the next look comes after a pause.
    """
    portion, tried, look = targets[:PORTION], 0, _Look()
    # In order each failing one could wait for the whole time of a request.
    while tried < min(_IN_ORDER, len(portion)) and not look.failed:
        await _try(context, portion[tried], look)
        tried += 1
    await gather(_try(context, target, look) for target in portion[tried:])
    before = context.world.refused.get(template.uid, frozenset())
    context.world.refused[template.uid] = before.intersection(t.name for t in targets[PORTION:]).union(look.failed)
    if isinstance(look.ended, errors.TooManyRequests) or (look.failed and not look.created):
        raise look.ended or next(iter(look.failed.values()))
    if look.failed:
        error = next(iter(look.failed.values()))
        logger.warning("Template %s: %d placements could not be created: %s", template.key, len(look.failed), error)


async def _try(context: Context, target: Target, look: _Look) -> None:
    if look.ended is not None:
        return
    try:
        await _create(context, target)
        look.created += 1
    except errors.ApiError as error:
        look.note(target, error)


async def _create(context: Context, target: Target) -> None:
    template = target.template
    body = {
        "apiVersion": kinds.TEMPLATE_PLACEMENTS.api_version,
        "kind": kinds.TEMPLATE_PLACEMENTS.kind,
        "metadata": {
            "name": target.name,
            "finalizers": [base.FINALIZER],
            "labels": {
                f"{base.GROUP}/zone": naming.label_value(target.zone),
                f"{base.GROUP}/host": naming.label_value(target.host),
                f"{base.GROUP}/pool": naming.label_value(target.pool),
                f"{base.GROUP}/template": naming.label_value(template.name),
                f"{base.GROUP}/template-namespace": template.metadata.namespace,
                base.NAMESPACE_LABEL: target.namespace,
            },
        },
        "spec": dump(target.spec()),
    }
    try:
        answer = await context.api.create(kinds.TEMPLATE_PLACEMENTS, body)
    except errors.AlreadyExists:
        answer = await context.api.get(kinds.TEMPLATE_PLACEMENTS, target.name)
    context.observe(kinds.TEMPLATE_PLACEMENTS, answer)
    context.queue.add(Key("placement", target.name))
