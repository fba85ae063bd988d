"""The campaign against the gRPC server: nothing is found in what there is, and what is wrong on purpose is."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from fuzz.http2 import __main__ as campaign
from fuzz.http2 import judging
from fuzz.http2.frames import message
from fuzz.http2.judging import Totals, play
from fuzz.http2.stories import OK, Story, Talk, story
from supervm_rt.transports.remote import sessions
from supervm_rt.transports.remote.messages import MessageBuffer
from tests.remote.messages import register

SEEDS = range(700, 850)


def test_nothing_is_found_in_some_of_its_stories() -> None:
    totals = Totals()
    assert play([story(seed) for seed in SEEDS], totals) == ""
    assert totals.stories == len(SEEDS)
    assert totals.kinds.keys() >= {"sound", "wild", "mutated", "plugin", "held"}
    assert totals.sound_calls > 50
    assert totals.frames > 1_000


def test_a_story_is_made_of_its_seed_alone() -> None:
    assert [story(seed) for seed in SEEDS] == [story(seed) for seed in SEEDS]


def test_what_stays_behind_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SETTLE_SECONDS", 1.0)
    talk = Talk(Random(0))
    talk.send(talk.begin("Register"), message(register("org.example.fuzz-0")), end=True)
    registering = Story("plugin", talk.steps, expected={1: OK})  # it waits for the answer, so it is registered
    assert play([registering]) == ""
    with mock.patch.object(sessions.Sessions, "leave", return_value=None):
        assert "left behind" in play([registering])


def test_a_sound_call_that_is_not_answered_as_it_should_be_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ANSWER_SECONDS", 1.0)
    split = MessageBuffer._split

    def lose(self: MessageBuffer, data: bytes) -> None:
        split(self, data if len(data) != 14 else data[:-1])

    sound = [told for seed in range(60) if (told := story(seed)).kind == "sound"]
    with mock.patch.object(MessageBuffer, "_split", lose):
        assert "of a sound story has to end with status" in play(sound)


def test_what_is_found_is_written_down_and_found_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(campaign, "FAILURES", tmp_path)
    monkeypatch.setattr(campaign, "play", lambda stories: "it broke" if b"PRI" in b"".join(stories[0].steps) else "")
    seed = next(seed for seed in range(100) if story(seed).kind == "mutated")
    assert campaign._report(seed, "it broke", Totals()) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["failures"], said["detail"]) == (1, f"seed {seed}, {tmp_path / f'{seed}.json'}")
    kept = campaign._read(tmp_path / f"{seed}.json")
    assert len(kept.steps) == 1
    monkeypatch.setattr("sys.argv", ["fuzz.http2", "--input", str(tmp_path / f"{seed}.json")])
    assert campaign.main() == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["failures"] == 1


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--seed", "x"], ["--executions", "-1"]])
def test_wrong_usage(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz.http2", *arguments])
    with pytest.raises(SystemExit) as ended:
        campaign.main()
    assert ended.value.code == 2
