"""``tail``: what it prints, where it goes on, how it ends, what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import IO, Any

import pytest

from supervm_rt.store import Store
from tests.cli.support import command, mirror_sample, supervm
from tests.feed.support import busy_inputs, log_of
from tests.store.support import CHAIN, PLUGIN, dev_mirror, fill

Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "store.db"
    assert mirror_sample(path).status == 0
    return path


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    path = tmp_path / "growing.db"
    fill(path, busy_inputs(4, 30))
    return path


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def start(processes: list[Process], *arguments: object, output: Any = subprocess.PIPE) -> Process:
    process = subprocess.Popen(command("tail", *arguments), stdout=output, stderr=subprocess.STDOUT, text=True)
    processes.append(process)
    return process


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def unread(pipe: IO[str]) -> int:
    """Bytes that a pipe holds."""
    return int(struct.unpack("i", fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)))[0])


def events_of(store: Path, chain: str = "bitcoin") -> list[Any]:
    return supervm("chain", "events", chain, "--store", store, "--json").lines()


def short(lines: list[Any]) -> list[Any]:
    return [{key: line[key] for key in ("sequence", "step", "hash", "height")} for line in lines]


def test_from_the_start_it_prints_the_log(sample: Path) -> None:
    ran = supervm("tail", "bitcoin", "--store", sample, "--from-start", "--json")
    assert (ran.status, ran.err) == (0, "")
    assert short(ran.lines()) == events_of(sample)
    text = supervm("tail", "bitcoin", "--store", sample, "--from-start")
    assert text.out == supervm("chain", "events", "bitcoin", "--store", sample).out


def test_alone_it_prints_the_last_ten(sample: Path) -> None:
    assert short(supervm("tail", "bitcoin", "--store", sample, "--json").lines()) == events_of(sample)[-10:]


def test_a_cursor_a_height_and_final_blocks(sample: Path) -> None:
    log = events_of(sample)
    lines = supervm("tail", "bitcoin", "--store", sample, "--from-start", "--json").lines()
    for place in (100, len(lines) - 2):
        rest = supervm("tail", "bitcoin", "--store", sample, "--json", "--cursor", lines[place]["cursor"])
        assert short(rest.lines()) == log[place + 1 :]
    high = supervm("tail", "bitcoin", "--store", sample, "--json", "--from", 300).lines()
    assert {line["height"] for line in high} == set(range(300, 313))
    final = supervm("tail", "bitcoin", "--store", sample, "--json", "--from-start", "--final-only").lines()
    assert short(final) == [line for line in log if line["step"] == "final"]


def test_an_address_is_followed(sample: Path) -> None:
    block = supervm("chain", "block", "bitcoin", "150", "--store", sample, "--json").json()
    transaction = supervm("chain", "tx", "bitcoin", block["transactions"][0], "--store", sample, "--json").json()
    address = next(output["address"] for output in transaction["outputs"] if output["address"])
    lines = supervm("tail", "bitcoin", "--store", sample, "--json", "--from-start", "--address", address).lines()
    assert {line["height"] for line in lines} >= {150}
    for line in lines:
        assert line["transactions"]
    by_id = supervm("tail", "bitcoin", "--store", sample, "--json", "--from-start", "--tx", transaction["txHash"]).lines()
    assert [found["txHash"] for line in by_id for found in line["transactions"]] == [transaction["txHash"]] * len(by_id) != []


def test_the_state_file_goes_on_and_is_whole(growing: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    printed = []
    inputs = busy_inputs(4, 200)
    for at in range(30, 200, 90):
        printed += supervm("tail", CHAIN, "--store", growing, "--state", state, "--json").lines()
        assert state.read_text().strip() == printed[-1]["cursor"]
        with Store.open(growing) as store:
            dev_mirror(store).apply(PLUGIN, inputs[at : at + 90])
    printed += supervm("tail", CHAIN, "--store", growing, "--state", state, "--json").lines()
    assert short(printed) == events_of(growing, CHAIN)
    assert list(tmp_path.glob(".state*")) == []


def test_a_filter_that_drops_all_still_moves_the_state(sample: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    ran = supervm("tail", "bitcoin", "--store", sample, "--state", state, "--script", "6a6a")
    assert (ran.status, ran.out) == (0, "")
    rest = supervm("tail", "bitcoin", "--store", sample, "--cursor", state.read_text().strip())
    assert (rest.status, rest.out) == (0, "")


def test_killed_again_and_again_it_leaves_nothing_out(growing: Path, tmp_path: Path, processes: list[Process]) -> None:
    """At least once: what was printed behind the last state is printed again, and nothing else is."""
    state, output = tmp_path / "state", tmp_path / "output"
    inputs, random = busy_inputs(4, 600), Random(5)
    at = 30
    with Store.open(growing, durable=False) as store:
        mirror = dev_mirror(store)
        for _ in range(5):
            with output.open("ab") as file:
                process = start(processes, CHAIN, "--store", growing, "--state", state, "--follow", "--json", output=file)
            size, told = output.stat().st_size, len(log_of(store))
            while len(log_of(store)) == told:
                mirror.apply(PLUGIN, inputs[at : at + 3])
                at += 3
            wait_for(lambda size=size: output.stat().st_size > size)  # type: ignore[misc]
            # Killed while it is told more.
            for _ in range(random.randint(5, 15)):
                mirror.apply(PLUGIN, inputs[at : at + 3])
                at += 3
                time.sleep(0.01)
            process.kill()
            process.wait()
        log = [(sequence, str(step), hash_.hex()) for sequence, step, hash_ in log_of(store)]
    with output.open("ab") as file:
        process = start(processes, CHAIN, "--store", growing, "--state", state, "--json", output=file)
        assert process.wait(60) == 0
    sequences: list[int] = []
    for line in output.read_text().splitlines():
        if line.endswith("}"):  # a kill may cut the last line of a life
            value = json.loads(line[line.rindex('{"chain"') :])
            assert (value["sequence"], value["step"], value["hash"]) == log[value["sequence"] - 1]
            assert value["sequence"] <= max(sequences, default=0) + 1
            sequences.append(value["sequence"])
    assert sorted(set(sequences)) == [sequence for sequence, _, _ in log]


def test_several_chains_come_in_the_order_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "two.db"
    with Store.open(path) as store:
        mirrors = [dev_mirror(store, name=name) for name in ("one", "two")]
        for at in range(0, 30, 3):
            for mirror in mirrors:
                mirror.apply(PLUGIN, busy_inputs(4, 30)[at : at + 3])
        log = [(event.chain, event.sequence) for event in store.events(limit=1000)]
    lines = supervm("tail", "two", "one", "--store", path, "--json", "--from-start").lines()
    assert [(line["chain"], line["sequence"]) for line in lines] == log
    assert short(supervm("tail", "two", "one", "--store", path, "--json").lines()) == short(lines[-10:])
    state = tmp_path / "state"
    assert supervm("tail", "two", "one", "--store", path, "--json", "--state", state).lines() == lines
    rest = supervm("tail", "one", "two", "--store", path, "--json", "--cursor", lines[10]["cursor"]).lines()
    assert rest == lines[11:]
    text = supervm("tail", "one", "two", "--store", path, "--from-start").out.splitlines()
    assert [line.split()[0] for line in text] == [chain for chain, _ in log]
    ran = supervm("tail", "one", "two", "--store", path, "--from", 3)
    assert (ran.status, ran.out) == (2, "")
    assert "several chains cannot begin at one height" in ran.err


def test_without_a_chain_it_is_of_all(tmp_path: Path) -> None:
    path, state = tmp_path / "all.db", tmp_path / "state"
    with Store.open(path) as store:
        dev_mirror(store, name="one").apply(PLUGIN, busy_inputs(4, 10))
    alone = supervm("tail", "--store", path, "--state", state, "--json")
    assert alone.lines() == supervm("tail", "one", "--store", path, "--from-start", "--json").lines()
    with Store.open(path) as store:
        dev_mirror(store, name="two").apply(PLUGIN, busy_inputs(4, 10))
    lines = supervm("tail", "--store", path, "--json").lines()
    assert lines == supervm("tail", "one", "two", "--store", path, "--json").lines()
    assert {line["chain"] for line in lines} == {"one", "two"}
    rest = supervm("tail", "--store", path, "--json", "--cursor", lines[3]["cursor"])
    assert rest.lines() == lines[4:]
    # A chain that came later is none of those that the kept cursor is of.
    again = supervm("tail", "--store", path, "--state", state)
    assert (again.status, again.out) == (0, "")


def test_a_store_without_a_chain_has_none_to_tell_of(tmp_path: Path) -> None:
    Store.open(tmp_path / "empty.db").close()
    ran = supervm("tail", "--store", tmp_path / "empty.db")
    assert (ran.status, ran.out) == (1, "")
    assert "has no chain: fill it with the mirror command" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(growing: Path, processes: list[Process], number: signal.Signals) -> None:
    process = start(processes, CHAIN, "--store", growing, "--follow", "--from-start")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    assert process.wait(20) == 0
    assert "Traceback" not in process.stdout.read()


def test_a_signal_ends_it_though_nobody_reads(sample: Path, processes: list[Process]) -> None:
    process = start(processes, "bitcoin", "--store", sample, "--follow", "--from-start", "--json")
    pipe = process.stdout
    assert pipe is not None
    wait_for(lambda: unread(pipe) >= 1 << 15)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_a_reader_that_goes_away_ends_it(growing: Path, processes: list[Process]) -> None:
    process = start(processes, CHAIN, "--store", growing, "--follow", "--from-start")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    with Store.open(growing) as store:
        dev_mirror(store).apply(PLUGIN, busy_inputs(4, 60)[30:])
    assert process.wait(20) == 1


def test_a_reader_that_goes_away_ends_it_though_nothing_more_comes(
    growing: Path, tmp_path: Path, processes: list[Process]
) -> None:
    state = tmp_path / "state"
    process = start(processes, CHAIN, "--store", growing, "--follow", "--json", "--state", state)
    assert process.stdout is not None
    with Store.open(growing) as store:
        lines = [json.loads(process.stdout.readline()) for _ in log_of(store)]
    wait_for(lambda: state.exists() and state.read_text().strip() == lines[-1]["cursor"])
    process.stdout.close()
    assert process.wait(20) == 1
    assert state.read_text().strip() == lines[-1]["cursor"]


def test_refusals_say_what_to_do(sample: Path, growing: Path, tmp_path: Path) -> None:
    cursor = supervm("tail", "bitcoin", "--store", sample, "--json").json()["cursor"]
    empty = tmp_path / "empty"
    empty.write_text("\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    spoilt = tmp_path / "spoilt"
    spoilt.write_text(cursor[:-8])
    circle = tmp_path / "circle" / "state"
    circle.parent.symlink_to("circle")
    forged = cursor[:-1] + ("A" if cursor[-1] != "A" else "Q")
    for status, words, arguments in (
        (1, "no chain nothing", ("nothing", "--store", sample)),
        (1, "there is no store", ("bitcoin", "--store", tmp_path / "none")),
        (1, "given by another store", (CHAIN, "--store", growing, "--cursor", cursor)),
        (1, "not as the store gave it", ("bitcoin", "--store", sample, "--cursor", forged)),
        (1, "cut short", ("bitcoin", "--store", sample, "--cursor", cursor[:-8])),
        (2, "is no address", ("bitcoin", "--store", sample, "--address", "nonsense")),
        (2, "abcd is no transaction id", ("bitcoin", "--store", sample, "--tx", "abcd")),
        (2, "holds no cursor", ("bitcoin", "--store", sample, "--state", empty)),
        (1, f"--state {spoilt}: the cursor is cut short", ("bitcoin", "--store", sample, "--state", spoilt)),
        (1, "delete the file to begin anew", ("bitcoin", "--store", sample, "--state", spoilt)),
        (2, "cannot be read", ("bitcoin", "--store", sample, "--state", folder)),
        (1, "cannot be written", ("bitcoin", "--store", sample, "--state", tmp_path / "none" / "state")),
        (2, "cannot be read", ("bitcoin", "--store", sample, "--state", circle)),
        (2, "not allowed with", ("bitcoin", "--store", sample, "--from", "3", "--from-start")),
        (2, "is not a height", ("bitcoin", "--store", sample, "--from", "-3")),
        (2, "is not hexadecimal", ("bitcoin", "--store", sample, "--script", "xyz")),
    ):
        ran = supervm("tail", *arguments)
        assert ran.status == status, (arguments, ran)
        assert words in ran.err, (arguments, ran)
        assert ran.out == "", "it fails before anything is printed"


def test_it_follows_a_living_mirror(tmp_path: Path, processes: list[Process]) -> None:
    """Live events reach the end of a pipe without a look being due."""
    store = tmp_path / "store.db"
    fill(store, busy_inputs(4, 10))
    process = start(processes, CHAIN, "--store", store, "--follow", "--json", "--from-start")
    assert process.stdout is not None
    inputs = busy_inputs(4, 60)
    seen = 0
    with Store.open(store) as writer:
        mirror = dev_mirror(writer)
        for at in range(10, 60):
            mirror.apply(PLUGIN, inputs[at : at + 1])
            while seen < len(log_of(writer)):
                seen = json.loads(process.stdout.readline())["sequence"]
    assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
