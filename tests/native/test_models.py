"""The models of the ring say what the C code does. That spin finds no error in them is shown by ``python -m models``."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.agreement import NATIVE, ROOT, disagreements, quotations

MODELS = sorted(path for path in ROOT.glob("*.pml") if path.name != "memory.pml")


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_model_and_code_agree(model: Path) -> None:
    assert quotations(model.read_text())
    assert disagreements(model) == []


def test_a_fence_that_is_taken_out_and_a_step_that_is_added_are_noticed(tmp_path: Path) -> None:
    for source in NATIVE.glob("*.c"):
        (tmp_path / source.name).write_text(source.read_text())
    ring = tmp_path / "ring.c"
    code = ring.read_text()
    start = code.index("void ring_free")
    fence = "    atomic_thread_fence(memory_order_seq_cst);\n"
    ring.write_text(code[:start] + code[start:].replace(fence, "", 1))
    (gone,) = disagreements(ROOT / "ring.pml", tmp_path)
    assert gone == "ring.pml: ring_free in ring.c does not say: atomic_thread_fence(memory_order_seq_cst);"
    ring.write_text(code[:start] + code[start:].replace(fence, fence + "    futex_wake_all(0);\n", 1))
    (added,) = disagreements(ROOT / "ring.pml", tmp_path)
    assert added == "ring.pml: ring_free in ring.c also says: futex_wake_all(0);"
