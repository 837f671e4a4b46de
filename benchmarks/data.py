"""The real data sets of the benchmarks: found on disk or downloaded, checked, and read.

A file is looked for in the folder that the environment variable ``AL_LIGHTNING_DATA`` names, in ``shared/data`` beside
the source tree, in the cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``, then ``al_lightning``), where Debian's
package puts it, and at last where its authors publish it. It may be a prepared CSV, or as published. Where
``AL_LIGHTNING_OFFLINE`` is set, nothing is downloaded.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.client import HTTPException
from importlib import import_module
from io import StringIO
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple, TypeVar
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from al_lightning.errors import MissingExtra

VARIABLE = "AL_LIGHTNING_DATA"
OFFLINE = "AL_LIGHTNING_OFFLINE"
SHARED = Path(__file__).parents[2] / "shared" / "data"
DEBIAN = Path("/usr/share/datasets")

T = TypeVar("T")


class DataNotFound(Exception):
    """A file that is in none of the places looked at, and could not be downloaded."""


class WrongFile(ValueError):
    """A file that does not hold what its name promises."""


class Split(NamedTuple):
    """Records and their classes, ``y`` int64 ``(n,)``."""

    x: Any
    y: Tensor


class TrainTest(NamedTuple):
    """A data set whose authors keep a part for the test."""

    train: Split
    test: Split
    classes: int


class File(NamedTuple):
    """A file of a data set, as its authors publish it.

    Args:
        dataset: its name, and that of the folder the file lies in.
        classes: number of classes.
        shape: of the records; a table's class and id are not counted.
        url: where it is published.
        package: Debian's, if there is one; the others have a prepared CSV.
    """

    dataset: str
    classes: int
    shape: tuple[int, ...]
    url: str
    package: str = ""


_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"
_BANKING = "https://raw.githubusercontent.com/PolyAI-LDN/task-specific-datasets/master/banking_data"
_EMOTIONS = "https://raw.githubusercontent.com/google-research/google-research/master/goemotions/data"
_NUMBERS = (0, 2, 4, 10, 11, 12)
"""Adult's columns that are numbers: age, fnlwgt, education_num, capital_gain, capital_loss, hours_per_week."""
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

FILES = {
    "letter": File("letter", 26, (20_000, 16), f"{_UCI}/letter-recognition/letter-recognition.data"),
    "adult-train": File("adult", 2, (32_561, 14), f"{_UCI}/adult/adult.data"),
    "adult-test": File("adult", 2, (16_281, 14), f"{_UCI}/adult/adult.test"),
    "banking77-train": File("banking77", 77, (10_003, 1), f"{_BANKING}/train.csv"),
    "banking77-test": File("banking77", 77, (3_080, 1), f"{_BANKING}/test.csv"),
    "goemotions-train": File("goemotions", 28, (36_308, 1), f"{_EMOTIONS}/train.tsv"),
    "goemotions-test": File("goemotions", 28, (4_590, 1), f"{_EMOTIONS}/test.tsv"),
} | {
    name: File("fashion-mnist", 10, shape, f"{_FASHION}/{name}-idx{len(shape)}-ubyte.gz", "dataset-fashion-mnist")
    for part, size in (("train", 60_000), ("t10k", 10_000))
    for name, shape in ((f"{part}-images", (size, 28, 28)), (f"{part}-labels", (size,)))
}
"""By name; where there is a prepared CSV, it is called ``<name>.csv.gz``."""


def letter() -> Split:
    """Letter Recognition: all 20,000 records, ``x`` float32 ``(20000, 16)`` as published, unscaled; class 0 is A."""
    return _load("letter", _letters)


def adult() -> TrainTest:
    """Adult, or Census Income: ``x`` float32 ``(n, columns)``; class 1 earns more than 50K.

    Numbers come first, unscaled, then a column for every category of either part.
    """
    parts = [_load(f"adult-{part}", _people) for part in ("train", "test")]
    seen = [row for cells, _ in parts for row in cells]
    kinds = {i: sorted({row[i] for row in seen}) for i in range(14) if i not in _NUMBERS}

    def encoded(cells: list[list[str]]) -> Tensor:
        numbers = torch.tensor([[float(row[i]) for i in _NUMBERS] for row in cells])
        codes = [torch.tensor([names.index(row[i]) for row in cells]) for i, names in kinds.items()]
        hot = [one_hot(code, len(names)) for code, names in zip(codes, kinds.values(), strict=True)]
        return _finite(torch.cat([numbers, *hot], dim=1).float())

    train, test = (Split(encoded(cells), y) for cells, y in parts)
    return TrainTest(train, test, FILES["adult-train"].classes)


def fashion_mnist() -> TrainTest:
    """Fashion-MNIST: ``x`` uint8 ``(60000, 1, 28, 28)`` and ``(10000, 1, 28, 28)``."""
    train, test = (
        Split(_load(f"{part}-images", _idx).unsqueeze(1), _load(f"{part}-labels", _labels))
        for part in ("train", "t10k")
    )
    return TrainTest(train, test, FILES["train-labels"].classes)


def banking77_text() -> TrainTest:
    """banking77: ``x`` a list of questions; classes are numbered by their sorted names, capitals first."""
    return _texts("banking77")


def banking77() -> TrainTest:
    """:func:`banking77_text`, embedded."""
    return _embedded(banking77_text())


def goemotions_text() -> TrainTest:
    """GoEmotions, comments with exactly one label: ``x`` a list of comments; classes as the authors number them."""
    return _texts("goemotions", [str(number) for number in range(FILES["goemotions-train"].classes)])


def goemotions() -> TrainTest:
    """:func:`goemotions_text`, embedded."""
    return _embedded(goemotions_text())


def embed(texts: list[str]) -> Tensor:
    """WordLlama's embeddings, float32 ``(n, 256)``: computed once, then read from the cache folder.

    Raises:
        MissingExtra: WordLlama is not installed.
    """

    def read(path: Path) -> Tensor:
        found = np.load(path)
        _expect("embeddings", (*found.shape, str(found.dtype)), (len(texts), 256, "float32"))
        return _finite(torch.from_numpy(found))

    wordllama = _wordllama()
    digest = sha256(json.dumps(texts).encode()).hexdigest()[:32]
    path = _cache() / f"wordllama-{wordllama.__version__}-{digest}.npy"
    if not path.is_file():
        weights = Path(wordllama.__file__).parent  # the wheel carries them
        with _aside(path) as aside:
            np.save(aside, wordllama.WordLlama.load(cache_dir=weights, disable_download=True).embed(texts))
            read(aside)
    return _checked(read, path, path, "Remove it, and it is computed again.")


def _wordllama() -> Any:
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)  # WordLlama's import configures a root logger that has no handler, and all INFO is printed
    try:
        return import_module("wordllama")
    except ImportError as error:
        raise MissingExtra("wordllama", "bench", "the embedding of texts") from error
    finally:
        root.removeHandler(silent)


def _embedded(data: TrainTest) -> TrainTest:
    return data._replace(train=Split(embed(data.train.x), data.train.y), test=Split(embed(data.test.x), data.test.y))


def _texts(dataset: str, names: Sequence[str] = ()) -> TrainTest:
    """Both parts; where no names of classes are given, the training part's are the test's as well."""
    train, y_train, names = _load(f"{dataset}-train", partial(_table, names=names))
    test, y_test, _ = _load(f"{dataset}-test", partial(_table, names=names))
    return TrainTest(Split([x for (x,) in train], y_train), Split([x for (x,) in test], y_test), len(names))


def _load(name: str, read: Callable[[Path, File], T]) -> T:
    """What ``read`` makes of the first file found, else of the download, which is kept if it can be read."""
    file, places = FILES[name], list(_places(name))
    target = _cache() / file.dataset / Path(file.url).name
    package = f"apt-get install {file.package} (Debian), or " if file.package else ""
    remedy = (
        f"To get it: {package}download {file.url} to the folder {target.parent}, "
        f"or to {file.dataset} in a folder that you name in the environment variable {VARIABLE}."
    )
    for path in places:
        if path.is_file():
            return _checked(lambda found: read(found, file), path, path, f"Remove or replace it. {remedy}")
    try:
        if os.environ.get(OFFLINE):
            raise ConnectionError(f"downloads are switched off by {OFFLINE}={os.environ[OFFLINE]}")
        with _aside(target) as aside:
            with urlopen(file.url, timeout=30) as answer, aside.open("wb") as copy:
                shutil.copyfileobj(answer, copy)
            return _checked(lambda found: read(found, file), aside, file.url, remedy)
    except (OSError, HTTPException) as error:
        looked = "".join(f"\n  {path}" for path in places)
        raise DataNotFound(
            f"{name} of the data set {file.dataset} is at none of these places:{looked}\n"
            f"and the download of {file.url} failed: {error!r}.\n{remedy}"
        ) from error


def _places(name: str) -> Iterator[Path]:
    """Where a file may lie, in the order of the search."""
    file, published = FILES[name], Path(FILES[name].url).name
    named = [Path(os.environ[VARIABLE]).expanduser()] if os.environ.get(VARIABLE) else []
    for root in (*named, SHARED, _cache()):
        if file.package:  # its files without a folder, or the package unpacked
            yield root / published
            yield root / DEBIAN.relative_to("/") / file.dataset / published
        else:
            yield root / f"{name}.csv.gz"
        yield root / file.dataset / published
    if file.package:
        yield DEBIAN / file.dataset / published


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "al_lightning"


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where to write a file that becomes ``path`` when all went well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{os.getpid()}-{path.name}")  # its end says the format
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _checked(read: Callable[[Path], T], path: Path, shown: Path | str, remedy: str) -> T:
    try:
        return read(path)
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error, csv.Error) as error:
        raise WrongFile(f"{shown} is not what it should be: {error}. {remedy}") from error


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"{what}: found {found}, expected {expected}")


def _finite(x: Tensor) -> Tensor:
    _expect("values that are not finite", int((~x.isfinite()).sum()), 0)
    return x


def _letters(path: Path, file: File) -> Split:
    cells, y, _ = _table(path, file, ascii_uppercase)
    return Split(_finite(torch.tensor([[float(cell) for cell in row] for row in cells])), y)


def _people(path: Path, file: File) -> tuple[list[list[str]], Tensor]:
    """The cells of every record, and 1 where the last says more than 50K; with a header, or as published."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = [row for row in csv.reader(StringIO(content.decode()), skipinitialspace=True) if len(row) > 1]
    rows = rows[path.suffix == ".gz" :]
    _expect("columns", sorted(set(map(len, rows))), [file.shape[1] + 1])
    _expect("records", len(rows), file.shape[0])
    labels = [row[-1].rstrip(".") for row in rows]  # the published test part ends its classes with a dot
    _expect("names of classes that differ", sorted({"<=50K", ">50K"} ^ set(labels)), [])
    return [row[:-1] for row in rows], torch.tensor([int(label == ">50K") for label in labels])


def _table(path: Path, file: File, names: Sequence[str]) -> tuple[list[list[str]], Tensor, Sequence[str]]:
    """The cells of every record, its class's number, and the names of the classes, sorted where none are given."""
    tabs = path.suffix == ".tsv"
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = StringIO(content.decode(), newline="")
    table = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(lines)
    rows = [row for row in table if row]
    _expect("columns", sorted(set(map(len, rows))), [file.shape[1] + 1 + tabs])
    if tabs:  # text, labels, id
        rows = [row[:2] for row in rows if "," not in row[1]]
    elif path.suffix == ".data":  # class first
        rows = [[*row[1:], row[0]] for row in rows]
    else:
        rows = rows[1:]
    _expect("records", len(rows), file.shape[0])
    labels = [row[-1] for row in rows]
    names = names or sorted(set(labels))
    _expect("classes", len(set(labels)), file.classes)
    _expect("names of classes that differ", sorted(set(names) ^ set(labels)), [])
    number = {name: i for i, name in enumerate(names)}
    return [row[:-1] for row in rows], torch.tensor([number[label] for label in labels]), names


def _labels(path: Path, file: File) -> Tensor:
    y = _idx(path, file).long()
    _expect("classes", y.unique().tolist(), list(range(file.classes)))
    return y


def _idx(path: Path, file: File) -> Tensor:
    """Bytes in the idx format: 0x0800 plus the number of dimensions, the sizes, the values."""
    content, head = gzip.decompress(path.read_bytes()), 4 + 4 * len(file.shape)
    _expect("idx header", np.frombuffer(content[:head], ">u4").tolist(), [0x800 + len(file.shape), *file.shape])
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=head).reshape(file.shape).copy())
