import csv
import gzip
import io
import os
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from string import ascii_uppercase
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch

from al_lightning.errors import MissingExtra
from benchmarks import data
from benchmarks.data import DataNotFound, Split, WrongFile

Rows = Sequence[Sequence[object]]

LETTERS = [[*range(i, i + 16), letter] for i, letter in enumerate(reversed(ascii_uppercase))]
QUESTIONS = [[f'Is this "{i}",\nor not?', f"intent_{i}"] for i in range(76)] + [["Where is it?", "Refund"]]
COMMENTS = [[f'""So,"" said {i}\u2028', i] for i in range(28)]
FASHION = ("train-images", "train-labels", "t10k-images", "t10k-labels")


class Folders(NamedTuple):
    """Every place that data is looked for in, none of them yet there."""

    named: Path
    shared: Path
    cache: Path
    debian: Path
    published: Path


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Places of this test's own, and data sets of one or two records a class, published on this disk."""
    found = Folders(*(tmp_path / name for name in ("named", "shared", "xdg/al_lightning", "debian", "published")))
    monkeypatch.setenv("AL_LIGHTNING_DATA", str(found.named))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("AL_LIGHTNING_OFFLINE", raising=False)  # what is published here lies on this disk
    monkeypatch.setattr(data, "SHARED", found.shared)
    monkeypatch.setattr(data, "DEBIAN", found.debian)
    for name, file in data.FILES.items():
        url = (found.published / file.dataset / Path(file.url).name).as_uri()
        monkeypatch.setitem(data.FILES, name, file._replace(url=url, shape=(file.classes, *file.shape[1:])))
    return found


def table(rows: Rows, **dialect: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, **dialect).writerows(rows)
    return text.getvalue().encode()


def prepared(rows: Rows) -> bytes:
    return gzip.compress(table([["text"] * (len(rows[0]) - 1) + ["label"], *rows]))


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes())


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_fashion(folder: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    for name in FASHION:
        array = pixels if name.endswith("images") else np.arange(10, dtype=np.uint8)
        put(folder / f"{name}-idx{array.ndim}-ubyte.gz", idx(array))
    return pixels


def everything_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_letters_are_numbered_from_a_and_not_scaled(folders: Folders) -> None:
    put(folders.named / "letter.csv.gz", prepared(LETTERS))
    x, y = data.letter()
    assert y.tolist() == list(range(25, -1, -1))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.tolist() == [row[:-1] for row in LETTERS]


def test_the_named_folder_comes_first_and_the_download_last(folders: Folders) -> None:
    def rows(mark: int) -> list[list[object]]:
        return [[mark, *row[1:]] for row in LETTERS]

    places = [
        put(folders.named / "letter.csv.gz", prepared(rows(0))),
        put(folders.shared / "letter.csv.gz", prepared(rows(1))),
        put(folders.cache / "letter.csv.gz", prepared(rows(2))),
    ]
    put(folders.published / "letter/letter-recognition.data", table([[row[-1], *row[:-1]] for row in rows(3)]))
    found = []
    for path in [*places, None]:
        found.append(int(data.letter().x[0, 0]))
        if path is not None:
            path.unlink()
    assert found == [0, 1, 2, 3]


def test_without_variables_the_cache_is_in_the_home_folder(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AL_LIGHTNING_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", lambda: folders.named)
    put(folders.named / ".cache/al_lightning/letter.csv.gz", prepared(LETTERS))
    assert len(data.letter().y) == 26


@pytest.mark.parametrize("where", ["named", "named/fashion-mnist", "named/unpacked", "cache/fashion-mnist", "debian"])
def test_fashion_mnist_is_found_as_debian_lays_it_out(folders: Folders, where: str) -> None:
    first, _, rest = where.partition("/")
    folder = getattr(folders, first) / rest
    if rest == "unpacked":  # the package's own tree, below the folder that is named
        folder = folders.named / folders.debian.relative_to("/") / "fashion-mnist"
    pixels = put_fashion(folder / "fashion-mnist" if first == "debian" else folder)
    train, test, classes = data.fashion_mnist()
    assert (train.x.dtype, train.x.shape, train.y.dtype, classes) == (torch.uint8, (10, 1, 28, 28), torch.int64, 10)
    assert np.array_equal(test.x[:, 0].numpy(), pixels)
    assert test.y.tolist() == list(range(10))


def test_what_is_downloaded_is_read_as_published_and_kept(folders: Folders) -> None:
    put(folders.published / "letter/letter-recognition.data", table([[row[-1], *row[:-1]] for row in LETTERS]))
    for part in ("train", "test"):
        put(folders.published / f"banking77/{part}.csv", table([["text", "category"], *QUESTIONS]))
        several = [["two at once", "3,10", "id"], *([text, label, "id"] for text, label in COMMENTS)]
        lines = ["\t".join(map(str, row)) + "\n" for row in several]
        put(folders.published / f"goemotions/{part}.tsv", "".join(lines).encode())
    put_fashion(folders.published / "fashion-mnist")
    published = everything_under(folders.published)
    for _ in range(2):  # downloaded, then from the cache
        assert data.letter().y[0] == 25
        assert data.banking77_text().train.x == [text for text, _ in QUESTIONS]
        assert data.goemotions_text().test.x == [text for text, _ in COMMENTS]
        assert data.fashion_mnist().train.x.shape == (10, 1, 28, 28)
        assert everything_under(folders.cache) == published
        for name in everything_under(folders.published):
            (folders.published / name).unlink()


PEOPLE = [
    [39, "State-gov", 77516, "Bachelors", 13, "Single", "Clerk", "None", "?", "Male", 2174, 0, 40, "US", "<=50K"],
    [50, "Private", 83311, "Masters", 14, "Single", "Clerk", "None", "?", "Male", 0, 0, 13, "US", ">50K"],
]


def test_people_are_encoded_alike_in_both_parts_and_both_formats(folders: Folders) -> None:
    strangers = [[*row[:1], "Farm", *row[2:]] for row in PEOPLE]
    for part, rows in (("train", PEOPLE), ("test", strangers)):
        put(folders.named / f"adult-{part}.csv.gz", prepared(rows))
        end, head = (".", "|1x3 Cross validator\n") if part == "test" else ("", "")
        lines = [", ".join(map(str, row)) + end + "\n" for row in rows]
        put(
            folders.cache / f"adult/adult.{'data' if part == 'train' else 'test'}",
            (head + "".join(lines) + "\n").encode(),
        )
    found = data.adult()
    assert found.train.y.tolist() == found.test.y.tolist() == [0, 1]
    assert found.train.x[0, :6].tolist() == [39, 77516, 13, 2174, 0, 40]
    assert found.train.x[:, 6:9].tolist() == [[0, 0, 1], [0, 1, 0]]  # Farm, Private, State-gov
    assert found.test.x[:, 6:9].tolist() == [[1, 0, 0]] * 2
    for part in ("train", "test"):
        (folders.named / f"adult-{part}.csv.gz").unlink()
    again = data.adult()
    assert torch.equal(found.train.x, again.train.x)
    assert again.test.y.tolist() == [0, 1]


def test_classes_of_texts(folders: Folders) -> None:
    for part in ("train", "test"):
        put(folders.shared / f"banking77-{part}.csv.gz", prepared(QUESTIONS))
        put(folders.shared / f"goemotions-{part}.csv.gz", prepared(COMMENTS))
    banking, emotions = data.banking77_text(), data.goemotions_text()
    assert (banking.classes, emotions.classes) == (77, 28)
    by_name = sorted(label for _, label in QUESTIONS)
    assert [by_name[y] for y in banking.test.y] == [label for _, label in QUESTIONS]
    assert emotions.train.y.tolist() == list(range(28))  # by number: 10 comes after 9


def test_parts_that_name_their_classes_differently_are_refused(folders: Folders) -> None:
    put(folders.shared / "banking77-train.csv.gz", prepared(QUESTIONS))
    put(folders.shared / "banking77-test.csv.gz", prepared([[text, label.lower()] for text, label in QUESTIONS]))
    with pytest.raises(WrongFile, match=r"banking77-test.csv.gz .*found \['Refund', 'refund'\], expected \[\]"):
        data.banking77_text()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (prepared(LETTERS[:-1]), "records: found 25, expected 26"),
        (prepared([row[1:] for row in LETTERS]), r"columns: found \[16\], expected \[17\]"),
        (prepared([*LETTERS[:-1], ["nan", *LETTERS[-1][1:]]]), "not finite: found 1, expected 0"),
        (prepared([*LETTERS[:-1], [*LETTERS[-1][:-1], "B"]]), "classes: found 25, expected 26"),
        (prepared([*LETTERS[:-1], [*LETTERS[-1][:-1], "a"]]), r"found \['A', 'a'\], expected \[\]"),
        (prepared([*LETTERS[:-1], ["x", *LETTERS[-1][1:]]]), "could not convert string to float: 'x'"),
        (prepared(LETTERS)[:-20], "Compressed file ended"),
        (b"<html>Sign in to go on.</html>", "Not a gzipped file"),
        (b"", "columns|gzip"),
    ],
)
def test_a_wrong_file_is_named_with_what_it_should_be(folders: Folders, content: bytes, complaint: str) -> None:
    path = put(folders.shared / "letter.csv.gz", content)
    put(folders.cache / "letter.csv.gz", prepared(LETTERS))  # a good one further on hides nothing
    with pytest.raises(WrongFile, match=complaint) as caught:
        data.letter()
    for part in (str(path), "Remove or replace it", data.FILES["letter"].url, "AL_LIGHTNING_DATA"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        (
            "train-images-idx3",
            np.zeros((10, 28, 27), np.uint8),
            r"found \[2051, 10, 28, 27\], expected \[2051, 10, 28, 28",
        ),
        ("train-images-idx3", np.zeros(10, np.uint8), r"found \[2049, 10"),
        ("t10k-labels-idx1", np.zeros(10, np.uint8), r"classes: found \[0\], expected \[0, 1, 2"),
    ],
)
def test_wrong_images(folders: Folders, name: str, array: np.ndarray, complaint: str) -> None:
    put_fashion(folders.named)
    put(folders.named / f"{name}-ubyte.gz", idx(array))
    with pytest.raises(WrongFile, match=f"{name}.*{complaint}"):
        data.fashion_mnist()


def test_a_wrong_download_is_not_kept(folders: Folders) -> None:
    put(folders.published / "letter/letter-recognition.data", b"<html>Sign in to go on.</html>")
    with pytest.raises(WrongFile, match=data.FILES["letter"].url):
        data.letter()
    assert everything_under(folders.cache) == set()


def test_nothing_found_says_where_and_what_to_do(folders: Folders) -> None:
    with pytest.raises(DataNotFound) as caught:
        data.fashion_mnist()
    message, name = str(caught.value), "train-images-idx3-ubyte.gz"
    for root in (folders.named, folders.shared, folders.cache):
        for folder in (root, root / "fashion-mnist", root / folders.debian.relative_to("/") / "fashion-mnist"):
            assert f"\n  {folder / name}\n" in message
    assert f"\n  {folders.debian / 'fashion-mnist' / name}\n" in message
    assert f"download of {data.FILES['train-images'].url} failed" in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert f"to the folder {folders.cache / 'fashion-mnist'}," in message
    assert "environment variable AL_LIGHTNING_DATA" in message
    with pytest.raises(DataNotFound, match=r"/named/letter.csv.gz\n(.*\n)*.*letter-recognition.data") as caught:
        data.letter()
    assert "apt-get" not in str(caught.value)


def test_downloads_can_be_switched_off(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folders.published / "letter/letter-recognition.data", table([[row[-1], *row[:-1]] for row in LETTERS]))
    monkeypatch.setenv("AL_LIGHTNING_OFFLINE", "1")
    with pytest.raises(DataNotFound, match="switched off by AL_LIGHTNING_OFFLINE=1"):
        data.letter()
    monkeypatch.delenv("AL_LIGHTNING_OFFLINE")
    assert len(data.letter().y) == 26


def test_a_cache_that_cannot_be_written_is_no_riddle(folders: Folders) -> None:
    put(folders.cache, b"a file in the folder's place")
    put(folders.published / "letter/letter-recognition.data", table([[row[-1], *row[:-1]] for row in LETTERS]))
    with pytest.raises(DataNotFound, match=r"FileExistsError|NotADirectoryError"):
        data.letter()


@pytest.fixture
def llama(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """In WordLlama's place: a text's embedding is its length; it counts the texts it embedded."""

    def embed(texts: list[str]) -> np.ndarray:
        fake.embedded.append(len(texts))
        return np.repeat(np.array([[len(text)] for text in texts], np.float32) * fake.factor, 256, axis=1)

    def load(cache_dir: Path, disable_download: bool) -> SimpleNamespace:
        assert (cache_dir, disable_download) == (Path("/somewhere"), True)
        return SimpleNamespace(embed=embed)

    fake = SimpleNamespace(__version__="1", __file__="/somewhere/__init__.py", embedded=[], factor=1)
    fake.WordLlama = SimpleNamespace(load=load)
    monkeypatch.setitem(sys.modules, "wordllama", fake)
    return fake


def test_embeddings_are_computed_once(folders: Folders, llama: SimpleNamespace) -> None:
    first, again = data.embed(["a", "bb"]), data.embed(["a", "bb"])
    assert (first.shape, first.dtype, first[:, 0].tolist()) == ((2, 256), torch.float32, [1, 2])
    assert torch.equal(first, again)
    assert llama.embedded == [2]
    data.embed(["abb"])  # not the same texts, though the same characters
    llama.__version__ = "2"
    data.embed(["a", "bb"])
    assert llama.embedded == [2, 1, 2]
    assert len(everything_under(folders.cache)) == 3


def test_embeddings_that_are_not_finite_are_not_kept(folders: Folders, llama: SimpleNamespace) -> None:
    llama.factor = np.nan
    with pytest.raises(ValueError, match="not finite: found 256"):
        data.embed(["a"])
    assert everything_under(folders.cache) == set()


def test_a_cut_off_embedding_is_named(folders: Folders, llama: SimpleNamespace) -> None:
    data.embed(["a"])
    (name,) = everything_under(folders.cache)
    os.truncate(folders.cache / name, 500)
    with pytest.raises(WrongFile, match=f"{name}.*Remove it, and it is computed again"):
        data.embed(["a"])


def test_embedded_data_sets_keep_their_classes(folders: Folders, llama: SimpleNamespace) -> None:
    for part in ("train", "test"):
        put(folders.shared / f"banking77-{part}.csv.gz", prepared(QUESTIONS))
        put(folders.shared / f"goemotions-{part}.csv.gz", prepared(COMMENTS))
    for texts, embedded in (
        (data.banking77_text(), data.banking77()),
        (data.goemotions_text(), data.goemotions()),
    ):
        assert embedded.train.x[:, 0].tolist() == [len(text) for text in texts.train.x]
        assert embedded.test.y.tolist() == texts.test.y.tolist()
        assert embedded.classes == texts.classes


def test_without_wordllama_the_error_says_what_to_install(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(MissingExtra, match=r"pip install 'al_lightning\[bench\]'"):
        data.embed(["a"])


def test_wordllama_itself(folders: Folders) -> None:
    pytest.importorskip("wordllama", reason="wordllama is not installed: pip install 'al_lightning[bench]'")
    card, same, weather = data.embed(["Where is my card?", "My card has not arrived.", "It rains in Spain"])
    assert torch.cosine_similarity(card, same, dim=0) > torch.cosine_similarity(card, weather, dim=0)
    assert card.shape == (256,)


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.x), len(split.y), len(split.y.unique())


@pytest.mark.parametrize(
    ("read", "names", "expected"),
    [
        (lambda: [data.letter()], ["letter"], [(20_000, 20_000, 26)]),
        (
            lambda: data.banking77_text()[:2],
            ["banking77-train", "banking77-test"],
            [(10_003, 10_003, 77), (3_080, 3_080, 77)],
        ),
        (
            lambda: data.goemotions_text()[:2],
            ["goemotions-train", "goemotions-test"],
            [(36_308, 36_308, 28), (4_590, 4_590, 28)],
        ),
        (lambda: data.adult()[:2], ["adult-train", "adult-test"], [(32_561, 32_561, 2), (16_281, 16_281, 2)]),
        (lambda: data.fashion_mnist()[:2], FASHION, [(60_000, 60_000, 10), (10_000, 10_000, 10)]),
    ],
    ids=["letter", "banking77", "goemotions", "adult", "fashion-mnist"],
)
def test_the_real_data(read: Callable[[], Sequence[Split]], names: Sequence[str], expected: object) -> None:
    for name in names:
        if not any(path.is_file() for path in data._places(name)):
            pytest.skip(f"{name} is not on this disk, and tests download nothing")
    assert [sizes(split) for split in read()] == expected
