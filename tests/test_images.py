"""Images from local files of every format and from OpenML: the same arrays, and no trust in headers."""

import gzip
import struct
import urllib.error
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sweeping import cells_of

from runner import cli, data, store
from runner.data.files import limits
from runner.data.images import KNOWN, read_images
from runner.errors import UserError

RNG = np.random.default_rng(0)
SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
TRAIN, TEST = 60, 30
SIZES = {"train_size": 40, "test_size": 30, "probe_size": 20}
PIXELS = {name: RNG.integers(0, 256, (TRAIN + TEST, *shape), np.uint8) for name, shape in SHAPES.items()}
LABELS = RNG.integers(0, 10, TRAIN + TEST).astype(np.uint8)
PARTS = {"train": slice(0, TRAIN), "test": slice(TRAIN, None)}


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def cifar(images, labels):
    return np.concatenate([labels[:, None], images.reshape(len(images), -1)], 1).tobytes()


def write_idx(folder, images, suffix="", pack=bytes):
    for part, name in (("train", "train"), ("test", "t10k")):
        for kind, array in (("images-idx3", images[:, 0]), ("labels-idx1", LABELS)):
            (folder / f"{name}-{kind}-ubyte{suffix}").write_bytes(pack(idx(array[PARTS[part]])))
    return folder


def write_idx_gz(folder, images):
    return write_idx(folder, images, ".gz", gzip.compress)


def write_both(folder, images):
    """A compressed copy beside each file, as torchvision leaves them."""
    return write_idx_gz(write_idx(folder, images), images)


def write_cifar(folder, images):
    for name, rows in (
        ("data_batch_1", slice(0, 20)),
        ("data_batch_2", slice(20, TRAIN)),
        ("test_batch", slice(TRAIN, None)),
    ):
        (folder / f"{name}.bin").write_bytes(cifar(images[rows], LABELS[rows]))
    return folder


def write_npz(folder, images, order="C"):
    """As Keras does: no channel axis for grey images, the last one for coloured ones."""
    pixels = images[:, 0] if images.shape[1] == 1 else np.moveaxis(images, 1, -1)
    arrays = {f"x_{part}": np.asarray(pixels[rows], order=order) for part, rows in PARTS.items()}
    arrays |= {f"y_{part}": LABELS[rows, None].astype(np.int64) for part, rows in PARTS.items()}
    np.savez_compressed(folder / "images.npz", **arrays)
    return folder / "images.npz"


def write_fortran(folder, images):
    """Of the other byte order, too."""
    return write_npz(folder, images.astype(">f4"), order="F")


def write_table(folder, images):
    """A column per pixel and labels as text, as OpenML does."""
    for part, rows in PARTS.items():
        flat = images[rows].reshape(len(images[rows]), -1)
        columns = {f"pixel{i}": column for i, column in enumerate(flat.T)}
        pq.write_table(pa.table(columns | {"class": LABELS[rows].astype(str)}), folder / f"{part}.parquet")
    return folder


def write_lists(folder, images):
    for part, rows in PARTS.items():
        flat = images[rows].reshape(len(images[rows]), -1)
        table = pa.table({"label": LABELS[rows], "image": pa.array(list(flat))})
        pq.write_table(table, folder / f"{part}-00000.parquet")
    return folder


WRITERS = {
    "mnist": [write_idx, write_idx_gz, write_both, write_npz, write_fortran, write_table, write_lists],
    "cifar10": [write_cifar, write_npz, write_lists],
}


@pytest.mark.parametrize(
    ("name", "write"), [(name, write) for name, writers in WRITERS.items() for write in writers]
)
def test_every_format_gives_the_same_arrays(tmp_path, name, write):
    path = str(write(tmp_path, PIXELS[name]))
    d = data.images(name, path, standardize=False, **SIZES)
    assert d.input_shape == SHAPES[name]
    images = torch.from_numpy(PIXELS[name]).double()
    seen = []
    for split in (d.train, d.probe, d.test):
        # Which image a sample is follows from its pixels; its label and its shape must be that image's.
        index = (split.inputs.flatten(1)[:, None] == images.flatten(1)[None]).all(2).nonzero()[:, 1]
        assert torch.equal(split.inputs, images[index])
        assert torch.equal(split.targets.argmax(1), torch.from_numpy(LABELS)[index].long())
        seen.append(set(index.tolist()))
    assert seen[0] | seen[1] == set(range(TRAIN))
    assert seen[2] == set(range(TRAIN, TRAIN + TEST))
    scaled = (d.test.inputs - d.train.inputs.mean()) / d.train.inputs.std()
    assert torch.equal(data.images(name, path, **SIZES).test.inputs, scaled)


def test_one_file_is_one_pool(tmp_path):
    write_idx(tmp_path, PIXELS["mnist"])
    d = data.images(
        "mnist", str(tmp_path / "train-images-idx3-ubyte"), train_size=30, test_size=20, probe_size=10
    )
    assert (len(d.train), len(d.test), len(d.probe)) == (30, 20, 10)
    with pytest.raises(UserError, match=r"must be at most 60, .*got 61; make one smaller"):
        data.images(
            "mnist", str(tmp_path / "train-images-idx3-ubyte"), train_size=31, test_size=20, probe_size=10
        )


def test_second_labellings():
    assert {name: sorted(known.second) for name, known in KNOWN.items()} == {
        "mnist": [0, 2, 4, 6, 8],
        "fashion_mnist": [0, 2, 3, 4, 6],  # t-shirt, pullover, dress, coat, shirt
        "cifar10": [2, 3, 4, 5, 6, 7],  # bird, cat, deer, dog, frog, horse
    }


# -- OpenML ------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    read_images.cache_clear()
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    read_images.cache_clear()


def test_openml_is_asked_once_and_cut_into_train_and_test(home, monkeypatch):
    asked = []

    def fetch_openml(name, **keys):
        warnings.warn("A network error occurred. Retrying...", stacklevel=1)
        asked.append((name, keys["version"], keys["as_frame"], keys["data_home"]))
        # Rows of integers with labels as text; the first two pixels tell which row it is.
        rows = np.zeros((700, 784), np.int64)
        rows[:, 0], rows[:, 1] = np.divmod(np.arange(700), 256)
        return rows, (np.arange(700) % 10).astype(str).astype(object)

    monkeypatch.setitem(KNOWN, "mnist", KNOWN["mnist"]._replace(train=600, total=700))
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    d = data.images("mnist", standardize=False, train_size=500, test_size=90, probe_size=100)
    data.images("mnist", standardize=False, train_size=30, test_size=30, seed=5)
    assert asked == [("mnist_784", 1, False, str(home))]
    assert [path.name for path in (home / "runner").iterdir()] == ["mnist_784.npz"]
    numbers = [
        (split.inputs.flatten(1)[:, :2] @ torch.tensor([256.0, 1.0]).double()).long()
        for split in (d.train, d.probe, d.test)
    ]
    assert max(numbers[0].max(), numbers[1].max()) < 600 <= numbers[2].min()
    assert torch.equal(d.train.targets.argmax(1), numbers[0] % 10)
    # The archive in the cache is a local file like any other.
    again = data.images(
        "mnist",
        str(home / "runner/mnist_784.npz"),
        standardize=False,
        train_size=500,
        test_size=90,
        probe_size=100,
    )
    assert torch.equal(again.train.inputs, d.train.inputs)


@pytest.mark.parametrize(
    "error",
    [
        urllib.error.URLError("[Errno -2] Name or service\nnot known"),
        TimeoutError(),
        ValueError("md5 checksum"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_a_network_one_line_says_what_to_do(home, monkeypatch, tmp_path, capsys, error):
    def fetch_openml(*_, **__):
        raise error

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sweep", "data=fashion_mnist", "width=8", "store=out"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("openml.org", "Fashion-MNIST is not in the cache", str(home), "data.path=FOLDER"):
        assert part in said
    assert not (tmp_path / "out").exists()
    assert not list(home.rglob("*.npz"))


# -- mistakes ----------------------------------------------------------------------------------------


def zipped(folder, header, content=b""):
    """An archive whose arrays are this header and content."""
    with zipfile.ZipFile(folder / "bad.npz", "w") as archive:
        text = header.encode().ljust(117) + b"\n"
        for name in ("x", "y"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text + content)
    return folder / "bad.npz"


def idx_with(name, change):
    """MNIST's files, one of them changed."""

    def write(folder):
        path = write_idx(folder, PIXELS["mnist"]) / name
        path.write_bytes(change(path.read_bytes()))
        return folder

    return write


def saved(**arrays):
    def write(folder):
        np.savez(folder / "bad.npz", **arrays)
        return folder / "bad.npz"

    return write


def table(**columns):
    def write(folder):
        pq.write_table(pa.table(columns), folder / "bad.parquet")
        return folder / "bad.parquet"

    return write


def written(name, content):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def unlabelled(folder):
    (write_idx(folder, PIXELS["mnist"]) / "t10k-labels-idx1-ubyte").unlink()
    return folder


X, Y = PIXELS["mnist"], LABELS.astype(np.int64)
HOLED = np.where(np.arange(X.size).reshape(X.shape) == 9, np.nan, X)
IMAGES, NAMES = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
HUGE = struct.pack(">3I", 2**31, 28, 28)

MISTAKES = {
    "no such path": (lambda folder: folder / "nowhere", "name a file or folder that exists, got nothing in"),
    "empty folder": (lambda folder: folder, r"hold files named .*data_batch_\*.bin.* got an empty folder in"),
    "IDX truncated": (idx_with(IMAGES, lambda b: b[:-5]), "47040 bytes after its header, .* got 47035 in"),
    "IDX too long": (idx_with(IMAGES, lambda b: b + b"x"), "hold 47040 bytes .* got more than 47040 in"),
    "IDX header cut": (idx_with(IMAGES, lambda b: b[:9]), "hold the lengths of 3 axes, got 5 bytes in"),
    "IDX empty": (idx_with(IMAGES, lambda b: b""), "magic number 00000803.*got nothing in"),
    "IDX magic": (idx_with(IMAGES, lambda b: b"\x00\x00\x0d\x03" + b[4:]), "00000803.*got 00000d03 in"),
    "IDX labels for images": (idx_with(NAMES, lambda b: idx(X[:5, 0])), "00000801.*got 00000803 in"),
    "IDX claims terabytes": (idx_with(IMAGES, lambda b: b[:4] + HUGE), "1073741824 bytes, got 1683627180032"),
    "gzip truncated": (idx_with(IMAGES, lambda b: gzip.compress(b)[:-900]), "can be read, got EOFError"),
    "gzip checksum": (idx_with(IMAGES, lambda b: gzip.compress(b)[:-8] + bytes(8)), "got BadGzipFile"),
    "no labels": (unlabelled, "have its labels beside it as t10k-labels-idx1-ubyte"),
    "other counts": (idx_with(NAMES, lambda b: idx(LABELS[:59])), "got 59 labels and 60 images"),
    "other size": (idx_with(IMAGES, lambda b: idx(X[:60, 0, :27])), r"\(1, 28, 28\) pixels, got \(27, 28\)"),
    "eleven classes": (idx_with(NAMES, lambda b: idx(LABELS[:60] + 1)), "labels from 0 to 9, .* got 10"),
    "CIFAR size": (written("b.bin", bytes(3073 * 2 - 1)), "records of 3073 bytes.*got 6145 bytes"),
    "CIFAR empty": (written("b.bin", b""), "records of 3073 bytes.*got 0 bytes"),
    "CIFAR for MNIST": (written("b.bin", bytes(3073)), r"images of \(1, 28, 28\) pixels, got \(3, 32, 32\)"),
    "npz NaN": (saved(x=HOLED, y=Y), "finite pixels, got 1 NaN or inf in .*bad.npz"),
    "npz NaN label": (saved(x=X, y=np.where(Y == 3, np.nan, Y)), "finite labels"),
    "npz label": (saved(x=X, y=Y - 1), "labels from 0 to 9, .* got -1"),
    "npz half label": (saved(x=X, y=Y / 2), r"labels from 0 to 9, .* got \d.5"),
    "npz word": (saved(x=X, y=np.full(90, "cat")), "one number per label, got .*cat"),
    "npz one-hot": (saved(x=X, y=np.eye(10)[Y]), "one number per label"),
    "npz names": (saved(a=X, b=Y), "hold x_train and y_train, or x and y, got a, b in"),
    "npz objects": (saved(x=X.astype(object), y=Y), "hold numbers in x, got Python objects"),
    "npz words": (saved(x=X.astype(str), y=Y), "images of .*<U"),
    "npz truncated": (written("b.npz", b"PK\x03\x04 and no more"), "an archive of numpy.savez, got File"),
    "npz empty": (written("b.npz", b""), "name an archive of numpy.savez"),
    "npz header": (lambda folder: zipped(folder, "{"), "name an archive of numpy.savez"),
    "npz claims terabytes": (
        lambda f: zipped(f, str({"descr": "|u1", "fortran_order": False, "shape": (2**40, 784)})),
        "hold arrays of at most 1073741824 bytes",
    ),
    "npz claims too much": (
        lambda f: zipped(f, str({"descr": "|u1", "fortran_order": False, "shape": (2**20, 784)}), bytes(99)),
        "hold 822083584 bytes after its header, as that says, got 99",
    ),
    "parquet columns": (table(a=[1, 2], b=[3, 4]), "hold a column label or class or target.* got a, b in"),
    "parquet words": (table(label=[1, 2], image=["a", "b"]), "hold numbers or lists .*, got string"),
    "parquet files": (table(label=[1], image=[{"bytes": b"x", "path": "y"}]), "struct<.*decode the images"),
    "parquet ragged": (table(label=[1, 2], image=[[1], [2, 3]]), "lists of one length, got lengths 1, 2"),
    "parquet null": (table(label=[1], image=[[None, *range(783)]]), "finite pixels, got 1 NaN"),
    "parquet no label": (table(label=[1, None], image=[[0] * 784] * 2), "finite labels, got 1 NaN"),
    "parquet broken": (written("b.parquet", b"PAR1nothing"), "name a Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_files_are_named(tmp_path, mistake):
    write, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message) as caught:
        data.images("mnist", str(write(tmp_path)), **SIZES)
    assert str(caught.value).startswith("data.path must ")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_small_file_that_decompresses_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MOST_BYTES", 2**22)
    bomb = bytes((0, 0, 8, 3)) + struct.pack(">3I", 5000, 28, 28) + bytes(2**26)
    write_idx(tmp_path, PIXELS["mnist"])
    (tmp_path / IMAGES).write_bytes(gzip.compress(bomb))
    with pytest.raises(UserError, match="got more than 3920000"):
        data.images("mnist", str(tmp_path), **SIZES)


def test_unknown_names():
    with pytest.raises(
        UserError, match=r"data.dataset must be one of cifar10, fashion_mnist, mnist, got 'mnst'"
    ):
        data.images("mnst")
    with pytest.raises(UserError, match=r"data.path must be null or the name of a file or folder, got ''"):
        data.images("mnist", "")


# -- from the command line ---------------------------------------------------------------------------


def test_a_sweep_over_local_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw"
    folder.mkdir()
    write_idx_gz(folder, PIXELS["mnist"])
    line = [
        "data=mnist",
        "data.path=raw",
        "data.binary=parity",
        "data.label_noise=0.5",
        "store=out",
        "width=8",
    ]
    line += [f"data.{key}={value}" for key, value in SIZES.items()]
    assert cli.main(["sweep", *line, "steps=2", "lr=0.1", "workers=1"]) == 0
    cells = store.load("out").cells
    assert set(cells["status"]) == {"ok"}
    assert cells["train_error"].notna().all()
    Path("labels").write_bytes(b"")
    capsys.readouterr()
    assert cli.main(["sweep", *line, "data.path=labels", "store=other"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: data.path must hold IDX bytes with 3 axes")
    assert said.count("\n") == 1
    assert not (tmp_path / "other").exists()


def test_keys_that_the_yaml_of_digits_leaves_out(monkeypatch):
    cells = cells_of(monkeypatch, "+data.classes=[3,8],[4,9]", "+data.label_noise=0.1", "width=8")
    assert [cell.settings.count('"classes":[') for cell in cells] == [1, 1]
    assert "classes" not in cells_of(monkeypatch, "width=8")[0].settings
