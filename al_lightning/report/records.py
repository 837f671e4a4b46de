"""Records as people see them: pictures and text, where the data at hand allows it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from al_lightning.errors import BadLabelFile
from al_lightning.oracles.label_file import texts
from al_lightning.oracles.oracle import SKIP
from al_lightning.pool.label_codec import is_tensor
from al_lightning.report.runs import ReportedRun

if TYPE_CHECKING:
    from al_lightning.pool.datamodule import PoolDataModule

Show = Callable[[Any], Any]
"""What the model sees of a record -> a picture (array, tensor or PIL image), a text, or None."""

_PER_ROUND, _ROUNDS, _LONGEST, _WIDEST = 8, 12, 300, 160


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One record of a query.

    Args:
        id: the record.
        key: the user's key of it, or its id.
        label: as people write it; None while it has none.
        picture: as the text of a ``data:`` address, or None.
        text: or None.
    """

    id: int
    key: str
    label: str | None
    picture: str | None = None
    text: str | None = None


def records(
    run: ReportedRun, pool: PoolDataModule | None = None, show: Show | None = None
) -> tuple[list[tuple[int, list[Shown]]], str]:
    """The first records of each query, best first, and a sentence on where they are from, or why there are none.

    A run folder holds no records. They come from the user's data, or from what people were shown in the run's own
    files of queries.

    Args:
        run: the run.
        pool: the data it was made with.
        show: how a record is shown; default: images and text as they are.

    Returns:
        ``(round, records)`` of up to twelve rounds, spread evenly.
    """
    queries = run.saved.queries
    some = np.unique(np.linspace(1, len(queries), min(len(queries), _ROUNDS)).round().astype(int)).tolist()
    if pool is not None:
        look, source = _from_pool(pool, show or (lambda item: item)), "The records are read from the data given."
    else:
        look, source = _from_files(run, some), "The texts are what people were shown, from the files of the queries."
    found = [(round, [_shown(run, id, look(id)) for id in queries[round - 1][:_PER_ROUND]]) for round in some]
    if any(record.picture or record.text for _, shown in found for record in shown):
        return found, source
    if pool is not None:
        return [], (
            "The records are neither images, (H, W) or (C, H, W) or (H, W, C), nor text: give --shape ROWSxCOLUMNS "
            "for pixels in a line, or show= in Python."
        )
    return [], (
        "A run folder holds no records. To see them, give the data: al-lightning report RUN --records data=NAME "
        "seed=SEED, or pool= in Python."
    )


def _shown(run: ReportedRun, id: int, seen: Any) -> Shown:
    value = run.saved.answers.get(id)
    label = None
    if id in run.saved.answers:
        label = run.language.write(value) if run.language else "refused" if value is SKIP else "labelled"
    text = _text(seen)
    picture = _picture(seen) if text is None and seen is not None else None
    return Shown(id=id, key=run.saved.keys.get(id, str(id)), label=label, picture=picture, text=text)


def _from_pool(pool: PoolDataModule, show: Show) -> Callable[[int], Any]:
    return lambda id: show(pool.read_input(id))


def _from_files(run: ReportedRun, rounds: list[int]) -> Callable[[int], Any]:
    found: dict[int, dict[str, str]] = {}
    home = run.folder.resolve()
    for round in rounds:
        path = home / "queries" / f"round-{round:03d}.csv"
        if path.is_file() and path.resolve().is_relative_to(home):  # no link leads a report to other files
            try:
                found |= texts(path)
            except BadLabelFile:
                continue  # `al-lightning status` says what is wrong with it
    return found.get


def _text(seen: Any) -> str | None:
    """The text of a record: a string, or the strings among its parts."""
    if isinstance(seen, Mapping):
        named = {name: value for name, value in seen.items() if isinstance(value, str) and value}
        parts = list(named.values()) if len(named) == 1 else [f"{name}: {value}" for name, value in named.items()]
    elif isinstance(seen, tuple | list):
        parts = [value for value in seen if isinstance(value, str)]
    else:
        parts = [seen] if isinstance(seen, str) else []
    text = "\n".join(parts)
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…") or None


def _picture(seen: Any) -> str | None:
    """The image among a record's parts as a PNG, scaled to its own range and to a width of 160 at most."""
    import torch
    from matplotlib.image import imsave

    parts = seen.values() if isinstance(seen, Mapping) else seen if isinstance(seen, tuple | list) else [seen]
    pixels = next((p for p in map(_pixels, parts) if p is not None), None)
    if pixels is None:
        return None
    low, high = float(pixels.min()), float(pixels.max())
    scaled = torch.from_numpy((pixels - low) / ((high - low) or 1.0))
    factor = max(scaled.shape[1:]) / _WIDEST
    if factor > 1:
        size = [max(1, round(n / factor)) for n in scaled.shape[1:]]
        scaled = torch.nn.functional.interpolate(scaled[None], size=size, mode="area")[0]
    image = scaled.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    imsave(file, image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _pixels(part: Any) -> np.ndarray | None:
    """An image as ``(C, H, W)``, float32; None for what is none."""
    array = part.detach().cpu().numpy() if is_tensor(part) else np.asarray(part)
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3) or min(array.shape) == 0:
        return None
    if array.ndim == 2:
        array = array[None]
    elif array.shape[-1] in (1, 3, 4) and array.shape[0] not in (1, 3, 4):
        array = np.moveaxis(array, -1, 0)
    if array.shape[0] not in (1, 3, 4) or not np.isfinite(array).all():
        return None
    return array[:3].astype(np.float32)
