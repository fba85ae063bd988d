"""Builds and runs ring_threads.c and network_threads.c: native code on real threads, under a sanitizer."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "src/supervm_rt/_native"
SOURCES = (
    "channel",
    "entries",
    "host",
    "in_process",
    "lock",
    "network",
    "reader",
    "releaser",
    "ring",
    "side_ring",
    "sink",
    "slot",
    "wait",
)

THREAD = "thread"
ADDRESS = "address,undefined"

FLAGS = (
    "-std=c11",
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
)
# The thread sanitizer does not know fences, and gcc says so. It need not: what threads hand over goes by release and acquire. The
# fences only order a store before a later load of another word, to decide who sleeps and who wakes, which is what the models
# search. So not knowing them can only make it report more; no report means that nothing is handed over by fences alone.
KNOWN = ("-Wno-tsan",)

OPTIONS = {
    "PATH": os.environ["PATH"],
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}

# gcc 12's thread sanitizer knows no addresses that are more random than this.
RANDOM_BITS = Path("/proc/sys/vm/mmap_rnd_bits")
MOST_RANDOM_BITS = 28


def build(sanitize: str, folder: Path, name: str = "ring_threads") -> Path:
    """The program, made with these sanitizers. Raises CalledProcessError."""
    program = folder / f"{name}-{sanitize.replace(',', '-')}"
    sources = [str(NATIVE / f"{source}.c") for source in SOURCES]
    includes = [f"-I{NATIVE}", f"-I{ROOT / 'include'}"]
    command = ["gcc", *FLAGS, *(KNOWN if sanitize == THREAD else ()), "-Werror", f"-fsanitize={sanitize}", "-pthread", *includes]
    subprocess.run([*command, str(Path(__file__).with_name(f"{name}.c")), *sources, "-o", str(program)], check=True)
    return program


def _random_bits() -> int:
    """How random addresses are here: more than TSan can place its shadow beside, if only root may know."""
    try:
        return int(RANDOM_BITS.read_text())
    except OSError:
        return MOST_RANDOM_BITS + 1


def run(program: Path, amount: int, seed: int) -> tuple[dict[str, int], str]:
    """What it counted, and what it complained of; either is empty."""
    command = [str(program), str(amount), str(seed)]
    if program.name.endswith(THREAD) and _random_bits() > MOST_RANDOM_BITS:
        command = ["setarch", "--addr-no-randomize", *command]
    done = subprocess.run(command, env=OPTIONS, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {}, f"status {done.returncode}\n{done.stderr}"
    counted: dict[str, int] = json.loads(done.stdout)
    return counted, done.stderr
