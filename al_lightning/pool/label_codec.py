"""Labels as JSON text and back, exactly: tensors, arrays, tuples and nests of them, without pickle.

What JSON can say by itself is written as it always was: numbers, text, lists, and dicts with text as keys. Everything
else is an object with a ``"$type"``, so that a label leaves the store with the types and dtypes it came with. Up to
:data:`READABLE` elements of an array are written as numbers, more of them as compressed bytes: a mask of a million
pixels takes some kilobytes.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import zlib
from collections import namedtuple
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from al_lightning.errors import PoolError

if TYPE_CHECKING:
    from torch import Tensor

READABLE = 64
"""Elements up to which an array is written as numbers that people can read."""
_TYPE = "$type"
_ALLOWED = "numbers, text, tensors, arrays, and lists, tuples and dicts of them"


def encode(label: Any, what: str = "the label") -> str:
    """Write a label as one line of JSON.

    Args:
        label: numbers, text, tensors, arrays, and lists, tuples, named tuples and dicts of them.
        what: names the label in the error, for example ``"the label of id 3"``.

    Raises:
        PoolError: it holds something else, which could not be read back without executing code.
    """
    if type(label) is int:  # most labels are, and reports write all of them
        return repr(label)
    try:
        return json.dumps(_written(label))
    except (TypeError, ValueError, RecursionError) as error:
        shown = shortened(label)
        raise PoolError(
            f"{what} is {shown}, which is not JSON: {error}. Labels are {_ALLOWED}; keep everything else in files and "
            "give their paths."
        ) from error


def decode(text: str) -> Any:
    """Read what :func:`encode` has written; nothing in it is executed or imported.

    Raises:
        ValueError: it is no such text.
    """
    if len(text) == 1 and text in "0123456789":
        return int(text)
    try:
        return _read(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{text[:100]!r} is no label: {type(error).__name__}: {error}") from error


def same(a: Any, b: Any) -> bool:
    """Compare two labels: equal numbers, text and nests of them, or equal in every type, dtype, shape and element."""
    if isinstance(a, int | float | str) and isinstance(b, int | float | str):
        return a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a is b or encode(a) == encode(b)


def shortened(label: Any) -> str:
    """Show a label in an error message, in one line of at most a hundred characters."""
    text = " ".join(repr(label).split())
    return text if len(text) <= 100 else f"{text[:100]}..."


def is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor, without loading PyTorch: where there is one, it is loaded."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_array(value: Any) -> bool:
    """Return whether it is a tensor, or an array or number of NumPy."""
    return isinstance(value, np.ndarray | np.generic) or is_tensor(value)


def is_number(value: Any) -> bool:
    """Return whether it is one number, of Python or in an array."""
    return isinstance(value, int | float) or (is_array(value) and value.shape == () and is_numeric(value))


def is_numeric(value: Any) -> bool:
    """Return whether an array holds numbers."""
    return is_tensor(value) or value.dtype.kind in "biuf"


# ---- out --------------------------------------------------------------------------------------------------------


def _written(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if is_tensor(value):
        return {_TYPE: "tensor", **_array_of_tensor(value.detach().cpu())}
    if isinstance(value, np.ndarray | np.generic):
        return {_TYPE: "array" if isinstance(value, np.ndarray) else "scalar", **_array(np.asarray(value))}
    if isinstance(value, list):
        return [part if type(part) in (int, float) else _written(part) for part in value]
    if isinstance(value, tuple):
        return {_TYPE: "tuple", **_name(value), "items": [_written(part) for part in value]}
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value) and _TYPE not in value:
            return {key: _written(part) for key, part in value.items()}
        return {_TYPE: "dict", "items": [[_written(key), _written(part)] for key, part in value.items()]}
    if isinstance(value, bytes):
        return {_TYPE: "bytes", "base64": base64.b64encode(value).decode()}
    if isinstance(value, int | float | str):  # an enumeration, for example
        return value
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _name(value: tuple[Any, ...]) -> dict[str, Any]:
    fields = getattr(value, "_fields", None)
    return {} if fields is None else {"name": f"{type(value).__module__}:{type(value).__qualname__}", "fields": fields}


def _array_of_tensor(value: Tensor) -> dict[str, Any]:
    import torch

    if value.layout is not torch.strided or value.is_quantized:
        raise TypeError(f"Object of type {value.layout} Tensor is not JSON serializable")
    flat = value.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return _elements(
        str(value.dtype).removeprefix("torch."),
        value.shape,
        None if value.is_complex() or (value.is_floating_point() and value.dtype.itemsize < 2) else flat.tolist,
        lambda: flat.view(torch.uint8).numpy().tobytes(),
    )


def _array(value: np.ndarray) -> dict[str, Any]:
    if value.dtype.hasobject or value.dtype.names:
        raise TypeError(f"Object of type array of {value.dtype} is not JSON serializable")
    as_numbers = value.reshape(-1).tolist if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 else None
    return _elements(value.dtype.str, value.shape, as_numbers, value.tobytes)


def _elements(
    dtype: str, shape: tuple[int, ...], as_numbers: Callable[[], list[Any]] | None, as_bytes: Callable[[], bytes]
) -> dict[str, Any]:
    about = {"dtype": dtype, "shape": list(shape)}
    if as_numbers is not None and math.prod(shape) <= READABLE:
        return {**about, "values": as_numbers()}
    return {**about, "zlib": base64.b64encode(zlib.compress(as_bytes(), 1)).decode()}


# ---- in ---------------------------------------------------------------------------------------------------------


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [part if type(part) in (int, float) else _read(part) for part in value]
    if not isinstance(value, dict):
        return value
    if _TYPE not in value:
        return {key: _read(part) for key, part in value.items()}
    return _READERS[value[_TYPE]](value)


def _tensor_of(value: dict[str, Any]) -> Tensor:
    import torch

    dtype = getattr(torch, value["dtype"])
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{value['dtype']!r} is no dtype of torch")
    if "values" in value:
        return torch.tensor(value["values"], dtype=dtype).reshape(value["shape"])
    raw = _bytes_of(value, dtype.itemsize)
    return (
        torch.frombuffer(raw, dtype=dtype).reshape(value["shape"]) if raw else torch.empty(value["shape"], dtype=dtype)
    )


def _array_of(value: dict[str, Any]) -> np.ndarray:
    dtype = np.dtype(value["dtype"])
    if dtype.hasobject:
        raise ValueError(f"{value['dtype']!r} is no dtype of numbers or text")
    if "values" in value:
        return np.array(value["values"], dtype=dtype).reshape(value["shape"])
    return np.frombuffer(_bytes_of(value, dtype.itemsize), dtype=dtype).reshape(value["shape"])


def _bytes_of(value: dict[str, Any], itemsize: int) -> bytearray:
    size = math.prod(value["shape"]) * itemsize
    # No more is unpacked than the shape says, whatever the text holds.
    raw = bytearray(zlib.decompressobj().decompress(base64.b64decode(value["zlib"]), size)) if size else bytearray()
    if len(raw) != size:
        raise ValueError(f"{len(raw)} bytes where the shape {value['shape']} takes {size}")
    return raw


def _tuple_of(value: dict[str, Any]) -> tuple[Any, ...]:
    items = tuple(_read(part) for part in value["items"])
    if "name" not in value:
        return items
    fields = tuple(value["fields"])
    module, _, name = value["name"].partition(":")
    known: Any = getattr(sys.modules.get(module), name, None)  # looked up where it is loaded already, never imported
    if isinstance(known, type) and issubclass(known, tuple) and getattr(known, "_fields", None) == fields:
        return tuple.__new__(known, items)
    return tuple.__new__(namedtuple(name.rpartition(".")[2], fields), items)


_READERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tensor": _tensor_of,
    "array": _array_of,
    "scalar": lambda value: _array_of(value)[()],
    "tuple": _tuple_of,
    "dict": lambda value: {_read(key): _read(part) for key, part in value["items"]},
    "bytes": lambda value: base64.b64decode(value["base64"]),
}
