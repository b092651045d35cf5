# ruff: noqa: F811
"""`data`: CIFAR from small files of its own format, its download, and clear errors."""

import errno
import hashlib
import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from images import fingerprint, root, same, splits  # noqa: F401
from torchvision import datasets

from lookbehind.train.data import DataError, load, named
from lookbehind.train.data.named import download

# Python 3.12 and 3.13 say that `tarfile` will have another default, which torchvision relies on.
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")
cifar10 = partial(load, "cifar10")
md5 = partial(hashlib.md5, usedforsecurity=False)
CLOSED = "http://127.0.0.1:9/closed"
CONTENT = np.random.default_rng(0).bytes(300_000)


@pytest.fixture
def cifar(request, tmp_path, monkeypatch):
    """A CIFAR of 60 images in an archive, which torchvision expects instead of the real one."""
    kind, rng = getattr(request, "param", datasets.CIFAR10), np.random.default_rng(0)
    archive, fetch = tmp_path / "server" / kind.filename, Mock(wraps=named.download)
    archive.parent.mkdir()
    files = [name for name, _ in kind.train_list + kind.test_list]
    key, count = ("fine_labels", 100) if kind is datasets.CIFAR100 else ("labels", 10)
    pixels = rng.integers(0, 256, (len(files), 60 // len(files), 3072), dtype=np.uint8)
    labels = rng.integers(0, count, pixels.shape[:2]).tolist()
    classes = [f"class {i}" for i in range(count)]
    batches = [{"data": data, key: own} for data, own in zip(pixels, labels, strict=True)]
    contents = dict(zip(files, map(pickle.dumps, batches), strict=True))
    contents[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: classes})
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    sums = {name: md5(content).hexdigest() for name, content in contents.items()}
    for listed in ("train_list", "test_list"):
        known = [[name, sums[name]] for name, _ in getattr(kind, listed)]
        monkeypatch.setattr(kind, listed, known)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": sums[kind.meta["filename"]]})
    monkeypatch.setattr(kind, "tgz_md5", md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(kind, "url", archive.as_uri())
    monkeypatch.setattr(named, "download", fetch)
    pool = sorted(pixels[:-1].reshape(-1, 3072).tolist())  # of all training images
    held = {"classes": tuple(classes), "pool": pool, "test": (pixels[-1].tolist(), labels[-1])}
    return SimpleNamespace(kind=kind, archive=archive, fetch=fetch, **held)


@pytest.mark.parametrize("cifar", [datasets.CIFAR10, datasets.CIFAR100], indirect=True)
def test_cifar_is_read_from_its_own_format(cifar, root):
    kind = cifar.kind
    found = load(kind.__name__.lower())
    assert (found.test.images.flatten(1).tolist(), found.test.labels.tolist()) == cifar.test
    assert sorted(found.train.images.flatten(1).tolist()) == cifar.pool
    assert found.classes == cifar.classes
    assert found.test.images.shape[1:] == (3, 32, 32)
    assert found.train.images.is_contiguous() and found.train.labels.dtype == torch.int64
    assert (root / kind.base_folder).is_dir()
    if kind is datasets.CIFAR10:  # the customary figures
        assert (found.train.mean / 255).tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
        assert (found.test.std / 255).tolist() == pytest.approx([0.2471, 0.2435, 0.2616])


def test_those_that_share_a_folder_download_once_and_then_need_no_network(cifar, tmp_path):
    folder = tmp_path / "shared"
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(cifar10, [folder] * 3))
    (folder / cifar.kind.filename).unlink()  # only the unpacked files are needed
    assert all(same(each, cifar10(folder)) for each in found)
    assert cifar.fetch.call_count == 1


def test_cifar_is_drawn_by_seed_into_disjoint_splits(cifar):
    draw = partial(cifar10, validation=8, test=4)
    whole, few, noisy = draw(), draw(train=12), draw(label_noise=0.5)
    assert [len(split) for split in splits(whole)] == [42, 8, 4]
    assert [len(split) for split in splits(few)] == [12, 8, 4]
    both = torch.cat([whole.train.images, whole.validation.images]).flatten(1)
    assert sorted(both.tolist()) == cifar.pool
    assert torch.equal(whole.train.images[:12], few.train.images)
    assert all(map(torch.equal, fingerprint(whole)[2:], fingerprint(few)[2:]))
    assert torch.equal(whole.train.labels != noisy.train.labels, noisy.noisy)
    assert noisy.noisy.sum() == 21
    assert not same(whole, draw(seed=1)) and same(draw(seed=1), draw(seed=1))


def test_wrong_options_of_cifar_are_named(cifar):
    with pytest.raises(ValueError, match=r"train must be an int in \[1, 40\], got 41"):
        cifar10(validation=10, train=41)
    with pytest.raises(ValueError, match=r"test must be an int in \[1, 10\], got 11"):
        cifar10(test=11)


def test_a_bad_download_is_an_error_and_the_next_call_starts_anew(cifar, root):
    good = cifar.archive.read_bytes()
    cifar.archive.write_bytes(good[:-1] + b"?")
    with pytest.raises(DataError, match=r"wrong checksum .* Call again to restart"):
        cifar10()
    assert not (root / cifar.kind.base_folder).exists()
    cifar.archive.write_bytes(good)
    assert len(cifar10().train) == 50


def test_damaged_unpacked_files_are_unpacked_again(cifar, root):
    expected, unpacked = cifar10(), root / cifar.kind.base_folder
    batch = unpacked / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert same(cifar10(), expected)
    assert cifar.fetch.call_count == 1  # the archive is there
    (unpacked / cifar.kind.meta["filename"]).write_bytes(b"")
    with pytest.raises(DataError, match=f"delete .* and {unpacked} first"):
        cifar10()


@pytest.mark.parametrize("written", [lambda folder: f"{folder.as_uri()}/", str])
def test_a_mirror_is_asked_instead_and_held_to_the_same_checksum(cifar, monkeypatch, written):
    monkeypatch.setattr(cifar.kind, "url", CLOSED)
    monkeypatch.setenv("LOOKBEHIND_MIRROR", written(cifar.archive.parent))
    good, address = cifar.archive.read_bytes(), cifar.archive.as_uri()
    cifar.archive.write_bytes(good[:-1])
    with pytest.raises(DataError, match=f"wrong checksum .{address} is not the file"):
        cifar10()
    cifar.archive.write_bytes(good)
    assert len(cifar10().train) == 50


def away(cifar, root):
    cifar.kind.url = CLOSED  # until the fixture ends


def failing(number):
    return lambda cifar, root: cifar.fetch.configure_mock(side_effect=OSError(number, "failed"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (away, "cannot be downloaded .*refused.* go online .* put it into"),
        (lambda cifar, root: cifar.archive.unlink(), "cannot be downloaded .*No such file"),
        (lambda cifar, root: root.write_text("no folder"), "root must be a folder, not a file"),
        (failing(errno.ENOSPC), "the disk of .* is full .* make 400 MB free"),
        (failing(errno.EACCES), "a folder that you may write in .* set LOOKBEHIND_DATA"),
        (failing(errno.EROFS), "must be a folder that you may write in"),
    ],
)
def test_what_fails_is_said_with_what_to_do_and_no_other_data_take_its_place(
    cifar, root, damage, words
):
    damage(cifar, root)
    with pytest.raises(DataError, match=words) as found:
        cifar10()
    assert isinstance(found.value.__cause__, OSError)


class Host(BaseHTTPRequestHandler):
    """Sends CONTENT, at most `most` bytes at a time; may answer a range."""

    most, ranges, log_message = len(CONTENT), True, Mock()

    def do_GET(self):
        wanted = self.headers.get("Range", "bytes=0-")
        self.asked.append(wanted)
        start = int(wanted[6:-1]) if self.ranges else 0
        rest = CONTENT[start:]
        self.send_response(416 if not rest else 206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.most])


@pytest.fixture
def host(monkeypatch):
    """The address of a file on it; what it is asked for is kept in `Host.asked`."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(Host, "asked", [], raising=False)
    with ThreadPoolExecutor(1) as pool, HTTPServer(("127.0.0.1", 0), Host) as server:
        pool.submit(server.serve_forever, 0.01)
        yield f"http://127.0.0.1:{server.server_port}/file"
        server.shutdown()


@pytest.mark.parametrize("ranges", [True, False])
def test_it_goes_on_where_it_broke_off_or_starts_anew(host, tmp_path, ranges, capsys, monkeypatch):
    path = tmp_path / "file.bin"
    monkeypatch.setattr(Host, "ranges", ranges)
    monkeypatch.setattr(Host, "most", 200_000)
    with pytest.raises(ConnectionError, match="it broke off after 200,000 of 300,000 bytes"):
        download(host, path)
    assert not path.exists()
    monkeypatch.setattr(Host, "most", len(CONTENT))
    download(host, path)
    assert path.read_bytes() == CONTENT
    assert [*tmp_path.iterdir()] == [path]
    assert Host.asked == ["bytes=0-", "bytes=200000-"]
    assert "file.bin: " in capsys.readouterr().err


def test_what_has_come_stays_where_a_host_refuses_and_is_not_sent_again(host, tmp_path):
    path, part = tmp_path / "file.bin", tmp_path / "file.bin.part"
    part.write_bytes(CONTENT)
    with pytest.raises(OSError, match="refused"):
        download(CLOSED, path)
    assert part.read_bytes() == CONTENT
    download(host, path)  # it lacks but its name
    assert path.read_bytes() == CONTENT
