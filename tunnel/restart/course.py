"""The steps of a restart in place, in the old version: trial, standstill, capture, execution."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from tunnel.restart import execution, state
from tunnel.restart.arrival import to_take
from tunnel.restart.part import Part
from tunnel.restart.state import Kept, Tree
from tunnel.restart.trial import RestartRefused, Trial

_LAST_TURNS = 0.01  # seconds for the loop to handle signals that arrived before they were blocked


async def become_new_version(
    parts: Mapping[str, Part],
    *,
    version: str,
    process: Callable[[], Tree],
    is_wanted: Callable[[], bool],
    last_words: Callable[[], None],
) -> None:
    """Execute the new version with the state of all ``parts``. Does not return, but may raise.

    ``process`` returns the remaining state of the process, which is stored as a part with that name. ``is_wanted`` is
    called right before the state is captured, ``last_words`` right before the execution, to flush the log.

    Raises RestartRefused if the restart is not possible; then nothing has changed.
    """
    with ExitStack() as cleaning:
        file = _create_state()
        cleaning.callback(os.close, file)
        try:
            trial = Trial(file, os.environ)
        except OSError as exc:
            raise RestartRefused(f"the new version cannot be started: {exc.strerror or exc}") from exc
        cleaning.callback(trial.end)
        await trial.wait_until_ready()
        for part in parts.values():
            cleaning.callback(part.go_on)
        await asyncio.gather(*(part.hold() for part in parts.values()))
        cleaning.enter_context(execution.signals_blocked())
        await asyncio.sleep(_LAST_TURNS)
        if not is_wanted():
            raise RestartRefused("the service is stopping")
        # From here on the loop stands still, so that the state does not change after the trial.
        kept = Kept()
        trees = {name: part.capture(kept) for name, part in parts.items()}
        try:
            state.write(file, version, {**trees, "process": process()}, kept)
        except OSError as exc:
            raise RestartRefused(f"the state cannot be written: {exc.strerror or exc}") from exc
        trial.restore()
        trial.end()
        for part in parts.values():
            part.let_go()
        last_words()
        try:
            execution.execute({**os.environ, **to_take(file)}, [file, *kept.descriptors])
        except OSError as exc:
            raise RestartRefused(f"{execution.command()[0]} cannot be executed: {exc.strerror or exc}") from exc


def _create_state() -> int:
    try:
        return state.create()
    except AttributeError as exc:
        raise RestartRefused("this system has no memory files (memfd_create)") from exc
    except OSError as exc:
        raise RestartRefused(f"no memory file can be created: {exc.strerror}") from exc
