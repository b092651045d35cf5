# ruff: noqa: F811
"""`data`: a folder of images, what is wrong with it, and its decoded form on the disk."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from images import root, same  # noqa: F401
from PIL import Image
from torchvision import datasets

from lookbehind.train.data import DataError, Split, image_folder, load
from lookbehind.train.data import folder as folder_module


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


def link_to_itself(folder: Path) -> None:
    """torchvision reads train/a 41 times."""
    (folder / "train" / "a" / "again").symlink_to(".")


def link_upwards(folder: Path) -> None:
    (folder / "train" / "a" / "up").symlink_to("..")


def link_to_a_sibling(folder: Path) -> None:
    for name in ("all", "zip"):  # one before and one after what it leads to
        (folder / "test" / "b" / name).symlink_to("more")
    (folder / "test" / "b" / "more").mkdir()
    (folder / "test" / "b" / "2.png").rename(folder / "test" / "b" / "more" / "2.png")


def link_an_image(folder: Path) -> None:
    (folder / "train" / "b" / "same.png").symlink_to("0.png")


def link_everything(folder: Path) -> None:
    """The images lie elsewhere: a class, a folder in it and a file are links."""
    for name in ("train/a", "test/a/more", "test/b/0.png"):
        here, there = folder / name, folder.with_name("pool") / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if name == "test/a/more":
            there.mkdir()
            (folder / "test" / "a" / "0.png").rename(there / "0.png")
        else:
            here.rename(there)
        here.symlink_to(there)


def leave_junk(folder: Path) -> None:
    """What systems and editors put into any folder."""
    for part in ("train", "test"):
        for name in (".git", ".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN"):
            (folder / part / name).mkdir()
            (folder / part / "a" / name).mkdir()
            for where in (folder / part / name, folder / part / "a" / name):
                draw(where / "0.png", np.random.default_rng(7))
        (folder / part / "desktop.ini").write_text("[ViewState]")
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", ".hidden.png", "a.txt"):
            (folder / part / "b" / name).write_bytes(b"\0\5junk")
        (folder / part / ".broken").symlink_to("nowhere")
        os.mkfifo(folder / part / "a" / "pipe.png")


@pytest.mark.parametrize(
    "change",
    [link_to_itself, link_upwards, link_to_a_sibling, link_an_image, link_everything, leave_junk],
)
def test_every_image_counts_once_and_what_is_hidden_never(
    folder: Path, root: Path, change: Callable[[Path], None]
) -> None:
    before = image_folder(folder)
    change(folder)
    after = image_folder(folder)
    assert after.classes == ("a", "b") and len(after.train) == len(after.test) == 6
    for one, other in ((before.train, after.train), (before.test, after.test)):
        assert images_of(one) == images_of(other)


def images_of(split: Split) -> list[tuple[int, list[int]]]:
    pixels = split.images.flatten(1).tolist()
    return sorted(zip(split.labels.tolist(), pixels, strict=True))


def link_nowhere(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to("gone")


def link_to_another_class(folder: Path) -> None:
    (folder / "train" / "b" / "more").symlink_to("../a")


def one_class_twice(folder: Path) -> None:
    (folder / "train" / "c").symlink_to("a")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (link_nowhere("train/a/9.png"), "train.a.9.png is a link to gone, which leads nowhere"),
        (link_nowhere("test/a/more"), "test.a.more is a link to gone, which leads nowhere"),
        (link_nowhere("test/c"), "test.c is a link to gone, which leads nowhere"),
        (link_to_another_class, "a.0.png and .*b.more.0.png are one file: an image must have one"),
        (one_class_twice, "train.a.0.png and .*train.c.0.png are one file"),
        (lambda f: (f / "test/b/0.png").write_bytes(b""), "test.b.0.png does not decode .*delete"),
        (lambda f: (f / "test/b/0.png").unlink() or (f / "test/b/0.png").symlink_to("0.png"),
         "test.b.0.png is a link to 0.png, which leads nowhere"),
    ],
)  # fmt: skip
def test_a_link_that_leads_astray_is_said(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    with pytest.raises(DataError, match=words):
        image_folder(folder)


def test_what_cannot_be_read_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: object, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", refused)
        with pytest.raises(DataError, match=r"train.a.0.png does not decode .*Permission denied"):
            image_folder(folder)
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda p: refused(p) if str(p).endswith("b") else names(p))
    with pytest.raises(DataError, match=r"train.b cannot be read .*Permission denied"):
        image_folder(folder)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_images_are_turned_as_their_exif_says(folder: Path, kind: str, mode: str) -> None:
    """The 8 orientations of one picture of one colour, with a dark corner."""
    upright = np.full((40, 40, 3), 200, np.uint8)
    upright[:20, :10] = 0
    saved = {  # how the camera stored it, by the tag
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: upright.swapaxes(0, 1)[::-1],
        7: upright.swapaxes(0, 1)[::-1, ::-1], 8: upright.swapaxes(0, 1)[:, ::-1],
    }  # fmt: skip
    for file in folder.rglob("*.png"):
        file.unlink()
    for part in ("train", "test"):
        for name in "ab":
            for tag, pixels in saved.items():
                exif = Image.Exif()
                exif[0x0112] = tag
                picture = Image.fromarray(np.ascontiguousarray(pixels)).convert(mode)
                picture.save(folder / part / name / f"{tag}.{kind}", exif=exif, quality=95)
    images = image_folder(folder).train.images.float()
    assert ((images - torch.tensor(upright).movedim(2, 0)[:1]).abs() < 60).all()


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every decoding."""
    calls: list[int] = []
    decode = folder_module._decode

    def count(files: list[Path]) -> np.ndarray:
        calls.append(len(files))
        return decode(files)

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


def test_a_bar_is_shown_on_a_terminal_only(
    folder: Path, capsys: pytest.CaptureFixture[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_folder(folder)
    assert capsys.readouterr().err == ""
    kept(root).unlink()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    image_folder(folder)
    assert "decode: 100%" in capsys.readouterr().err
