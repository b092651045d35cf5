# ruff: noqa: F811
"""`data`: CIFAR from small files of its own format, its download, and clear errors."""

import errno
import hashlib
import io
import os
import pickle
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch
from images import root, same, splits  # noqa: F401
from torchvision import datasets

from lookbehind.train.data import DataError, load, named
from lookbehind.train.data.named import download

cifar10 = partial(load, "cifar10")
CLOSED = "http://127.0.0.1:9/closed"


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Cifar:
    """A CIFAR of 60 images: an archive in a folder, and what is fetched from there."""

    def __init__(self, folder, kind, requests):
        self.folder, self.kind, self.requests = folder, kind, requests
        rng, hundred = np.random.default_rng(0), kind is datasets.CIFAR100
        files = [name for name, _ in kind.train_list + kind.test_list]
        key, count = ("fine_labels", 100) if hundred else ("labels", 10)
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
        self.archive = folder / kind.filename
        with tarfile.open(self.archive, "w:gz") as tar:
            for name, content in self.content.items():
                member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

    def announce(self, patch):
        """Torchvision expects these files instead of the real ones."""
        for listed in ("train_list", "test_list"):
            names = [name for name, _ in getattr(self.kind, listed)]
            patch.setattr(self.kind, listed, [[name, md5(self.content[name])] for name in names])
        meta = self.kind.meta
        patch.setattr(self.kind, "meta", meta | {"md5": md5(self.content[meta["filename"]])})
        patch.setattr(self.kind, "tgz_md5", md5(self.archive.read_bytes()))
        patch.setattr(self.kind, "url", self.archive.as_uri())

    def unpacked(self, root):
        return root / self.kind.base_folder

    @property
    def pool(self):
        """The pixels of all training images."""
        names = [name for name, _ in self.kind.train_list]
        return sorted(np.concatenate([self.batches[name]["data"] for name in names]).tolist())


@pytest.fixture
def cifar(request, tmp_path, monkeypatch):
    """A small CIFAR where the real one is fetched from."""
    folder, requests, download = tmp_path / "server", [], named.download
    folder.mkdir()
    monkeypatch.setattr(named, "download", lambda *to: (requests.append(to), download(*to)))
    cifar = Cifar(folder, getattr(request, "param", datasets.CIFAR10), requests)
    cifar.announce(monkeypatch)
    return cifar


# Python 3.12 and 3.13 say that `tarfile` will have another default, which torchvision relies on.
downloads = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")


@downloads
@pytest.mark.parametrize("cifar", [datasets.CIFAR10, datasets.CIFAR100], indirect=True)
def test_cifar_is_read_from_its_own_format(cifar, root):
    kind = cifar.kind
    found = load(kind.__name__.lower())
    test = cifar.batches[kind.test_list[0][0]]
    assert found.test.images.flatten(1).tolist() == test["data"].tolist()
    assert found.test.labels.tolist() == test.get("labels", test.get("fine_labels"))
    assert sorted(found.train.images.flatten(1).tolist()) == cifar.pool
    assert found.classes == tuple(cifar.classes)
    assert found.test.images.shape[1:] == (3, 32, 32)
    assert found.train.images.is_contiguous() and found.train.labels.dtype == torch.int64
    assert cifar.unpacked(root).is_dir()
    if kind is datasets.CIFAR10:  # the customary figures
        assert (found.train.mean / 255).tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
        assert (found.test.std / 255).tolist() == pytest.approx([0.2471, 0.2435, 0.2616])


@downloads
def test_cifar_is_downloaded_once_and_then_read_without_the_network(cifar, tmp_path):
    first = cifar10(tmp_path / "shared")
    cifar.requests.clear()
    (tmp_path / "shared" / cifar.kind.filename).unlink()  # only the unpacked files are needed
    assert same(cifar10(tmp_path / "shared"), first)
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
    both = torch.cat([whole.train.images, whole.validation.images]).flatten(1)
    assert sorted(both.tolist()) == cifar.pool
    assert torch.equal(whole.train.images[:12], few.train.images)
    for a, b in zip(splits(whole)[1:], splits(few)[1:], strict=True):
        assert torch.equal(a.images, b.images)
    assert torch.equal(whole.train.labels != noisy.train.labels, noisy.noisy)
    assert noisy.noisy.sum() == 21
    assert not same(whole, draw(seed=1)) and same(draw(seed=1), draw(seed=1))


@downloads
def test_wrong_options_of_cifar_are_named(cifar):
    with pytest.raises(ValueError, match=r"train must be an int in \[1, 40\], got 41"):
        cifar10(validation=10, train=41)
    with pytest.raises(ValueError, match=r"test must be an int in \[1, 10\], got 11"):
        cifar10(test=11)


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
    monkeypatch.setattr(cifar.kind, "url", CLOSED)
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


def closed(cifar, root, patch):
    patch.setattr(cifar.kind, "url", CLOSED)


def refused(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return lambda cifar, root, patch: patch.setattr(named, "download", refuse)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (closed, "cannot be downloaded .*refused.* go online .* put it into"),
        (lambda cifar, root, patch: cifar.archive.unlink(), "cannot be downloaded .*No such file"),
        (lambda cifar, root, patch: root.write_text("no folder"), "root must be a folder, not a f"),
        (refused(errno.ENOSPC), "the disk of .* is full .* make 400 MB free"),
        (refused(errno.EACCES), "a folder that you may write in .* set LOOKBEHIND_DATA"),
        (refused(errno.EROFS), "must be a folder that you may write in"),
    ],
)
def test_what_fails_is_said_with_what_to_do_and_no_other_data_take_its_place(
    cifar, root, monkeypatch, damage, words
):
    damage(cifar, root, monkeypatch)
    with pytest.raises(DataError, match=words) as found:
        cifar10()
    assert isinstance(found.value.__cause__, OSError)


CONTENT = np.random.default_rng(0).bytes(300_000)


class Host(BaseHTTPRequestHandler):
    """Sends CONTENT, at most `most` bytes at a time; may answer a range."""

    most, ranges = len(CONTENT), True
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        wanted = self.headers.get("Range", "bytes=0-")
        self.asked.append(wanted)
        start = int(wanted[6:-1]) if self.ranges else 0
        rest = CONTENT[start:]
        self.send_response(416 if not rest else 206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch):
    """A function: the address of a host of the settings given."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(Host, "asked", [])
    with HTTPServer(("127.0.0.1", 0), Host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def address(**settings):
            for name, value in settings.items():
                monkeypatch.setattr(Host, name, value)
            return f"http://127.0.0.1:{server.server_port}/file"

        yield address
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_it_goes_on_where_it_broke_off_or_starts_anew(host, tmp_path, ranges, capsys):
    path = tmp_path / "file.bin"
    with pytest.raises(ConnectionError, match="it broke off after 200,000 of 300,000 bytes"):
        download(host(most=200_000, ranges=ranges), path)
    assert not path.exists()
    download(host(most=len(CONTENT)), path)
    assert path.read_bytes() == CONTENT
    assert [*tmp_path.iterdir()] == [path]
    assert Host.asked == ["bytes=0-", "bytes=200000-"]
    assert "file.bin: " in capsys.readouterr().err


def test_a_file_that_lacks_but_its_name_is_not_sent_again(host, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    download(host(), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_host_that_refuses_keeps_what_has_come(tmp_path, host):
    (tmp_path / "file.bin.part").write_bytes(b"some")
    with pytest.raises(OSError, match="refused"):
        download("http://127.0.0.1:9/file", tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").read_bytes() == b"some"
