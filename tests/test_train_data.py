"""`data`: honest splits, seeded noise and augmentation, clear errors for broken files."""

import errno
import hashlib
import io
import os
import pickle
import tarfile
import threading
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from lookbehind.train.data import (
    DataError,
    Dataset,
    Split,
    cifar10,
    cifar100,
    data_root,
    digits,
    image_folder,
    load,
)
from lookbehind.train.data import folder as folder_module


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache folder."""
    monkeypatch.setenv("LOOKBEHIND_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


def splits(dataset: Dataset) -> list[Split]:
    return [dataset.train, dataset.validation, dataset.test]


def fingerprint(dataset: Dataset) -> list[torch.Tensor]:
    return [tensor for split in splits(dataset) for tensor in (split.images, split.labels)]


def same(a: Dataset, b: Dataset) -> bool:
    pairs = zip(fingerprint(a), fingerprint(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def numbered(count: int, channels: int = 3, height: int = 6, width: int = 5) -> Split:
    """Images of random pixels; the label of each is its number."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator)
    mean, std = torch.tensor([120.0, 110.0, 100.0])[:channels], torch.tensor([60.0, 50.0, 40.0])
    return Split(images, torch.arange(count), mean, std[:channels])


def pixels(split: Split, images: torch.Tensor) -> torch.Tensor:
    """What was normalized, back in units of the pixels."""
    return images * split.std.view(-1, 1, 1) + split.mean.view(-1, 1, 1)


# Digits, and what every dataset shares.


def test_the_three_splits_hold_each_of_the_1797_digits_once() -> None:
    dataset = digits(train=500, validation=300)
    assert [len(s) for s in splits(dataset)] == [500, 300, 997]
    found = torch.cat([s.images for s in splits(dataset)]).flatten(1)
    expected, labels = load_digits(return_X_y=True)
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.cat(fingerprint(dataset)[1::2]).bincount().tolist() == np.bincount(labels).tolist()


def test_digits_are_bytes_and_normalized_by_the_training_images() -> None:
    dataset = digits()
    images = dataset.train.images
    assert images.dtype == torch.uint8 and images.shape == (500, 1, 8, 8)
    assert dataset.train.labels.dtype == torch.int64
    for split in splits(dataset):
        torch.testing.assert_close(split.mean, images.double().mean().float()[None])
        torch.testing.assert_close(split.std, images.double().std().float()[None])


def test_a_dataset_says_what_it_holds() -> None:
    dataset = digits(train=10, validation=0)
    assert (dataset.channels, dataset.size) == (1, (8, 8))
    assert dataset.classes == tuple("0123456789")
    assert list(dataset.splits) == ["train", "test"]
    assert list(digits().splits) == ["train", "validation", "test"]


def test_a_dataset_moves_to_a_device_with_all_that_it_holds() -> None:
    moved = digits(label_noise=0.1, device="meta")
    for split in splits(moved):
        assert {split.images.device.type, split.labels.device.type} == {"meta"}
        assert {split.mean.device.type, split.std.device.type} == {"meta"}
    assert moved.noisy.device.type == "meta"


@pytest.mark.parametrize("share", [0, 0.1, 0.4, 1])
def test_noise_replaces_exactly_that_share_of_the_training_labels_only(share: float) -> None:
    clean, noisy = digits(seed=3), digits(label_noise=share, seed=3)
    wrong = clean.train.labels != noisy.train.labels
    assert torch.equal(wrong, noisy.noisy)
    assert wrong.sum() == round(share * 500)
    assert torch.equal(clean.train.images, noisy.train.images)
    for a, b in zip(fingerprint(clean)[2:], fingerprint(noisy)[2:], strict=True):
        assert torch.equal(a, b)


def test_noise_goes_evenly_to_the_nine_wrong_classes() -> None:
    draw = partial(digits, train=1700, validation=50)
    shift = (draw(label_noise=1).train.labels - draw().train.labels) % 10
    counts = shift.bincount(minlength=10)
    assert counts[0] == 0
    assert counts[1:].min() > 1700 / 9 * 0.75
    assert counts[1:].max() < 1700 / 9 * 1.25


def test_a_seed_gives_the_same_dataset_another_seed_another() -> None:
    assert same(digits(label_noise=0.4, seed=1), digits(label_noise=0.4, seed=1))
    assert not same(digits(label_noise=0.4, seed=1), digits(label_noise=0.4, seed=2))


def test_a_seed_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(digits(label_noise=0.4).train.batches(50, seed=1, crop=1, flip=True)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"train": 0}, ValueError, r"train must be an int in \[1, 1796\], got 0"),
        ({"train": 50.0}, TypeError, "train must be an int"),
        ({"train": True}, TypeError, "train must be an int"),
        ({"train": 1700, "validation": 97}, ValueError, r"validation .* \[0, 96\], got 97"),
        ({"label_noise": 40}, ValueError, r"label_noise must be in \[0, 1\], got 40"),
        ({"label_noise": -0.1}, ValueError, "label_noise"),
        ({"label_noise": float("nan")}, ValueError, "label_noise"),
        ({"label_noise": "40 %"}, TypeError, "label_noise must be a number"),
        ({"seed": -1}, ValueError, "seed must be an int ≥ 0, got -1"),
        ({"seed": None}, TypeError, "seed must be an int ≥ 0, got None"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        digits(**wrong)


def test_load_finds_a_dataset_by_its_name() -> None:
    assert same(load("digits", train=20, seed=4), digits(train=20, seed=4))
    with pytest.raises(DataError, match=r'"cifar10", "cifar100" or a folder .*, got .cifar.'):
        load("cifar")


def test_the_root_is_the_argument_then_the_variable_then_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    assert data_root("here") == Path("here")
    assert data_root("~/here") == Path.home() / "here"
    assert data_root() == root
    monkeypatch.setenv("LOOKBEHIND_DATA", "")
    assert data_root().name == "lookbehind" and data_root().is_absolute()


# Minibatches.


def test_minibatches_are_normalized_and_of_the_default_float_type() -> None:
    split = numbered(20)
    expected = (split.images.double() - split.mean.view(-1, 1, 1)) / split.std.view(-1, 1, 1)
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        images = torch.cat([images for images, _ in split.batches(7)])
        assert images.dtype == dtype and images.is_contiguous()
        torch.testing.assert_close(images, expected.to(dtype))


def test_an_epoch_holds_every_image_once_with_its_own_label() -> None:
    split = numbered(23)
    batches = split.batches(5, seed=0)
    epoch = list(batches)
    assert len(batches) == len(epoch) == 5
    assert [len(labels) for _, labels in epoch] == [5, 5, 5, 5, 3]
    order = torch.cat([labels for _, labels in epoch])
    assert sorted(order.tolist()) == list(range(23)) != order.tolist()
    found = pixels(split, torch.cat([images for images, _ in epoch]))
    assert torch.equal(found.round().byte(), split.images[order])


def test_the_last_minibatch_is_dropped_by_choice() -> None:
    split = numbered(23)
    batches = split.batches(5, seed=0, drop_last=True)
    epoch = [labels for _, labels in batches]
    assert [len(labels) for labels in epoch] == [5] * 4 and len(batches) == 4
    whole = torch.cat([labels for _, labels in split.batches(5, seed=0)])
    assert torch.equal(torch.cat(epoch), whole[:20])
    assert len(list(split.batches(23, drop_last=True))) == 1


def test_a_size_beyond_the_split_gives_it_whole() -> None:
    assert [len(labels) for _, labels in numbered(23).batches(5000)] == [23]


def test_a_split_without_images_has_no_minibatches() -> None:
    batches = digits(validation=0).validation.batches(5)
    assert len(batches) == 0 and list(batches) == []


def test_without_a_seed_the_order_is_the_splits() -> None:
    split = numbered(23)
    assert torch.equal(torch.cat([labels for _, labels in split.batches(5)]), split.labels)


@pytest.mark.parametrize(("crop", "flip"), [(4, True), (2, False), (0, True)])
def test_a_crop_is_a_window_of_the_bordered_image_mirrored_or_not(crop: int, flip: bool) -> None:
    """The oracle: every window of every image, padded and cut by NumPy."""
    split = numbered(40)
    height, width = split.images.shape[2:]
    seen: Counter[tuple[int, int, bool]] = Counter()
    for images, labels in split.batches(16, seed=1, crop=crop, flip=flip):
        found = pixels(split, images).round().byte().numpy()
        for image, label in zip(found, labels, strict=True):
            border = ((0, 0), (crop, crop), (crop, crop))
            black = np.pad(split.images[label].numpy(), border)
            windows = {
                (y, x, mirrored): black[:, y : y + height, x : x + width][:, :, :: 1 - 2 * mirrored]
                for y in range(2 * crop + 1)
                for x in range(2 * crop + 1)
                for mirrored in (False, True)
            }
            (where,) = [w for w, window in windows.items() if np.array_equal(window, image)]
            seen[where] += 1
    assert len(seen) > 12 * bool(crop)
    assert {mirrored for _, _, mirrored in seen} == ({False, True} if flip else {False})


def test_every_corner_and_both_sides_are_equally_likely_and_independent() -> None:
    """One image of distinct pixels, many times: 9 corners x 2 sides, chi-squared at p = 1e-4."""
    image = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    count = 9000
    zero, one = torch.zeros(1), torch.ones(1)
    split = Split(image.expand(count, 1, 5, 5), torch.zeros(count).long(), zero, one)
    images, _ = next(iter(split.batches(count, seed=0, crop=1, flip=True)))
    found = Counter(tuple(some) for some in images.flatten(1).tolist())
    assert len(found) == 18
    assert sum((n - 500) ** 2 / 500 for n in found.values()) < 45.0


def test_crops_and_flips_leave_the_order_as_it_is() -> None:
    split = numbered(50)
    plain, moved = split.batches(50, seed=7), split.batches(50, seed=7, crop=3, flip=True)
    for _ in range(2):
        assert torch.equal(next(iter(plain))[1], next(iter(moved))[1])


def test_an_epoch_depends_on_its_seed_and_number_alone() -> None:
    split = numbered(50)
    batches = split.batches(16, seed=5, crop=4, flip=True)
    epochs = [torch.cat([images for images, _ in batches]) for _ in range(4)]
    assert batches.epoch == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(epochs) for b in epochs[:i])
    again = split.batches(16, seed=5, crop=4, flip=True)
    again.set_epoch(2)
    next(iter(again))  # an epoch that is given up
    for number in (3, 0, 2):
        if number != 3:
            again.set_epoch(number)
        assert torch.equal(torch.cat([images for images, _ in again]), epochs[number])
    other = split.batches(50, seed=6, crop=4, flip=True)
    assert not torch.equal(next(iter(other))[0], epochs[0])


def test_neighbouring_seeds_and_epochs_have_nothing_in_common() -> None:
    """`seed + epoch` would give seed 1, epoch 0 the order of seed 0, epoch 1."""
    split = numbered(50)
    zero, one = split.batches(50, seed=0), split.batches(50, seed=1)
    zero.set_epoch(1)
    assert not torch.equal(next(iter(zero))[1], next(iter(one))[1])


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"size": 0}, ValueError, "size must be an int ≥ 1, got 0"),
        ({"size": 2.0}, TypeError, "size must be an int ≥ 1, got 2.0"),
        ({"size": 24, "drop_last": True}, ValueError, r"size must be an int in \[1, 23\], got 24"),
        ({"seed": -1}, ValueError, "seed must be an int ≥ 0, got -1"),
        ({"seed": 0.5}, TypeError, "seed must be an int"),
        ({"seed": 0, "crop": 6}, ValueError, r"crop must be an int in \[0, 5\], got 6"),
        ({"seed": 0, "crop": True}, TypeError, "crop must be an int"),
        ({"crop": 4}, ValueError, "seed must be an int ≥ 0 for random crops"),
        (
            {"flip": True},
            ValueError,
            "for random crops and flips, got None",
        ),
    ],
)
def test_wrong_options_of_batches_are_named(
    wrong: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        numbered(23).batches(**{"size": 5} | wrong)


def test_a_wrong_epoch_is_named() -> None:
    with pytest.raises(ValueError, match="epoch must be an int ≥ 0, got -1"):
        numbered(3).batches(1).set_epoch(-1)


@pytest.mark.gpu
def test_a_gpu_gives_the_minibatches_of_the_cpu() -> None:
    split = numbered(50)
    options = {"size": 16, "seed": 3, "crop": 4, "flip": True}
    pairs = zip(split.batches(**options), split.to("cuda").batches(**options), strict=True)
    for (images, labels), (gpu_images, gpu_labels) in pairs:
        assert gpu_images.is_cuda and gpu_labels.is_cuda
        torch.testing.assert_close(gpu_images.cpu(), images)
        assert torch.equal(gpu_labels.cpu(), labels)


@pytest.mark.gpu
def test_within_an_epoch_the_gpu_is_never_waited_for() -> None:
    """What throughput needs, without a clock: an epoch is drawn at once, then only queued."""
    minibatches = iter(numbered(50).to("cuda").batches(8, 3, crop=4, flip=True))
    next(minibatches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert sum(len(labels) for _, labels in minibatches) == 42
    finally:
        torch.cuda.set_sync_debug_mode("default")


# CIFAR, from small files of its own format.


class Cifar:
    """A CIFAR-10 of 60 images: an archive on a server of this machine, and what is asked of it."""

    def __init__(self, folder: Path, kind: type) -> None:
        self.folder, self.kind = folder, kind
        self.requests: list[str] = []
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
    def archive(self) -> Path:
        return self.folder / self.kind.filename

    def md5(self, name: str) -> str:
        return hashlib.md5(self.content[name], usedforsecurity=False).hexdigest()

    def announce(self, patch: pytest.MonkeyPatch, port: int) -> None:
        """Torchvision expects these files instead of the real ones."""
        for listed in ("train_list", "test_list"):
            names = [name for name, _ in getattr(self.kind, listed)]
            patch.setattr(self.kind, listed, [[name, self.md5(name)] for name in names])
        meta = self.kind.meta
        patch.setattr(self.kind, "meta", meta | {"md5": self.md5(meta["filename"])})
        archive = self.archive.read_bytes()
        patch.setattr(self.kind, "tgz_md5", hashlib.md5(archive, usedforsecurity=False).hexdigest())
        patch.setattr(self.kind, "url", f"http://127.0.0.1:{port}/{self.kind.filename}")

    def unpacked(self, root: Path) -> Path:
        return root / self.kind.base_folder


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type], Cifar]]:
    folder = tmp_path / "server"
    folder.mkdir()
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            requests.append(self.command)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=partial(server.serve_forever, 0.01))
        thread.start()

        def make(kind: type) -> Cifar:
            cifar = Cifar(folder, kind)
            cifar.announce(monkeypatch, server.server_port)
            cifar.requests = requests
            return cifar

        yield make
        server.shutdown()
        thread.join()


@pytest.fixture
def cifar(serve: Callable[[type], Cifar]) -> Cifar:
    return serve(datasets.CIFAR10)


# Python 3.12 and 3.13 say that `tarfile` will have another default, which torchvision relies on.
downloads = pytest.mark.filterwarnings("ignore:Python 3.14 will:DeprecationWarning")


@downloads
@pytest.mark.parametrize("kind", [datasets.CIFAR10, datasets.CIFAR100])
def test_cifar_is_read_from_its_own_format(
    serve: Callable[[type], Cifar], kind: type, root: Path
) -> None:
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


@downloads
def test_cifar_is_downloaded_once_and_then_read_without_the_network(
    cifar: Cifar, tmp_path: Path
) -> None:
    first = load("cifar10", tmp_path / "shared")
    cifar.requests.clear()
    (tmp_path / "shared" / cifar.kind.filename).unlink()  # only the unpacked files are needed
    assert same(load("cifar10", tmp_path / "shared"), first)
    assert cifar.requests == []


@downloads
def test_two_that_share_a_folder_download_once(cifar: Cifar, tmp_path: Path) -> None:
    cifar10(tmp_path / "one")
    alone = len(cifar.requests)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: cifar10(tmp_path / "shared"), range(3)))
    assert len(cifar.requests) == 2 * alone
    assert same(found[0], found[1]) and same(found[0], found[2])


@downloads
def test_cifar_is_normalized_by_the_customary_figures_or_its_own(cifar: Cifar) -> None:
    customary, own = cifar10(), cifar10(normalization="train")
    assert (customary.train.mean / 255).tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert (customary.test.std / 255).tolist() == pytest.approx([0.2471, 0.2435, 0.2616])
    channels = own.train.images.double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(own.test.mean, channels.mean(1).float())
    torch.testing.assert_close(own.test.std, channels.std(1).float())
    with pytest.raises(ValueError, match='normalization must be "standard" or "train", got None'):
        cifar10(normalization=None)


@downloads
def test_cifar_is_drawn_by_seed_into_disjoint_splits(cifar: Cifar) -> None:
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
        ({"validation": 50}, ValueError, r"validation must be an int in \[0, 49\], got 50"),
        ({"validation": 10, "train": 41}, ValueError, r"train must be an int in \[1, 40\], got 41"),
        ({"train": 0}, ValueError, r"train must be an int in \[1, 50\], got 0"),
        ({"test": 11}, ValueError, r"test must be an int in \[1, 10\], got 11"),
        ({"test": 1.0}, TypeError, "test must be an int"),
        ({"label_noise": 2}, ValueError, "label_noise must be in"),
        ({"seed": -2}, ValueError, "seed must be an int ≥ 0, got -2"),
    ],
)
def test_wrong_options_of_cifar_are_named(
    cifar: Cifar, wrong: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cifar10(**wrong)


def cut(cifar: Cifar) -> None:
    content = cifar.archive.read_bytes()
    cifar.archive.write_bytes(content[: len(content) // 2])


def change(cifar: Cifar) -> None:
    content = bytearray(cifar.archive.read_bytes())
    content[len(content) // 2] ^= 1
    cifar.archive.write_bytes(content)


@downloads
@pytest.mark.parametrize("damage", [cut, change])
def test_a_bad_download_is_an_error_and_the_next_call_starts_anew(
    cifar: Cifar, damage: Callable[[Cifar], None], root: Path
) -> None:
    good = cifar.archive.read_bytes()
    damage(cifar)
    with pytest.raises(DataError, match=r"wrong checksum .* Call again to restart"):
        cifar10()
    assert not cifar.unpacked(root).exists()
    cifar.archive.write_bytes(good)
    assert len(cifar10().train) == 50


@downloads
def test_a_partial_archive_of_a_killed_download_is_not_taken_for_whole(
    cifar: Cifar, root: Path
) -> None:
    root.mkdir()
    (root / cifar.kind.filename).write_bytes(cifar.archive.read_bytes()[:1000])
    assert len(cifar10().train) == 50


@downloads
def test_damaged_unpacked_files_are_unpacked_again(cifar: Cifar, root: Path) -> None:
    expected = cifar10()
    cifar.requests.clear()
    batch = cifar.unpacked(root) / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert same(cifar10(), expected)
    assert cifar.requests == []  # the archive is there
    (cifar.unpacked(root) / cifar.kind.meta["filename"]).write_bytes(b"")
    with pytest.raises(DataError, match=f"delete .* and {cifar.unpacked(root)} first"):
        cifar10()


def test_offline_is_said_and_no_other_dataset_takes_its_place(
    cifar: Cifar, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        port = server.server_port  # nobody listens there after this
    monkeypatch.setattr(cifar.kind, "url", f"http://127.0.0.1:{port}/{cifar.kind.filename}")
    with pytest.raises(
        DataError, match=r"cannot be downloaded .* go online .* put it into"
    ) as found:
        cifar10()
    assert isinstance(found.value.__cause__, urllib.error.URLError)


def test_a_server_without_the_file_is_said(cifar: Cifar) -> None:
    cifar.archive.unlink()
    with pytest.raises(DataError, match=r"cannot be downloaded .HTTP Error 404"):
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
def test_what_the_system_refuses_is_said_with_what_to_do(
    cifar: Cifar, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)
    with pytest.raises(DataError, match=words):
        cifar10()


def test_a_file_in_the_place_of_the_root_is_said(cifar: Cifar, root: Path) -> None:
    root.write_text("no folder")
    with pytest.raises(DataError, match="root must be a folder, not a file"):
        cifar10()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_folder_without_write_permission_is_said(cifar: Cifar, root: Path) -> None:
    root.mkdir(mode=0o500)
    with pytest.raises(DataError, match="must be a folder that you may write in"):
        cifar10()


# A folder of images.


def paint(folder: Path, per_class: int = 3, classes: str = "ab", mode: str = "RGB") -> Path:
    """PNG images of 5 x 4 random pixels; returns the folder."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in classes:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(per_class):
                draw(folder / part / name / f"{i}.png", rng, mode)
    return folder


def draw(
    file: Path, rng: np.random.Generator, mode: str = "RGB", size: tuple[int, int] = (5, 4)
) -> None:
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return paint(tmp_path / "images")


def test_a_folder_holds_what_torchvision_reads(folder: Path) -> None:
    found = image_folder(folder)
    for part, split in (("train", found.train), ("test", found.test)):
        expected = [(np.asarray(i).tolist(), c) for i, c in datasets.ImageFolder(folder / part)]
        images = split.images.permute(0, 2, 3, 1).tolist()
        pairs = list(zip(images, split.labels.tolist(), strict=True))
        assert pairs == expected if part == "test" else sorted(pairs) == sorted(expected)
    assert found.classes == ("a", "b")
    assert (found.channels, found.size, len(found.validation)) == (3, (4, 5), 0)
    channels = found.train.images.double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(found.test.mean, channels.mean(1).float())
    assert same(load(str(folder), validation=2, seed=1), image_folder(folder, validation=2, seed=1))


def test_grey_images_have_one_channel_unless_one_is_coloured(tmp_path: Path) -> None:
    grey = image_folder(paint(tmp_path / "grey", mode="L"))
    assert grey.channels == 1
    folder = paint(tmp_path / "mixed", 60, mode="L")  # more than a thread decodes at once
    draw(folder / "train" / "a" / "0.png", np.random.default_rng(1), "P")
    mixed = image_folder(folder)
    assert mixed.channels == 3
    images = mixed.train.images
    assert (images[:, 0] == images[:, 2]).flatten(1).all(1).sum() == 119


def test_a_channel_of_one_value_is_not_divided_by_zero(tmp_path: Path) -> None:
    folder = paint(tmp_path / "images")
    for file in folder.rglob("*.png"):
        Image.new("RGB", (5, 4), (7, 0, 0)).save(file)
    found = image_folder(folder)
    images, _ = next(iter(found.train.batches(10)))
    assert torch.equal(images, torch.zeros(6, 3, 4, 5))


def remove_test(folder: Path) -> None:
    (folder / "test").rename(folder / "tests")


def remove_classes(folder: Path) -> None:
    (folder / "train").rename(folder / "other")
    (folder / "train").mkdir()


def empty_class(folder: Path) -> None:
    for file in (folder / "test" / "b").iterdir():
        file.rename(file.with_suffix(".txt"))


def remove_class(folder: Path) -> None:
    (folder / "train" / "b").rename(folder / "b")


def rename_class(folder: Path) -> None:
    (folder / "test" / "b").rename(folder / "test" / "B")


def spell_class_twice(folder: Path) -> None:
    for part in ("train", "test"):
        for name in ("caf\u00e9", "cafe\u0301"):
            (folder / part / name).mkdir()
            draw(folder / part / name / "0.png", np.random.default_rng(0))


def leave_one_class(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "b").rename(folder / f"{part} b")


def cut_image(folder: Path) -> None:
    file = folder / "train" / "b" / "1.png"
    file.write_bytes(file.read_bytes()[:60])


def write_text(folder: Path) -> None:
    (folder / "test" / "a" / "2.png").write_text("<html>404</html>")


def write_16_bits(folder: Path) -> None:
    Image.fromarray(np.full((4, 5), 60000, np.uint16)).save(folder / "test" / "a" / "2.png")


def write_larger(folder: Path) -> None:
    draw(folder / "test" / "a" / "2.png", np.random.default_rng(0), size=(6, 4))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_test, "images.test is missing: put the images into .*test.<class>"),
        (remove_classes, "images.train holds no classes"),
        (empty_class, "test.b holds no images: add some, or delete the folder"),
        (remove_class, r"images.train lacks the classes \['b'\] of .*images.test"),
        (rename_class, "'B' and 'b' are one class name"),
        (spell_class_twice, r"'cafe\\u0301' and 'caf\\xe9' are one class name"),
        (leave_one_class, r"at least two classes, got \['a'\]"),
        (cut_image, "train.b.1.png does not decode as an image: replace or delete it"),
        (write_text, "test.a.2.png does not decode as an image"),
        (write_16_bits, "test.a.2.png .* more than 8 bits, mode I;16"),
        (write_larger, "a.0.png has 5 x 4 pixels, .*test.a.2.png has 6 x 4"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=words):
        image_folder(folder)


# The decoded form on the disk.


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every decoding."""
    calls: list[int] = []
    decode = folder_module._decode

    def count(files: list[Path], progress: bool | None) -> np.ndarray:
        calls.append(len(files))
        return decode(files, progress)

    monkeypatch.setattr(folder_module, "_decode", count)
    return calls


def kept(root: Path) -> Path:
    (file,) = (root / "decoded").iterdir()
    return file


def test_a_folder_is_decoded_once(folder: Path, decodes: list[int], root: Path) -> None:
    assert same(image_folder(folder), image_folder(folder))
    assert decodes == [12]
    assert kept(root).suffix == ".npz"


def add_image(folder: Path) -> None:
    draw(folder / "test" / "b" / "3.png", np.random.default_rng(5))


def repaint(folder: Path) -> None:
    """Another image of the same size in bytes and the same time of change."""
    file = folder / "test" / "b" / "2.png"
    old = file.stat()
    content = bytearray(file.read_bytes())
    Image.fromarray(np.full((4, 5, 3), 9, np.uint8)).save(file)
    file.write_bytes(file.read_bytes().ljust(len(content), b"\0"))
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)


def rename_image(folder: Path) -> None:
    (folder / "test" / "a" / "0.png").rename(folder / "test" / "a" / "9.png")


@pytest.mark.parametrize("change", [add_image, repaint, rename_image])
def test_a_changed_folder_is_decoded_again_in_place_of_the_old(
    folder: Path, decodes: list[int], root: Path, change: Callable[[Path], None]
) -> None:
    old = image_folder(folder)
    change(folder)
    new = image_folder(folder)
    assert len(decodes) == 2 and not same(old, new)
    kept(root)
    expected = [np.asarray(image).tolist() for image, _ in datasets.ImageFolder(folder / "test")]
    assert new.test.images.permute(0, 2, 3, 1).tolist() == expected


def test_a_copy_of_a_folder_is_a_folder_of_its_own(tmp_path: Path, decodes: list[int]) -> None:
    for name in ("one", "two", "one"):
        image_folder(paint(tmp_path / name))
    assert decodes[:2] == [12, 12]


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("cut", [True, False])
def test_a_damaged_file_of_decoded_images_is_made_anew(
    folder: Path, decodes: list[int], root: Path, place: float, cut: bool
) -> None:
    expected = image_folder(folder)
    content = bytearray(kept(root).read_bytes())
    at = int(place * len(content))
    kept(root).write_bytes(content[:at] if cut else content[:at] + b"????" + content[at + 4 :])
    assert same(image_folder(folder), expected)
    assert same(image_folder(folder), expected)
    assert decodes == [12, 12]


def test_a_full_disk_is_a_warning_and_leaves_no_partial_file(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="decoded cannot keep the decoded images .*No space left"):
        found = image_folder(folder)
    assert len(found.train) == 6
    assert list((root / "decoded").iterdir()) == []


def test_a_root_that_is_no_folder_is_a_warning(folder: Path, root: Path) -> None:
    root.write_text("no folder")
    with pytest.warns(UserWarning, match="the next call decodes them again") as found:
        image_folder(folder)
    assert found[0].filename == __file__


def test_a_bar_is_shown_on_a_terminal_or_if_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    image_folder(folder)
    assert capsys.readouterr().err == ""
    kept(root).unlink()
    image_folder(folder, progress=True)
    assert "decode: 100%" in capsys.readouterr().err
