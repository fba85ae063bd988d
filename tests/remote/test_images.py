"""OCI layouts are unpacked as they say, verified and bounded, and nothing of them ever lands outside."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervm_rt.errors import LoadError
from supervm_rt.transports.remote.images import Image, Layout, split_reference
from tests.remote.images import Entry, entry, layer, layout


def unpack(folder: Path, tag: str | None = None, most_bytes: int = 1 << 20) -> Image:
    target = folder.parent / f"unpacked-{len(list(folder.parent.glob('unpacked-*')))}"
    target.mkdir()
    return Layout(folder, tag).unpack(target, most_bytes=most_bytes)


def files(image: Image) -> dict[str, str]:
    found = {}
    for path in sorted(image.root.rglob("*")):
        name = str(path.relative_to(image.root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "/"
    return found


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_layers_lie_upon_one_another(tmp_path: Path, zipped: bool, nested: bool) -> None:
    first = layer(
        entry("bin", kind=tarfile.DIRTYPE, mode=0o755),
        entry("bin/plugin", b"old", mode=0o4755),
        entry("etc/gone", b"x"),
        entry("etc/kept", b"kept"),
        entry("opaque/before", b"x"),
        entry("lib", kind=tarfile.SYMTYPE, link="usr/lib"),
        entry("usr/lib/a.so", b"a"),
        entry("same", kind=tarfile.LNKTYPE, link="etc/kept"),
    )
    second = layer(
        entry("bin/plugin", b"new", mode=0o755),
        entry("etc/.wh.gone", b""),
        entry("opaque/after", b"after"),
        entry("opaque/.wh..wh..opq", b""),
        entry("lib/b.so", b"b"),
        entry("./dotted//name", b"d"),
    )
    config = {"Entrypoint": ["/bin/plugin"], "Cmd": ["--fast"], "Env": ["A=1", "B=x=y", "broken"], "WorkingDir": "work"}
    image = unpack(layout(tmp_path / "image", [first, second], zipped=zipped, nested=nested, config=config))
    assert files(image) == {
        "bin": "/",
        "bin/plugin": "new",
        "dotted": "/",
        "dotted/name": "d",
        "etc": "/",
        "etc/kept": "kept",
        "lib": "-> usr/lib",
        "opaque": "/",
        "opaque/after": "after",
        "same": "kept",
        "usr": "/",
        "usr/lib": "/",
        "usr/lib/a.so": "a",
        "usr/lib/b.so": "b",
    }
    assert (image.command, image.environment, image.folder) == (("/bin/plugin", "--fast"), (("A", "1"), ("B", "x=y")), "/work")
    assert stat.S_IMODE((image.root / "bin/plugin").stat().st_mode) == 0o555
    assert not (image.root.parent / "contents").exists()


@pytest.mark.parametrize("first", [True, False])
def test_a_whiteout_is_about_the_layers_below_wherever_it_stands(tmp_path: Path, first: bool) -> None:
    """A layer is a set of changes: what it puts in itself stays, what lay below goes, whatever comes first."""
    lower = layer(
        entry("opaque/old", b"old"),
        entry("opaque/below/old", b"old"),
        entry("kept/gone", b"gone"),
        entry("replaced", b"file"),
        entry("folder/old", b"old"),
        entry("again/old", b"old"),
    )
    whiteouts = [
        entry("opaque/.wh..wh..opq", b""),
        entry("kept/.wh.gone", b""),
        entry("folder/.wh.old", b""),
        entry(".wh.replaced", b""),
        entry(".wh.again", b""),
    ]
    added = [
        entry("opaque/made/by/the/way", b"new"),
        entry("opaque/below/new", b"new"),
        entry("replaced", b"new"),
        entry("folder", kind=tarfile.DIRTYPE, mode=0o755),
        entry("folder/new", b"new"),
        entry("again", kind=tarfile.DIRTYPE, mode=0o755),
        entry("again/new", b"new"),
    ]
    upper = layer(*(whiteouts + added if first else added + whiteouts))
    found = files(unpack(layout(tmp_path / "image", [lower, upper])))
    assert {name: text for name, text in found.items() if text != "/"} == {
        "opaque/made/by/the/way": "new",
        "opaque/below/new": "new",
        "replaced": "new",
        "folder/new": "new",
        "again/new": "new",
    }


def test_a_further_name_of_a_file_below_does_not_keep_the_first(tmp_path: Path) -> None:
    lower = layer(entry("first", b"same"), entry("opaque/first", b"same"))
    upper = layer(
        entry("second", kind=tarfile.LNKTYPE, link="first"),
        entry(".wh.first", b""),
        entry("opaque/second", kind=tarfile.LNKTYPE, link="opaque/first"),
        entry("opaque/.wh..wh..opq", b""),
    )
    found = files(unpack(layout(tmp_path / "image", [lower, upper])))
    assert found == {"second": "same", "opaque": "/", "opaque/second": "same"}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([entry("../out", b"x")], "leads out of the image"),
        ([entry("a/../../out", b"x")], "leads out of the image"),
        ([entry("dev/null", kind=tarfile.CHRTYPE)], "neither file, folder nor link"),
        ([entry("pipe", kind=tarfile.FIFOTYPE)], "neither file, folder nor link"),
        ([entry("a", kind=tarfile.LNKTYPE, link="/etc/passwd")], "a link to what is no file"),
        ([entry("a", kind=tarfile.LNKTYPE, link="../../etc/passwd")], "leads out of the image"),
        ([entry("a", b"x"), entry("a/b", b"x")], "is not a folder"),
        (
            [entry("a", kind=tarfile.SYMTYPE, link="b"), entry("b", kind=tarfile.SYMTYPE, link="a"), entry("a/c", b"x")],
            "links lead in a circle",
        ),
        ([entry("n" * 300, b"x")], "leads out of the image"),
    ],
)
def test_what_no_image_may_hold(tmp_path: Path, members: list[Entry], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        unpack(layout(tmp_path / "image", [layer(*members)]))


@pytest.mark.parametrize("link", ["/etc", "../../../../../../etc", "/", "..", "../.."])
def test_a_link_leads_nowhere_outside_while_it_is_unpacked(tmp_path: Path, link: str) -> None:
    """The file lands where the link leads inside of the image, whatever it leads to outside."""
    hostile = layer(entry("way", kind=tarfile.SYMTYPE, link=link), entry("way/supervm-test-file", b"x"))
    image = unpack(layout(tmp_path / "image", [hostile]))
    found = [path for path in image.root.rglob("supervm-test-file") if not path.is_symlink()]
    assert len(found) == 1
    assert not Path("/etc/supervm-test-file").exists()
    assert not Path("/supervm-test-file").exists()


def test_an_absolute_name_is_one_inside(tmp_path: Path) -> None:
    image = unpack(layout(tmp_path / "image", [layer(entry("/etc/name", b"x"))]))
    assert files(image) == {"etc": "/", "etc/name": "x"}


def test_a_changed_blob_is_refused(tmp_path: Path) -> None:
    folder = layout(tmp_path / "image", [layer(entry("a", b"x"))], zipped=False)
    largest = max((folder / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.write_bytes(data)
    with pytest.raises(LoadError, match="has another digest"):
        unpack(folder)


@pytest.mark.parametrize("place", ["oci-layout", "index.json"])
def test_a_layout_that_is_not_whole(tmp_path: Path, place: str) -> None:
    folder = layout(tmp_path / "image", [layer(entry("a", b"x"))])
    (folder / place).unlink()
    with pytest.raises(LoadError, match=f"{place} cannot be read"):
        unpack(folder)
    (folder / place).write_text("[")
    with pytest.raises(LoadError, match=f"{place} is not JSON"):
        unpack(folder)
    os.mkfifo(folder / "fifo")
    (folder / place).unlink()
    (folder / "fifo").rename(folder / place)
    with pytest.raises(LoadError, match=f"{place} is not a file"):
        unpack(folder)


def test_a_digest_names_no_path(tmp_path: Path) -> None:
    folder = layout(tmp_path / "image", [layer(entry("a", b"x"))])
    index = folder / "index.json"
    index.write_text(index.read_text().replace("sha256:", "sha256:../"))
    with pytest.raises(LoadError, match="is no SHA-256 digest"):
        unpack(folder)


def test_what_unpacks_to_more_than_it_may(tmp_path: Path) -> None:
    bomb = layout(tmp_path / "image", [layer(entry("zeros", bytes(4 << 20)))])
    assert sum(path.stat().st_size for path in (bomb / "blobs/sha256").iterdir()) < 1 << 16
    with pytest.raises(LoadError, match="larger than it may be"):
        unpack(bomb, most_bytes=1 << 20)
    assert unpack(bomb, most_bytes=5 << 20).command


def sparse(size: int) -> bytes:
    """A layer with one file that is all hole, in the old form of GNU tar."""
    header = bytearray(entry("hole", kind=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    number = b"%011o\0" % size
    header[386:398], header[398:410], header[483:495] = number, b"%011o\0" % 0, number
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + bytes(1024)


def sparse_by_attributes(size: int) -> bytes:
    """The same in the newer form, whose map comes before the contents."""
    member = entry("hole", f"1\n{size}\n0\n".encode().ljust(512, b"\0"))
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(size)}
    return layer(member)


@pytest.mark.parametrize("made", [sparse, sparse_by_attributes])
def test_holes_are_no_way_to_write_more_than_is_there(tmp_path: Path, made: Callable[[int], bytes]) -> None:
    with pytest.raises(LoadError, match="a file with holes"):
        unpack(layout(tmp_path / "image", [made(8 << 20)]), most_bytes=1 << 20)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_what_precedes_a_member_is_bounded(tmp_path: Path, kind: bytes) -> None:
    """It is taken into memory as a whole."""
    hostile = layer(entry("name", bytes(1 << 20), kind=kind), entry("a", b"x"))
    with pytest.raises(LoadError, match="before a file"):
        unpack(layout(tmp_path / "image", [hostile]), most_bytes=8 << 20)


def test_attributes_for_all_files_do_not_pile_up(tmp_path: Path) -> None:
    said = [f"{number:04}" for number in range(500)]
    hostile = layer(
        *(each for key in said for each in (entry("all", f"13 {key}=1234\n".encode(), kind=tarfile.XGLTYPE), entry(key)))
    )
    with pytest.raises(LoadError, match="attributes for all files"):
        unpack(layout(tmp_path / "image", [hostile]))


def record(name: str, value: bytes) -> bytes:
    """One attribute as a layer holds it."""
    rest = f" {name}=".encode() + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    return str(length).encode() + rest


def test_attributes_say_what_a_header_cannot(tmp_path: Path) -> None:
    """Also a size, behind which the next file begins, and bytes that are no text."""
    sized = entry("sized", b"x" * 600)
    attributes = record("path", b"\xc3\xa9/" + b"long" * 60) + record("size", b"600") + record("user.any", b"\xff")
    whole = entry("of", attributes, kind=tarfile.XHDTYPE)
    found = unpack(layout(tmp_path / "image", [layer(whole, sized, entry("next", b"n"))]))
    assert files(found) == {"\u00e9": "/", "\u00e9/" + "long" * 60: "x" * 600, "next": "n"}


@pytest.mark.parametrize(
    "data",
    [b"99 a=b\n", b"0 a=b\n", b"6 a=b\n7", b"a=b\n", b"5 ab\n", b"1" * 60_000, b"6 a=b\n2 a=b\n", b"\xb2 a=b\n"],
)
def test_attributes_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(LoadError, match="attributes that are none"):
        unpack(layout(tmp_path / "image", [layer(entry("of", data, kind=tarfile.XHDTYPE), entry("a", b"x"))]))


def test_attributes_of_one_file_are_bounded(tmp_path: Path) -> None:
    data = b"".join(record(f"user.{number}", b"x") for number in range(100))
    with pytest.raises(LoadError, match="more than 64 attributes for a file"):
        unpack(layout(tmp_path / "image", [layer(entry("of", data, kind=tarfile.XHDTYPE), entry("a", b"x"))]))


def test_attributes_take_a_time_of_their_length(tmp_path: Path) -> None:
    """A search that goes back for each digit of a long number takes seconds for each header, in which nothing can end it."""
    digits = entry("of", record("a", b"1" * 65_000), kind=tarfile.XHDTYPE)
    folder = layout(tmp_path / "image", [layer(*(each for number in range(10) for each in (digits, entry(f"{number}", b"x"))))])
    (tmp_path / "unpacked").mkdir()
    until = time.monotonic() + 10

    def deadline() -> None:
        assert time.monotonic() < until

    assert Layout(folder, None).unpack(tmp_path / "unpacked", most_bytes=8 << 20, check=deadline).files == 10


@pytest.mark.parametrize("behind", [gzip.compress(b"", mtime=0) * 200_000, bytes(4 << 20)], ids=["empty members", "zeros"])
def test_what_is_decompressed_to_nothing_can_be_ended(tmp_path: Path, behind: bytes) -> None:
    """One read goes through all of it."""
    zipped = gzip.compress(layer(entry("a", b"x")), mtime=0)
    folder = layout(tmp_path / "image", [zipped + behind], compressed=True)
    (tmp_path / "unpacked").mkdir()
    asked = 0

    def end() -> None:
        nonlocal asked
        asked += 1
        if asked > 50:
            raise LookupError

    with pytest.raises(LookupError):
        Layout(folder, None).unpack(tmp_path / "unpacked", most_bytes=8 << 20, check=end)


def test_attributes_of_attributes_without_end(tmp_path: Path) -> None:
    hostile = layer(*(entry("of", b"9 a=bcd\n", kind=tarfile.XHDTYPE) for _ in range(2_000)))
    with pytest.raises(LoadError, match="a layer is broken"):
        unpack(layout(tmp_path / "image", [hostile]), most_bytes=8 << 20)


def test_folders_that_nobody_lists_count(tmp_path: Path) -> None:
    below = "/".join("a" * 100)
    hostile = layer(*(entry(f"{number}/{below}/file") for number in range(2_100)))
    with pytest.raises(LoadError, match="more than 200000 files"):
        unpack(layout(tmp_path / "image", [hostile]), most_bytes=8 << 20)


@pytest.mark.parametrize("steps", [1_900, 100])
def test_folders_in_folders_without_end(tmp_path: Path, steps: int) -> None:
    """Also those that are named by way of a link to others."""
    below = "/".join("a" * steps)
    members = [entry(f"{below}/file"), entry("way", kind=tarfile.SYMTYPE, link=below), entry(f"way/{below}/file")]
    with pytest.raises(LoadError, match="too deep"):
        unpack(layout(tmp_path / "image", [layer(*members)]))


def test_tags_choose(tmp_path: Path) -> None:
    folder = layout(tmp_path / "image", [layer(entry("one", b"x"))], tag="1.0")
    layout(folder, [layer(entry("two", b"x"))], tag="2.0")
    assert files(unpack(folder, "2.0")) == {"two": "x"}
    with pytest.raises(LoadError, match="holds 2 such images"):
        unpack(folder)
    with pytest.raises(LoadError, match="holds 0 such images"):
        unpack(folder, "3.0")
    assert split_reference("../images/node:2.0") == ("../images/node", "2.0")
    assert split_reference("../images/node") == ("../images/node", None)
