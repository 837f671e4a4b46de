"""Ctrl-C and SIGTERM end a run cleanly, with the exit code people expect and a word on how it goes on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from lightning.pytorch.utilities import rank_zero_only

from al_lightning.errors import Interrupted

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(128 + number)


@contextmanager
def stoppable(where: object) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end what runs inside by :class:`~al_lightning.errors.Interrupted`.

    Nothing is written on the way out: the folder holds what a kill leaves, and a run goes on from that. A handler of
    the user's own for SIGTERM stays in force. Outside of the main thread, where Python delivers no signals, nothing
    is done.

    Args:
        where: what is told to go on from there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _NAMES}
    if before[signal.SIGTERM] == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    except Interrupted as stop:
        _say(stop, where)
        raise
    except KeyboardInterrupt:
        by_hand = Interrupted(128 + signal.SIGINT)
        _say(by_hand, where)
        raise by_hand from None
    except SystemExit as error:
        cause = error.__context__  # inside a fit, Lightning makes a SystemExit(1) of it
        if not isinstance(cause, KeyboardInterrupt):
            raise
        meant = cause if isinstance(cause, Interrupted) else Interrupted(128 + signal.SIGINT)
        _say(meant, where)
        raise meant from None
    finally:
        for number, handler in before.items():  # Lightning leaves Ctrl-C ignored
            if handler is not None:
                signal.signal(number, handler)


def _say(stop: Interrupted, where: object) -> None:
    if stop.said or getattr(rank_zero_only, "rank", 0) != 0:
        return
    stop.said = True
    name = _NAMES[signal.Signals(int(stop.code) - 128)]  # type: ignore[arg-type]
    print(f"\nInterrupted by {name}. The same command goes on from here: {where}", file=sys.stderr, flush=True)
