# ruff: noqa: F811
"""`data`: CIFAR from small files of its own format, and clear errors for broken ones."""

import errno
import hashlib
import io
import os
import pickle
import tarfile
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from images import root, same, splits  # noqa: F401
from torchvision import datasets

from lookbehind.train.data import DataError, cifar10, cifar100, load, named


class Cifar:
    """A CIFAR of 60 images: an archive in a folder, and what is fetched from there."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        self.requests = []
        rng = np.random.default_rng(0)
        files = [name for name, _ in kind.train_list + kind.test_list]
        key = "fine_labels" if kind is datasets.CIFAR100 else "labels"
        count = 100 if kind is datasets.CIFAR100 else 10
        self.batches = {
            name: {
                "data": rng.integers(0, 256, (60 // len(files), 3072), dtype=np.uint8),
                key: rng.integers(0, count, 60 // len(files)).tolist(),
            }
            for name in files
        }
        self.classes = [f"class {i}" for i in range(count)]
        self.content = {name: pickle.dumps(batch) for name, batch in self.batches.items()}
        self.content[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: self.classes})
        with tarfile.open(self.archive, "w:gz") as tar:
            for name, content in self.content.items():
                member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    @property
    def archive(self):
        return self.folder / self.kind.filename

    def md5(self, name):
        return hashlib.md5(self.content[name], usedforsecurity=False).hexdigest()

    def announce(self, patch):
        """Torchvision expects these files instead of the real ones."""
        for listed in ("train_list", "test_list"):
            names = [name for name, _ in getattr(self.kind, listed)]
            patch.setattr(self.kind, listed, [[name, self.md5(name)] for name in names])
        meta = self.kind.meta
        patch.setattr(self.kind, "meta", meta | {"md5": self.md5(meta["filename"])})
        archive = self.archive.read_bytes()
        patch.setattr(self.kind, "tgz_md5", hashlib.md5(archive, usedforsecurity=False).hexdigest())
        patch.setattr(self.kind, "url", self.archive.as_uri())

    def unpacked(self, root):
        return root / self.kind.base_folder


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """A function: a small CIFAR of this kind where the real one is fetched from."""
    folder, requests, download = tmp_path / "server", [], named.download
    folder.mkdir()
    monkeypatch.setattr(named, "download", lambda *to: (requests.append(to), download(*to)))

    def make(kind):
        cifar = Cifar(folder, kind)
        cifar.announce(monkeypatch)
        cifar.requests = requests
        return cifar

    return make


@pytest.fixture
def cifar(serve):
    return serve(datasets.CIFAR10)


# Python 3.12 and 3.13 say that `tarfile` will have another default, which torchvision relies on.
downloads = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")


@downloads
@pytest.mark.parametrize("kind", [datasets.CIFAR10, datasets.CIFAR100])
def test_cifar_is_read_from_its_own_format(serve, kind, root):
    cifar = serve(kind)
    found = {datasets.CIFAR10: cifar10, datasets.CIFAR100: cifar100}[kind]()
    test = cifar.batches[kind.test_list[0][0]]
    expected = torch.from_numpy(test["data"]).view(-1, 3, 32, 32)
    assert torch.equal(found.test.images, expected)
    assert found.test.labels.tolist() == test.get("labels", test.get("fine_labels"))
    pool = np.concatenate([cifar.batches[name]["data"] for name, _ in kind.train_list])
    assert sorted(found.train.images.flatten(1).tolist()) == sorted(pool.tolist())
    assert found.classes == tuple(cifar.classes)
    assert found.train.images.is_contiguous() and found.train.labels.dtype == torch.int64
    assert cifar.unpacked(root).is_dir()
    if kind is datasets.CIFAR10:  # the customary figures
        assert (found.train.mean / 255).tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
        assert (found.test.std / 255).tolist() == pytest.approx([0.2471, 0.2435, 0.2616])


@downloads
def test_cifar_is_downloaded_once_and_then_read_without_the_network(cifar, tmp_path):
    first = load("cifar10", tmp_path / "shared")
    cifar.requests.clear()
    (tmp_path / "shared" / cifar.kind.filename).unlink()  # only the unpacked files are needed
    assert same(load("cifar10", tmp_path / "shared"), first)
    assert cifar.requests == []


@downloads
def test_two_that_share_a_folder_download_once(cifar, tmp_path):
    cifar10(tmp_path / "one")
    alone = len(cifar.requests)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: cifar10(tmp_path / "shared"), range(3)))
    assert len(cifar.requests) == 2 * alone
    assert same(found[0], found[1]) and same(found[0], found[2])


@downloads
def test_cifar_is_drawn_by_seed_into_disjoint_splits(cifar):
    draw = partial(cifar10, validation=8, test=4)
    whole, few, noisy = draw(), draw(train=12), draw(label_noise=0.5)
    assert [len(split) for split in splits(whole)] == [42, 8, 4]
    assert [len(split) for split in splits(few)] == [12, 8, 4]
    pool = np.concatenate([cifar.batches[name]["data"] for name, _ in cifar.kind.train_list])
    both = torch.cat([whole.train.images, whole.validation.images]).flatten(1)
    assert sorted(both.tolist()) == sorted(pool.tolist())
    assert torch.equal(whole.train.images[:12], few.train.images)
    for a, b in zip(splits(whole)[1:], splits(few)[1:], strict=True):
        assert torch.equal(a.images, b.images)
    assert torch.equal(whole.train.labels != noisy.train.labels, noisy.noisy)
    assert noisy.noisy.sum() == 21
    assert not same(whole, draw(seed=1)) and same(draw(seed=1), draw(seed=1))


@downloads
@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"validation": 10, "train": 41}, ValueError, r"train must be an int in \[1, 40\], got 41"),
        ({"test": 11}, ValueError, r"test must be an int in \[1, 10\], got 11"),
    ],
)
def test_wrong_options_of_cifar_are_named(cifar, wrong, error, words):
    with pytest.raises(error, match=words):
        cifar10(**wrong)


@downloads
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_bad_download_is_an_error_and_the_next_call_starts_anew(cifar, damage, root):
    good = cifar.archive.read_bytes()
    half = len(good) // 2
    rest = bytes([good[half] ^ 1]) + good[half + 1 :] if damage == "changed" else b""
    cifar.archive.write_bytes(good[:half] + rest)
    with pytest.raises(DataError, match=r"wrong checksum .* Call again to restart"):
        cifar10()
    assert not cifar.unpacked(root).exists()
    cifar.archive.write_bytes(good)
    assert len(cifar10().train) == 50


@downloads
def test_damaged_unpacked_files_are_unpacked_again(cifar, root):
    expected = cifar10()
    cifar.requests.clear()
    batch = cifar.unpacked(root) / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert same(cifar10(), expected)
    assert cifar.requests == []  # the archive is there
    (cifar.unpacked(root) / cifar.kind.meta["filename"]).write_bytes(b"")
    with pytest.raises(DataError, match=f"delete .* and {cifar.unpacked(root)} first"):
        cifar10()


@downloads
@pytest.mark.parametrize("as_address", [True, False])
def test_a_mirror_is_asked_instead_and_held_to_the_same_checksum(
    cifar, monkeypatch, as_address, root
):
    monkeypatch.setattr(cifar.kind, "url", "http://127.0.0.1:9/closed")
    mirror = cifar.folder.as_uri() + "/" if as_address else str(cifar.folder)
    monkeypatch.setenv("LOOKBEHIND_MIRROR", mirror)
    good = cifar.archive.read_bytes()
    cifar.archive.write_bytes(good[:-1])
    with pytest.raises(
        DataError, match=f"wrong checksum .{cifar.archive.as_uri()} is not the file"
    ):
        cifar10()
    cifar.archive.write_bytes(good)
    assert len(cifar10().train) == 50


def test_offline_is_said_and_no_other_dataset_takes_its_place(cifar, monkeypatch):
    monkeypatch.setattr(cifar.kind, "url", "http://127.0.0.1:9/closed")
    words = "cannot be downloaded .* go online .* put it into"
    with pytest.raises(DataError, match=words) as found:
        cifar10()
    assert isinstance(found.value.__cause__, urllib.error.URLError)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda cifar, root: cifar.archive.unlink(), "cannot be downloaded .*No such file"),
        (lambda cifar, root: root.write_text("no folder"), "root must be a folder, not a file"),
    ],
)
def test_what_is_not_there_is_said(cifar, root, damage, words):
    damage(cifar, root)
    with pytest.raises(DataError, match=words):
        cifar10()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk of .* is full .* make 400 MB free"),
        (errno.EACCES, "must be a folder that you may write in .* set LOOKBEHIND_DATA"),
        (errno.EROFS, "must be a folder that you may write in"),
        (errno.ECONNRESET, "cannot be downloaded"),
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(cifar, monkeypatch, number, words):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(named, "download", refuse)
    with pytest.raises(DataError, match=words):
        cifar10()
