"""What was acknowledged of an unfinished message is there after a crash, whole pieces of it and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.store.drafts import Draft, Drafts, LeftDraft, _record

REMOTE = "10.1.1.1:5000"
PIECES = [b"H|\\^&|||analyser\r", b"P|1\r", b"O|1|4711||^^^GLU\r", b"R|1|^^^GLU|5.4|mmol/L\r", b"L|1\r"]


@dataclass
class Platter:
    """A disk that is told what to do with the next syncs: they work, wait, or fail; files are real."""

    refusal: int | None = None
    on_folders: bool = False
    syncs: int = 0
    asked: threading.Event = field(default_factory=threading.Event)
    flowing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.flowing.set()

    def sync(self, descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        self.asked.set()
        self.flowing.wait()
        if self.refusal is not None and is_folder is self.on_folders:
            raise OSError(self.refusal, os.strerror(self.refusal))
        os.fsync(descriptor)
        self.syncs += 1


@pytest.fixture
def platter() -> Platter:
    return Platter()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "drafts"


@pytest.fixture
async def drafts(folder: Path, platter: Platter) -> AsyncIterator[Drafts]:
    it = Drafts(folder, sync=platter.sync)
    yield it
    platter.flowing.set()
    await it.close()


async def add(draft: Draft, piece: bytes) -> bool:
    """Whether it was kept."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    draft.add(piece, told.set_result)
    async with asyncio.timeout(5):
        return await told


async def write(drafts: Drafts, *pieces: bytes, channel: str = "lab") -> Draft:
    draft = drafts.begin(channel, REMOTE)
    for piece in pieces:
        assert await add(draft, piece)
    return draft


async def gone(path: Path, drafts: Drafts) -> bool:
    """Whether there is no such file once the disk has done what it was given."""
    assert await add(drafts.begin("other", ""), b"behind it")
    return not path.exists()


async def next_start(folder: Path) -> list[LeftDraft]:
    """What the next process finds, once it has cleared away what is worth nothing."""
    drafts = Drafts(folder)
    found = drafts.leftovers()
    await drafts.close()
    return found


# ---- what is kept


async def test_nothing_is_made_before_the_first_piece(drafts: Drafts, folder: Path) -> None:
    draft = drafts.begin("lab", REMOTE)
    assert not folder.exists()
    assert await next_start(folder) == []
    assert await add(draft, PIECES[0])
    assert [left.name for left in await next_start(folder)] == [draft.name]


async def test_what_was_kept_is_found_by_the_next_process(drafts: Drafts, folder: Path) -> None:
    first = await write(drafts, *PIECES)
    second = await write(drafts, b"", b"\0\0\0\0", channel="wärd 3")
    found = await next_start(folder)
    assert [(left.name, left.channel, left.remote, left.message) for left in found] == [
        (first.name, "lab", REMOTE, b"".join(PIECES)),
        (second.name, "wärd 3", REMOTE, b"\0\0\0\0"),
    ]


async def test_what_this_process_writes_is_no_leftover_of_its_own(drafts: Drafts, folder: Path) -> None:
    earlier = Drafts(folder)
    left = await write(earlier, b"old")
    await earlier.close()
    await write(drafts, b"new")
    assert [one.name for one in drafts.leftovers()] == [left.name]


async def test_leftovers_come_oldest_first_and_no_name_comes_twice(drafts: Drafts, folder: Path) -> None:
    names = [(await write(drafts, b"piece")).name for _ in range(50)]
    assert [left.name for left in await next_start(folder)] == names
    assert len(set(names)) == 50
    assert all(name.isalnum() and name.isascii() for name in names)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes; the folder's rights count there")
async def test_nobody_else_can_read_them(drafts: Drafts, folder: Path) -> None:
    before = os.umask(0o022)
    try:
        await write(drafts, *PIECES)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


async def test_no_piece_is_kept_before_the_disk_has_synced_it(drafts: Drafts, platter: Platter) -> None:
    draft = await write(drafts, PIECES[0])
    platter.flowing.clear()
    platter.asked.clear()
    told: list[bool] = []
    draft.add(PIECES[1], told.append)
    assert await asyncio.to_thread(platter.asked.wait, 5)
    assert told == []
    platter.flowing.set()
    assert await add(draft, PIECES[2])
    assert told == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")
async def test_the_name_of_a_new_file_is_synced_as_well_as_its_content(drafts: Drafts, platter: Platter) -> None:
    draft = drafts.begin("lab", REMOTE)
    assert await add(draft, PIECES[0])
    assert platter.syncs == 3  # the folder's name, the file, the file's name
    assert await add(draft, PIECES[1])
    assert platter.syncs == 4


def test_a_kill_costs_nothing_that_was_kept(folder: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from agent.store.drafts import Drafts\n"
        "async def main():\n"
        "    draft, number, turn = Drafts(Path(sys.argv[1])).begin('lab', ''), 0, asyncio.Event()\n"
        "    while True:\n"
        "        draft.add(b'%d,' % number, lambda kept: (sys.stdout.write(f'{number}\\n'), turn.set()))\n"
        "        await turn.wait()\n"
        "        turn.clear()\n"
        "        sys.stdout.flush()\n"
        "        number += 1\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        told += [int(line) for line in process.stdout]
    (left,) = Drafts(folder).leftovers()
    numbers = [int(number) for number in left.message.rstrip(b",").split(b",")]
    assert numbers == list(range(len(numbers)))
    assert len(told) <= len(numbers) <= len(told) + 1


# ---- a disk that refuses


@pytest.mark.parametrize("cause", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("kept_before", [0, 2])
async def test_a_piece_that_the_disk_refused_is_in_no_later_message(
    drafts: Drafts, folder: Path, platter: Platter, cause: int, kept_before: int
) -> None:
    """Its bytes were written, and only the sync failed; the sender repeats what it was denied."""
    draft = await write(drafts, *PIECES[:kept_before])
    platter.refusal = cause
    assert [await add(draft, b"long and denied " * 40), await add(draft, b"denied")] == [False, False]
    platter.refusal = None
    for piece in PIECES[kept_before:]:
        assert await add(draft, piece)
    assert [left.message for left in await next_start(folder)] == [b"".join(PIECES)]
    assert b"denied" not in (folder / f"{draft.name}.draft").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")
async def test_a_file_whose_name_is_not_on_the_platter_keeps_nothing(
    drafts: Drafts, folder: Path, platter: Platter
) -> None:
    folder.mkdir(parents=True)
    platter.refusal, platter.on_folders = errno.EIO, True
    draft = drafts.begin("lab", REMOTE)
    assert not await add(draft, PIECES[0])
    platter.refusal = None
    assert await add(draft, PIECES[0])
    assert [left.message for left in await next_start(folder)] == [PIECES[0]]


async def test_a_folder_that_cannot_be_made_is_a_no_and_nothing_worse(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    drafts = Drafts(tmp_path / "file" / "drafts")
    draft = drafts.begin("lab", REMOTE)
    assert [await add(draft, piece) for piece in PIECES] == [False] * len(PIECES)
    assert drafts.leftovers() == []
    draft.discard()
    await drafts.close()


async def test_a_draft_whose_file_was_taken_away_says_no_from_then_on(drafts: Drafts, folder: Path) -> None:
    draft, other = await write(drafts, *PIECES), await write(drafts, *PIECES)
    shutil.rmtree(folder)
    assert [await add(draft, b"more"), await add(other, b"more")] == [False, False]
    await write(drafts, b"a new one")
    assert [left.message for left in await next_start(folder)] == [b"a new one"]


async def test_a_draft_whose_file_became_shorter_says_no(drafts: Drafts, folder: Path) -> None:
    draft = await write(drafts, *PIECES)
    os.truncate(folder / f"{draft.name}.draft", 60)
    assert not await add(draft, b"more")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_disk_that_takes_half_of_a_piece_has_taken_none_of_it(folder: Path) -> None:
    code = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from agent.store.drafts import Drafts\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "async def add(draft, piece):\n"
        "    told = asyncio.get_running_loop().create_future()\n"
        "    draft.add(piece, told.set_result)\n"
        "    return await told\n"
        "async def main():\n"
        "    draft = Drafts(Path(sys.argv[1])).begin('lab', '')\n"
        "    told = [await add(draft, piece) for piece in (b'a' * 500, b'b' * 500, b'c' * 100)]\n"
        "    assert told == [True, False, True], told\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=20)
    assert [left.message for left in Drafts(folder).leftovers()] == [b"a" * 500 + b"c" * 100]


# ---- the end


async def test_what_was_discarded_leaves_nothing(drafts: Drafts, folder: Path) -> None:
    draft = await write(drafts, *PIECES)
    draft.discard()
    draft.discard()
    assert await gone(folder / f"{draft.name}.draft", drafts)
    assert not await add(draft, b"late")
    assert not (folder / f"{draft.name}.draft").exists()


async def test_a_piece_on_its_way_when_the_draft_is_discarded_brings_no_file_back(drafts: Drafts, folder: Path) -> None:
    draft = drafts.begin("lab", REMOTE)
    told: list[bool] = []
    draft.add(PIECES[0], told.append)
    draft.discard()
    assert await gone(folder / f"{draft.name}.draft", drafts)
    assert told == [True]


async def test_a_draft_without_a_piece_can_be_discarded(drafts: Drafts, folder: Path) -> None:
    draft = drafts.begin("lab", REMOTE)
    draft.discard()
    assert await gone(folder / f"{draft.name}.draft", drafts)
    assert not await add(draft, PIECES[0])
    assert await gone(folder / f"{draft.name}.draft", drafts)


async def test_a_leftover_is_there_until_it_is_discarded(drafts: Drafts, folder: Path) -> None:
    earlier = Drafts(folder)
    await write(earlier, b"one")
    await write(earlier, b"two")
    await earlier.close()
    for left in drafts.leftovers()[:1]:
        drafts.discard(left)
        assert await gone(left.path, drafts)
    assert [left.message for left in drafts.leftovers()] == [b"two"]


async def test_after_the_end_nothing_is_kept_and_nothing_deleted(folder: Path) -> None:
    drafts = Drafts(folder)
    draft = await write(drafts, *PIECES)
    told: list[bool] = []
    draft.add(b"more", told.append)
    await drafts.close()
    assert told == [True]
    assert not await add(draft, b"too late")
    draft.discard()
    await drafts.close()
    assert [left.message for left in await next_start(folder)] == [b"".join(PIECES) + b"more"]


async def test_the_end_does_not_wait_for_a_disk_that_hangs(folder: Path, platter: Platter) -> None:
    drafts = Drafts(folder, sync=platter.sync, close_within_s=0.05)
    platter.flowing.clear()
    told: list[bool] = []
    drafts.begin("lab", REMOTE).add(PIECES[0], told.append)
    async with asyncio.timeout(5):
        await drafts.close()
    assert told == []
    platter.flowing.set()


# ---- files that power loss, or a bad disk, has left


@given(pieces=st.lists(st.binary(max_size=40), max_size=6), cut=st.integers(min_value=0))
async def test_a_file_cut_at_any_byte_holds_a_prefix_of_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    drafts = Drafts(folder)
    draft = await write(drafts, b"first", *pieces)
    await drafts.close()
    path = folder / f"{draft.name}.draft"
    size = path.stat().st_size
    cut %= size + 1
    ends = [size - sum(len(piece) + 8 for piece in pieces[n:]) for n in range(len(pieces) + 1)]
    os.truncate(path, cut)

    whole = sum(end <= cut for end in ends)
    found = [left.message for left in await next_start(folder)]
    assert found == ([b"first" + b"".join(pieces[: whole - 1])] if whole else [])
    shutil.rmtree(folder)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6),
    where=st.integers(min_value=0),
    flip=st.integers(1, 255),
)
async def test_of_a_file_with_a_byte_that_changed_nothing_behind_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], where: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("rot")
    drafts = Drafts(folder)
    draft = await write(drafts, *pieces)
    await drafts.close()
    path = folder / f"{draft.name}.draft"
    content = bytearray(path.read_bytes())
    where %= len(content)
    content[where] ^= flip
    path.write_bytes(content)

    beginnings = {b"".join(pieces[:n]) for n in range(len(pieces))}
    assert {left.message for left in await next_start(folder)} <= beginnings
    shutil.rmtree(folder)


async def test_a_piece_counts_only_behind_those_that_came_before_it(drafts: Drafts, folder: Path) -> None:
    """A disk that lost a block in the middle, or gave an old one back, has whole pieces in the wrong order."""
    one, two, three = b"R|1|5.4\r", b"R|2|6.4\r", b"R|3|7.4\r"
    draft = await write(drafts, one, two, three)
    path = folder / f"{draft.name}.draft"
    size, record = path.stat().st_size, len(one) + 8
    content = path.read_bytes()
    head, records = content[: size - 3 * record], [content[size - n * record :][:record] for n in (3, 2, 1)]
    for order, left in (
        ((0, 1, 2), one + two + three),
        ((0, 2), one),
        ((0, 2, 1), one),
        ((0, 0, 1), one),
        ((1, 2), b""),
    ):
        path.write_bytes(head + b"".join(records[n] for n in order))
        assert [found.message for found in await next_start(folder)] == ([left] if left else [])


@given(content=st.binary(max_size=200), begins=st.booleans())
def test_any_file_at_all_can_be_met(tmp_path_factory: pytest.TempPathFactory, content: bytes, begins: bool) -> None:
    folder = tmp_path_factory.mktemp("any")
    found = b"agent draft 1\n" + content if begins else content
    (folder / "x.draft").write_bytes(found)
    drafts = Drafts(folder)
    if not found.strip(b"\0"):
        return  # nothing was ever in it
    assert drafts.leftovers() == []
    assert [unread.path for unread in drafts.unread] == [folder / "x.bad"]
    assert (folder / "x.bad").read_bytes() == found


async def test_what_cannot_be_understood_is_set_aside_beside_the_last_one(drafts: Drafts, folder: Path) -> None:
    folder.mkdir(parents=True)
    for content in (b"agent draft 9\nfrom the future", b"nothing of ours", b"again"):
        (folder / "one.draft").write_bytes(content)
        assert drafts.leftovers() == []
        assert len(drafts.unread) == 1
        assert "one" not in drafts.unread[0].reason
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "one.bad": b"agent draft 9\nfrom the future", "one-2.bad": b"nothing of ours", "one-3.bad": b"again",
    }  # fmt: skip
    assert drafts.leftovers() == []
    assert drafts.unread == []


async def test_a_head_that_is_whole_and_says_something_else_is_set_aside_too(drafts: Drafts, folder: Path) -> None:
    draft = await write(drafts, *PIECES)
    path = folder / f"{draft.name}.draft"
    for head in (b"[]", b"{}", b'{"name":1,"channel":"a","remote":""}', b"\xff"):
        path.write_bytes(b"agent draft 1\n" + _record(head, 0)[0])
        assert await next_start(folder) == []
        assert not path.exists()


@pytest.mark.parametrize("content", [b"", bytes(300)])
async def test_a_file_that_was_never_filled_is_no_loss_and_goes(drafts: Drafts, folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True)
    path = folder / "empty.draft"
    path.write_bytes(content)
    assert (drafts.leftovers(), drafts.unread) == ([], [])
    assert await gone(path, drafts)


async def test_a_file_that_the_disk_does_not_give_stays_and_is_named(drafts: Drafts, folder: Path) -> None:
    left = folder / "unreadable.draft"
    left.mkdir(parents=True)  # reading it fails
    assert drafts.leftovers() == []
    assert [unread.path for unread in drafts.unread] == [left]
    assert left.exists()


async def test_other_files_of_the_folder_are_nobody_s_drafts(drafts: Drafts, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "old.bad").write_bytes(b"set aside")
    (folder / "README").write_bytes(b"for people")
    assert (drafts.leftovers(), drafts.unread) == ([], [])
