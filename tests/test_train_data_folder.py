"""`data`: a folder of images, and what is wrong with it."""

import errno
import os
import sys

import numpy as np
import pytest
import torch
from images import draw, paint, same
from PIL import Image
from torchvision import datasets

from lookbehind.train.data import DataError, image_folder, load

PARTS = ("train", "test")
DEEP = Image.fromarray(np.full((4, 5), 60000, np.uint16))


@pytest.fixture
def folder(tmp_path):
    return paint(tmp_path / "images")


def pairs(split):
    images = split.images.permute(0, 2, 3, 1).tolist()
    return zip(images, split.labels.tolist(), strict=True)


def test_a_folder_holds_what_torchvision_reads(folder):
    found = image_folder(folder)
    for part, split, ordered in (("train", found.train, sorted), ("test", found.test, list)):
        expected = [(np.asarray(i).tolist(), c) for i, c in datasets.ImageFolder(folder / part)]
        assert ordered(pairs(split)) == ordered(expected)
    assert found.classes == ("a", "b")
    assert (found.channels, found.size, len(found.validation)) == (3, (4, 5), 0)
    channels = found.train.images.double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(found.test.mean, channels.mean(1).float())
    assert same(load(str(folder), validation=2, seed=1), image_folder(folder, validation=2, seed=1))


def test_grey_images_have_one_channel_unless_one_is_coloured(tmp_path):
    assert image_folder(paint(tmp_path / "grey", mode="L")).channels == 1
    folder = paint(tmp_path / "mixed", 60, mode="L")  # more than a thread decodes at once
    draw(folder / "train/a/0.png", 1, "P")
    images = image_folder(folder).train.images
    assert images.shape[1] == 3
    assert (images[:, 0] == images[:, 2]).flatten(1).all(1).sum() == 119


def test_a_channel_of_one_value_is_not_divided_by_zero(folder):
    for file in folder.rglob("*.png"):
        Image.new("RGB", (5, 4), (7, 0, 0)).save(file)
    images, _ = next(iter(image_folder(folder).train.batches(10)))
    assert torch.equal(images, torch.zeros(6, 3, 4, 5))


def moved(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def linked(name, to):
    def link(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return link


DAMAGES = {
    "images.test is missing: put the images into .*test.<class>": moved("test", "tests"),
    "images.train holds no classes": lambda f: [moved(f"train/{c}", c)(f) for c in "ab"],
    "test.b holds no images: add": lambda f: [(f / f"test/b/{i}.png").unlink() for i in "012"],
    r"images.train lacks the classes \['b'\] of .*images.test": moved("train/b", "b"),
    r"images.test lacks the classes \['b'\] of .*train": moved("test/b", "test/B"),
    r"at least two classes, got \['a'\]": lambda f: [moved(f"{p}/b", p + "b")(f) for p in PARTS],
    "train.b.1.png does not .* replace or": lambda f: os.truncate(f / "train/b/1.png", 60),
    "test.a.2.png does not decode": lambda f: (f / "test/a/2.png").write_text("<html>"),
    "test.b.0.png does not decode .*delete": lambda f: os.truncate(f / "test/b/0.png", 0),
    "test.a.2.png .* more than 8 bits, mode I;16": lambda f: DEEP.save(f / "test/a/2.png"),
    "a.0.png has 5 x 4 .*test.a.2.png has 6 x 4": lambda f: draw(f / "test/a/2.png", size=(6, 4)),
    "train.a.9.png is a link to gone, which leads nowhere": linked("train/a/9.png", "gone"),
    "test.a.more is a link to gone, which leads nowhere": linked("test/a/more", "gone"),
    "test.c is a link to gone, which leads nowhere": linked("test/c", "gone"),
    "test.b.0.png is a link to 0.png, which leads nowhere": linked("test/b/0.png", "0.png"),
    "a.0.png and .*b.more.0.png are one file: an image must have": linked("train/b/more", "../a"),
    "train.a.0.png and .*train.c.0.png are one file": linked("train/c", "a"),
}


@pytest.mark.parametrize("words", DAMAGES)
def test_what_is_wrong_with_a_folder_is_said(folder, words):
    DAMAGES[words](folder)
    with pytest.raises(DataError, match=words):
        image_folder(folder)


def link_to_a_sibling(folder):
    for name in ("all", "zip"):  # one before and one after what it leads to
        (folder / "test/b" / name).symlink_to("more")
    (folder / "test/b/more").mkdir()
    (folder / "test/b/2.png").rename(folder / "test/b/more/2.png")


def link_everything(folder):
    """The images lie elsewhere: a class, a folder in it and a file are links."""
    for name in ("train/a", "test/a/more", "test/b/0.png"):
        here, there = folder / name, folder.with_name("pool") / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if name == "test/a/more":
            there.mkdir()
            (folder / "test/a/0.png").rename(there / "0.png")
        else:
            here.rename(there)
        here.symlink_to(there)


def leave_junk(folder):
    """What systems and editors put into any folder."""
    for part in PARTS:
        for name in (".git", ".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN"):
            for where in (folder / part / name, folder / part / "a" / name):
                where.mkdir()
                draw(where / "0.png", 7)
        (folder / part / "desktop.ini").write_text("[ViewState]")
        for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", ".hidden.png", "a.txt"):
            (folder / part / "b" / name).write_bytes(b"\0\5junk")
        (folder / part / ".broken").symlink_to("nowhere")
        os.mkfifo(folder / part / "a" / "pipe.png")


CHANGES = {
    "a link to itself": linked("train/a/again", "."),  # torchvision reads train/a 41 times
    "a link upwards": linked("train/a/up", ".."),
    "a link to a sibling": link_to_a_sibling,
    "a link to an image": linked("train/b/same.png", "0.png"),
    "links everywhere": link_everything,
    "junk": leave_junk,
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_image_counts_once_and_what_is_hidden_never(folder, change):
    before = image_folder(folder)
    CHANGES[change](folder)
    after = image_folder(folder)
    assert after.classes == ("a", "b") and len(after.train) == len(after.test) == 6
    for one, other in ((before.train, after.train), (before.test, after.test)):
        assert sorted(pairs(one)) == sorted(pairs(other))


def test_what_cannot_be_read_is_said(folder, monkeypatch):
    def refused(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refused)
    with pytest.raises(DataError, match=r"train.a.0.png does not decode .*Permission denied"):
        image_folder(folder)
    names = os.listdir
    monkeypatch.setattr(os, "listdir", lambda p: refused(p) if str(p).endswith("b") else names(p))
    with pytest.raises(DataError, match=r"train.b cannot be read .*Permission denied"):
        image_folder(folder)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_images_are_turned_as_their_exif_says(folder, kind):
    """The 8 orientations of one picture of one colour, with a dark corner."""
    upright = np.full((40, 40, 3), 200, np.uint8)
    upright[:20, :10] = 0
    turned = upright.swapaxes(0, 1)
    saved = [  # how the camera stored it, by the tag from 1 on
        upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1],
        turned, turned[::-1], turned[::-1, ::-1], turned[:, ::-1],
    ]  # fmt: skip
    for mode, file in zip(["L", "RGB"] * 6, [*folder.rglob("*.png")], strict=True):
        for tag, pixels in enumerate(saved, 1):
            exif = Image.Exif()
            exif[0x0112] = tag
            picture = Image.fromarray(np.ascontiguousarray(pixels)).convert(mode)
            picture.save(file.with_name(f"{file.stem} {tag}.{kind}"), exif=exif, quality=95)
        file.unlink()
    images = image_folder(folder).train.images.float()
    assert ((images - torch.tensor(upright).movedim(2, 0)[:1]).abs() < 60).all()


def test_a_bar_is_shown_on_a_terminal_only(folder, capsys, monkeypatch):
    image_folder(folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    image_folder(folder)
    assert "decode: 100%" in capsys.readouterr().err
