"""Follows objects until something is over, and shows how far it is. `deployments` and `certificates` say what.

Level-triggered: every change redraws everything from the current state. The reflectors handle an API server that goes
away and comes back; the user sees their messages.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from directdownload.cli.exit_status import INTERRUPTED, Failure
from directdownload.cli.session import Session
from directdownload.cli.view.screen import Screen
from directdownload.cluster import kinds
from directdownload.cluster.reflector import Reflector, Store
from directdownload.resources.base import Resource

if TYPE_CHECKING:
    from directdownload.cli.view.progress import Reporter

#: Countdowns (to the next attempt) are redrawn this often.
_TICK_SECONDS = 1.0
#: Bursts of changes become one redraw.
_PAUSE_SECONDS = 0.1

State = TypeVar("State")
Kind = TypeVar("Kind", bound=Resource)


@contextlib.contextmanager
def interruptible(text: str) -> Iterator[None]:
    """Ctrl-C ends the command, but not the work that it follows: prints `text`, which says so."""
    try:
        yield
    except asyncio.CancelledError:
        click.echo(f"\nNo longer watching. {text}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def still(store: Store[Kind], first: Kind, what: str) -> Kind:
    """The object `first` as it is now. Raises Failure if it was deleted, also if another one has its name."""
    found = store.get(first.key)
    if found is None or found.uid != first.uid:
        raise Failure(f"{what} {first.name!r} was deleted meanwhile")
    return found


class Follow:
    """The objects that a command follows, each kind in a `store`. They change while `until` runs."""

    def __init__(self, session: Session, timeout_seconds: float) -> None:
        """`timeout_seconds` 0: no limit."""
        self._api = session.api
        self._timeout_seconds = timeout_seconds or None
        self._changed = asyncio.Event()
        self._reflectors: list[Reflector[Any]] = []

    def store(
        self,
        resource: kinds.Resource,
        model: type[Kind],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Store[Kind]:
        store: Store[Kind] = Store()
        self._reflectors.append(
            Reflector(
                self._api,
                resource,
                model.model_validate,
                store,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                on_change=lambda *_: self._changed.set(),
            )
        )
        return store

    async def until(
        self,
        over: Callable[[State], bool],
        look: Callable[[], State],
        screen: Callable[[State], Screen],
        *,
        aside: bool,
    ) -> State:
        """Shows `look()` at each change until it is `over` or the time is up, and returns the last one.

        `aside`: on standard error. Raises errors.ApiError if a kind cannot be followed, and what `look` raises.
        """

        # Imported here, because commands that show no progress need none of rich.
        from directdownload.cli.view import progress

        def draw() -> bool:
            state = look()
            reporter.update(screen(state))
            return over(state)

        with progress.reporter(aside=aside) as reporter:
            async with self._running(reporter) as failed:
                await self._redraw(draw, failed)
            return look()

    @contextlib.asynccontextmanager
    async def _running(self, reporter: "Reporter") -> AsyncIterator["asyncio.Task[None]"]:
        """Runs the reflectors, and the block after their first complete lists. The task ends only if one fails."""
        handler = _Notes(reporter)
        logger = logging.getLogger("directdownload.cluster")
        logger.addHandler(handler)
        tasks = [asyncio.create_task(reflector.run()) for reflector in self._reflectors]
        failed = asyncio.create_task(_first_failure(tasks))
        synced = asyncio.create_task(self._all_synced())
        try:
            await asyncio.wait({synced, failed}, timeout=self._timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            yield failed
        finally:
            for task in (synced, failed, *tasks):
                task.cancel()
            await asyncio.gather(synced, failed, *tasks, return_exceptions=True)
            logger.removeHandler(handler)

    async def _all_synced(self) -> None:
        for reflector in self._reflectors:
            await reflector.synced.wait()

    async def _redraw(self, draw: Callable[[], bool], failed: "asyncio.Task[None]") -> None:
        """Calls `draw` at every change until it returns True or the time is up. Raises the exception of `failed`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                while not failed.done():
                    self._changed.clear()
                    if draw():
                        return
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_TICK_SECONDS):
                            await self._changed.wait()
                    await asyncio.sleep(_PAUSE_SECONDS)
                await failed


async def _first_failure(tasks: Sequence["asyncio.Task[None]"]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        await task


class _Notes(logging.Handler):
    """Prints the reflectors' warnings between the progress."""

    def __init__(self, reporter: "Reporter") -> None:
        super().__init__(logging.WARNING)
        self._reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self._reporter.note(record.getMessage())
