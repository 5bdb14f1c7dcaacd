"""Damaged, hostile and mistaken sources: one line, the right code, nothing half-written, nothing run."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import pytest
from test_packed import failure

from relaunch.data_prep import archive
from relaunch.data_prep.recipes import prepare
from rigs.prep_sources import (
    cifar10,
    idx,
    image_folder_files,
    mnist,
    picture,
    python2,
    tiny_imagenet_files,
    tree_of,
    wikitext_files,
    zip_of,
)


def refused(tmp_path, name, source, code=65, **options) -> str:
    line = failure(code, prepare, name, source, root=tmp_path / "out", progress=False, **options)
    assert os.listdir(tmp_path / "out") == []
    return line


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        lambda mark: pickle.dumps(Payload(os.system, f"touch {mark}"), 2),
        lambda mark: pickle.dumps(
            {b"data": Payload(eval, f"open({str(mark)!r}, 'w').close()"), b"labels": []}, 2
        ),
        lambda mark: b"cos\nsystem\n(S'touch %s'\ntR." % str(mark).encode(),
        lambda mark: (
            b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\nS'touch %s'\ntR." % str(mark).encode()
        ),
        lambda mark: (
            b'cnumpy.testing._private.utils\nrunstring\n(S\'open("%s","w").close()\'\n}tR.'
            % str(mark).encode()
        ),
    ],
    ids=["os.system", "eval in data", "protocol 0", "as an argument", "through numpy"],
)
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, payload):
    mark = tmp_path / "was_run"
    content = payload(mark)
    try:  # the payload does work where it is let
        pickle.loads(content, encoding="bytes")
    except Exception:
        pass
    ran = mark.exists()
    mark.unlink(missing_ok=True)
    assert ran or b"numpy" in content
    for batch in ("batches.meta", "data_batch_3"):
        cifar10(tmp_path / "c.tar.gz", **{batch: content})
        assert batch in refused(tmp_path, "cifar10", tmp_path / "c.tar.gz")
    assert not mark.exists()


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": b"not an array", b"labels": [0]},
        {b"labels": [0]},
        [1, 2],
    ],
    ids=["bytes", "no data", "a list"],
)
def test_a_pickle_of_another_shape_is_refused(tmp_path, batch):
    cifar10(tmp_path / "c.tar.gz", data_batch_2=python2(batch))
    assert "data_batch_2" in refused(tmp_path, "cifar10", tmp_path / "c.tar.gz")


def test_labels_outside_the_classes_are_refused(tmp_path):
    import numpy as np

    bad = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}
    cifar10(tmp_path / "c.tar.gz", test_batch=python2(bad))
    assert "outside 0..9" in refused(tmp_path, "cifar10", tmp_path / "c.tar.gz")


@pytest.mark.parametrize("kept", [0, 1, 300, 0.5, 0.9, -1])
def test_truncated_archives(tmp_path, kept):
    cifar10(tmp_path / "c.tar.gz")
    zip_of(tmp_path / "w.zip", wikitext_files())
    mnist(tmp_path / "m")
    for name, file, source in (
        ("cifar10", "c.tar.gz", "c.tar.gz"),
        ("wikitext2", "w.zip", "w.zip"),
        ("mnist", "m/t10k-images-idx3-ubyte.gz", "m"),
    ):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content[: int(len(content) * kept) if 0 < kept < 1 else kept])
        assert file.rpartition("/")[2] in refused(tmp_path, name, tmp_path / source)


def test_a_flipped_bit_inside_an_archive(tmp_path):
    mnist(tmp_path / "m")
    path = tmp_path / "m" / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the CRC
    path.write_bytes(content)
    assert path.name in refused(tmp_path, "mnist", tmp_path / "m")


def test_a_damaged_tar_header_is_not_taken_for_the_end(tmp_path):
    cifar10(tmp_path / "c.tar.gz")
    content = bytearray(gzip.decompress((tmp_path / "c.tar.gz").read_bytes()))
    content[content.rindex(b"cifar-10-batches-py/test_batch")] ^= 1
    (tmp_path / "c.tar").write_bytes(content)
    assert "damaged" in refused(tmp_path, "cifar10", tmp_path / "c.tar")


def test_idx_header_and_bytes_disagree(tmp_path):
    import numpy as np

    mnist(tmp_path / "m", compress=False)
    path = tmp_path / "m" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-784])
    assert "announces 23,520 bytes, 22,736 are there" in refused(tmp_path, "mnist", tmp_path / "m")
    path.write_bytes(idx(np.zeros((29, 28, 28))))
    assert "30 labels but 29 images" in refused(tmp_path, "mnist", tmp_path / "m")
    path.write_bytes(idx(np.zeros(30)))
    assert "not an IDX file of 3" in refused(tmp_path, "mnist", tmp_path / "m")


@pytest.mark.parametrize(
    "name, files, looks",
    [
        ("cifar10", wikitext_files(), "it looks like WikiText-2; run: relaunch prep wikitext2"),
        (
            "wikitext2",
            image_folder_files(),
            "it looks like an image folder; run: relaunch prep NAME --as folder",
        ),
        ("mnist", tiny_imagenet_files(), "it looks like Tiny-ImageNet"),
        ("tiny_imagenet", {"train.txt": "a", "test.txt": "b"}, "it looks like three text files"),
        ("wikitext2", {"readme": "x"}, "it lacks wiki.{train,valid,test}.tokens"),
        ("other", {"readme": "x"}, "no data set that prep knows"),
    ],
)
def test_another_data_set_says_what_it_looks_like(tmp_path, name, files, looks):
    assert looks in refused(tmp_path, name, zip_of(tmp_path / "x.zip", files))


def member(name, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "name", ["/etc/passwd.txt", "../evil.txt", "a/../../evil.txt", "C:evil.txt", "a\\..\\evil.txt"]
)
def test_unsafe_paths(tmp_path, name):
    zip_of(tmp_path / "w.zip", wikitext_files() | {name: "x"})
    assert "unsafe path" in refused(tmp_path, "wikitext2", tmp_path / "w.zip")
    with tarfile.open(tmp_path / "w.tar.gz", "w:gz") as out:
        out.addfile(member(name))
    assert "unsafe path" in refused(tmp_path, "wikitext2", tmp_path / "w.tar.gz")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_archives(tmp_path, kind):
    with tarfile.open(tmp_path / "w.tar", "w") as out:
        out.addfile(member("wiki.train.tokens", type=kind, linkname="/etc/passwd"))
    assert "link or a device" in refused(tmp_path, "wikitext2", tmp_path / "w.tar")
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as out:
        info = zipfile.ZipInfo("wiki.train.tokens")
        info.external_attr = 0o120777 << 16
        out.writestr(info, "/etc/passwd")
    assert "link or a device" in refused(tmp_path, "wikitext2", tmp_path / "w.zip")


def test_compression_bombs_stop_early(tmp_path):
    zeros = bytes(80 << 20)
    zip_of(tmp_path / "w.zip", wikitext_files() | {"wiki.big": zeros})
    with tarfile.open(tmp_path / "w.tar.gz", "w:gz") as out:
        out.addfile(member("wiki.big", size=len(zeros)), io.BytesIO(zeros))
    mnist(tmp_path / "m")
    (tmp_path / "m" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(zeros))
    for name, source in (("wikitext2", "w.zip"), ("wikitext2", "w.tar.gz"), ("mnist", "m")):
        assert "more than 200 times its size" in refused(tmp_path, name, tmp_path / source)


def test_a_huge_extended_header_is_not_read_into_memory(tmp_path):
    header = member("x", type=tarfile.XHDTYPE, size=3 << 30).tobuf()
    (tmp_path / "w.tar.gz").write_bytes(gzip.compress(header + bytes(1 << 20)))
    assert "more than 200 times" in refused(tmp_path, "wikitext2", tmp_path / "w.tar.gz")


def test_too_many_files_and_twice_the_same(tmp_path, monkeypatch):
    with tarfile.open(tmp_path / "w.tar", "w") as out:
        for _ in range(2):
            out.addfile(member("wiki.train.tokens"))
    assert "twice" in refused(tmp_path, "wikitext2", tmp_path / "w.tar")
    monkeypatch.setattr(archive, "MAX_FILES", 2)
    assert "more files or bytes" in refused(
        tmp_path, "wikitext2", zip_of(tmp_path / "w.zip", wikitext_files())
    )


def test_images_that_cannot_be_decoded_are_named(tmp_path):
    files = image_folder_files() | {
        "train/cat/a.png": b"not an image",
        "val/dog/b.jpg": picture(size=(20, 16), format="JPEG")[:-200],
    }
    line = refused(tmp_path, "pets", tree_of(tmp_path / "s", files))
    assert "1 of the images cannot be decoded: train/cat/a.png" in line  # its header is read first
    os.remove(tmp_path / "s" / "train" / "cat" / "a.png")
    assert "val/dog/b.jpg" in refused(tmp_path, "pets", tmp_path / "s")


def test_val_classes_without_train_images(tmp_path):
    files = image_folder_files() | {"val/bird/0.png": picture(size=(20, 16))}
    assert "val/bird" in refused(tmp_path, "pets", tree_of(tmp_path / "s", files))


@pytest.mark.parametrize(
    "change, says",
    [
        (
            lambda files: files.pop("tiny-imagenet-200/val/images/val_3.JPEG"),
            "1 images of val_annotations.txt are missing",
        ),
        (
            lambda files: files.update({"tiny-imagenet-200/val/images/extra.JPEG": b"x"}),
            "val_annotations.txt lacks it",
        ),
        (lambda files: files.update({"tiny-imagenet-200/wnids.txt": "n01\n"}), "n02 is not in wnids.txt"),
    ],
)
def test_tiny_imagenet_lists_and_files_disagree(tmp_path, change, says):
    files = tiny_imagenet_files()
    change(files)
    assert says in refused(tmp_path, "tiny_imagenet", zip_of(tmp_path / "t.zip", files))


def test_text_that_is_not_utf8(tmp_path):
    source = tree_of(tmp_path / "s", {"train.txt": "a\n", "val.txt": b"\xff\xfe"})
    assert "val.txt is not UTF-8" in refused(tmp_path, "book", source)
