"""A connection to Ray: found or started, with errors that say what is wrong; and how objects get to its workers."""

from __future__ import annotations

import copy
import io
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from al_lightning.errors import ClusterUnavailable, MissingExtra, UnsupportedModel
from al_lightning.pool import fingerprint
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.wrapped import HOOKS, defines
from al_lightning.scoring.ray.worker import Reading

_PATIENCE = 5.0
"""Seconds in which a cluster's address must answer; Ray itself would try for minutes."""


def imported() -> Any:
    """Ray.

    Raises:
        MissingExtra: it is not installed.
    """
    # Before Ray is imported: nothing is sent to anybody, and a worker without a GPU leaves the node's variables alone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "ray", "RayScorer") from None
    return ray


def connect(address: str | None, runtime_env: Mapping[str, Any] | None) -> bool:
    """Connect this process to a cluster, unless it is connected; whether it was not.

    Args:
        address: ``"host:port"``, ``"auto"`` for the one on this machine, None to start one here.
        runtime_env: see Ray.

    Raises:
        ClusterUnavailable: none is there, or it runs other versions.
    """
    ray = imported()
    if address is not None:
        _check_reachable(address)
    if ray.is_initialized():
        return False
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    with _own_sigterm():
        try:
            ray.init(
                address=address or "local",
                runtime_env=runtime_env,
                log_to_driver=False,
                logging_level="WARNING",
                **here,
            )
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterUnavailable(
                f"no cluster can be used at {address or 'this machine'}: {error} Start one with `ray start --head`, "
                "give the address it prints, and use the same releases of Ray and Python everywhere."
            ) from error
    return True


def _check_reachable(address: str) -> None:
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise ClusterUnavailable(
            f"RayScorer(address={address!r}): allowed: 'host:port', as `ray start --head` prints it, 'auto' for the "
            "cluster this machine belongs to, or None to start one here. For Ray Client (ray://) run the driver on the "
            "cluster instead."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ClusterUnavailable(
            f"no cluster answers at {address}: {error}. Start one there with `ray start --head --port={port}`, or pass "
            "RayScorer(address=None) to start one on this machine."
        ) from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    # Ray puts a handler of its own in the place of whatever ends this run cleanly.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def pack(value: Any) -> bytes:
    """Pickle, classes of the main script included; tensors on a device come back on the CPU."""
    packed = io.BytesIO()
    torch.save(value, packed, pickle_module=imported().cloudpickle)
    return packed.getvalue()


def packed(what: Any, inside: Any, name: str) -> bytes:
    """Pickle what goes to the workers.

    Args:
        what: all of it.
        inside: the user's part of it, whose attributes are looked at where it fails.
        name: of that part, for the message.

    Raises:
        UnsupportedModel: it cannot be pickled; the attribute at fault is named.
    """
    try:
        return pack(what)
    except Exception as error:
        culprit = next((f".{key} ({type(value).__name__})" for key, value in _parts(inside) if not _packs(value)), "")
        raise UnsupportedModel(
            f"{name} {type(inside).__name__}{culprit} cannot be sent to workers: {type(error).__name__}: {error}. "
            "Leave out of its state what cannot be pickled (__getstate__), or make it when it is first used. A dataset "
            "can be opened on the workers instead: RayScorer(dataset=...)."
        ) from error


def _parts(inside: Any) -> list[tuple[str, Any]]:
    parts = dict(getattr(inside, "__dict__", {}))
    return [*parts.pop("_modules", {}).items(), *parts.items()] if isinstance(inside, nn.Module) else [*parts.items()]


def _packs(value: Any) -> bool:
    try:
        pack(value)
    except Exception:
        return False
    return True


def reading_of(pool: PoolDataModule, opens: Callable[[], Any] | None) -> Reading:
    """Return what of a pool goes to the workers.

    Args:
        pool: the pool.
        opens: opens its records on a worker; None: they are sent.
    """
    inner = copy.copy(pool.inner)
    if inner is not None:
        inner.trainer = None  # it belongs to this process
    return Reading(
        task=pool.task,
        items=pool.items,
        place=pool.place,
        known=pool.known_label,
        size=pool.size,
        batch=pool.records_at_once,
        options=pool.loader,
        hooks={name: getattr(inner, name) for name in HOOKS if defines(inner, name)},
        data=pool.eval_data if opens is None else None,
        opens=opens,
        fingerprint=None
        if opens is None
        else fingerprint.take(pool.size, None, fingerprint.reader(pool.eval_data, pool.items)),
    )
