"""From readable profiles to seccomp programs, made with libseccomp on the host's side: none of it runs in the sandbox."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from supervm_rt.errors import ConfigurationError, HostError

MAX_PROFILE_BYTES = 1 << 16
MAX_INSTRUCTIONS = 4096
SHIPPED = ("strict", "baseline")
SECTIONS = ("running", "loading", "reading", "storage", "network", "program")

_O_TMPFILE = 0o20000000
"""The bit that tells it from O_DIRECTORY, which it includes."""
_CLONE_NAMESPACES = 0x7E020080
"""Every CLONE_NEW* flag."""
_VALUES = {
    **{name: getattr(os, name) for name in ("O_ACCMODE", "O_CREAT", "O_TRUNC", "O_DIRECTORY") if hasattr(os, name)},
    "O_ACCMODE": 3,
    "O_TMPFILE": _O_TMPFILE,
    **{
        name: getattr(fcntl, name)
        for name in ("F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL", "F_DUPFD", "F_DUPFD_CLOEXEC", "F_GETLK", "F_SETLK", "F_SETLKW")
    },
    "PROT_EXEC": mmap.PROT_EXEC,
    "PROT_GROWSDOWN": 0x01000000,
    "PROT_GROWSUP": 0x02000000,
    "MAP_TYPE": 0x0F,
    "MAP_PRIVATE": mmap.MAP_PRIVATE,
    "MAP_SHARED": mmap.MAP_SHARED,
    "MAP_ANONYMOUS": mmap.MAP_ANONYMOUS,
    "MAP_GROWSDOWN": 0x0100,
    **{
        f"MADV_{name}": value
        for name, value in {
            "NORMAL": 0,
            "RANDOM": 1,
            "SEQUENTIAL": 2,
            "WILLNEED": 3,
            "DONTNEED": 4,
            "FREE": 8,
            "HUGEPAGE": 14,
            "NOHUGEPAGE": 15,
            "DONTDUMP": 16,
            "DODUMP": 17,
            "COLLAPSE": 25,
        }.items()
    },
    "CLONE_VM": 0x100,
    "CLONE_FILES": 0x400,
    "CLONE_SIGHAND": 0x800,
    "CLONE_THREAD": 0x10000,
    "CLONE_NAMESPACES": _CLONE_NAMESPACES,
    **{name: getattr(socket, name) for name in ("SOL_SOCKET", "IPPROTO_TCP", "MSG_OOB", "MSG_FASTOPEN")},
    **{f"SO_{name}": getattr(socket, f"SO_{name}") for name in ("ERROR", "TYPE", "KEEPALIVE", "RCVTIMEO", "SNDTIMEO")},
    **{
        f"TCP_{name}": getattr(socket, f"TCP_{name}")
        for name in ("NODELAY", "KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT", "QUICKACK", "INFO")
    },
    "MSG_ZEROCOPY": 0x4000000,
    "AF_UNIX": 1,
    "SOCK_TYPE": 0x0F,
    "SOCK_STREAM": 1,
    "SOCK_SEQPACKET": 5,
    "FIONBIO": 0x5421,
    "FIOCLEX": 0x5451,
    "TCGETS": 0x5401,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
}
_GIVE_MEMORY = frozenset(
    {"mmap", "mmap2", "mremap", "mprotect", "remap_file_pages", "memfd_create", "memfd_secret", "shmget", "shmat"}
    | {"clone", "clone3", "fork", "vfork"}
)
_CONDITION = re.compile(r"a([0-5])\s*(?:&\s*(?P<mask>[\w|]+)\s*)?(?P<operator>==|<=)\s*(?P<value>[\w|]+)")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Condition:
    """What one argument of a call must be."""

    argument: int
    operator: str
    """``==``, ``<=``, or ``&``: equal under ``mask``."""
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a call is allowed: all conditions hold."""

    call: str
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of each section, in the order in which they are written."""

    name: str
    sections: dict[str, tuple[Rule, ...]]

    def rules(self, sections: Iterable[str]) -> list[Rule]:
        """The rules of these sections, each once."""
        return list(dict.fromkeys(rule for section in sections for rule in self.sections[section]))


def read_profile(name: str, *, plugin_folder: Path) -> Profile:
    """The profile that a manifest names: ``strict``, ``baseline``, or the absolute path of an operator's own.

    A plugin cannot bring its own: the file must belong to root or to the user that runs the host, be writable by nobody else, and
    lie outside the plugin's folder. Raises ConfigurationError.
    """
    if name in SHIPPED:
        return _shipped(name)
    path = Path(name)
    remedy = f"name one of {', '.join(SHIPPED)}, or the absolute path of a profile of the operator's own"
    if not path.is_absolute():
        raise ConfigurationError(f"there is no seccomp profile {name!a}", remedy=remedy)
    try:
        resolved = path.resolve(strict=True)
        if resolved.is_relative_to(plugin_folder.resolve()):
            raise ConfigurationError(f"the seccomp profile {name} lies in the plugin's own folder", remedy=remedy)
        _check_file(resolved.stat())  # to open a device can be an act, and to open a FIFO can last for ever
        with os.fdopen(os.open(resolved, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb") as file:
            status = os.fstat(file.fileno())
            _check_file(status)
            if status.st_uid not in {0, os.geteuid()} or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigurationError(
                    f"others can write the seccomp profile {name}", remedy="give it to root or to yourself, and chmod go-w it"
                )
            text = file.read(MAX_PROFILE_BYTES + 1).decode()
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"the seccomp profile {name} cannot be read ({error})", remedy=remedy) from None
    if len(text) > MAX_PROFILE_BYTES:
        raise ConfigurationError(f"the seccomp profile {name} is longer than {MAX_PROFILE_BYTES} bytes", remedy=remedy)
    return parse_profile(text, source=name)


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a file")


def counts_memory(profile: Profile, sections: Iterable[str]) -> bool:
    """Whether RLIMIT_DATA of one process counts all memory that these sections let a plugin have.

    It does under the shipped profiles; what is beyond them of the calls that give memory or make processes is taken for memory
    that nothing counts.
    """
    known = {rule for name in SHIPPED for rule in _shipped(name).rules(SECTIONS)}
    return all(rule in known for rule in profile.rules(sections) if rule.call in _GIVE_MEMORY)


@cache
def _shipped(name: str) -> Profile:
    return parse_profile(_text(name), source=name)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath("profiles", f"{name}.profile").read_text(encoding="utf-8")


@cache
def escapes() -> tuple[str, ...]:
    """The calls that end the process under every profile."""
    lines = (line.partition("#")[0].strip() for line in _text("escapes").splitlines())
    return tuple(line for line in lines if line)


def parse_profile(text: str, *, source: str) -> Profile:
    """Reads a profile. ``strict.profile`` explains the form. Raises ConfigurationError with the line's number."""
    sections: dict[str, list[Rule]] = {section: [] for section in SECTIONS}
    current: str | None = None
    for number, written in enumerate(text.splitlines(), start=1):
        line = written.partition("#")[0].strip()
        try:
            if not line:
                continue
            if line.startswith("["):
                current = line.strip("[]")
                if line != f"[{current}]" or current not in sections:
                    raise ValueError(f"{line} is not one of {', '.join(f'[{section}]' for section in SECTIONS)}")
            elif line.startswith("include "):
                included = line.removeprefix("include ").strip()
                if included not in SHIPPED or included == source:
                    raise ValueError(f"only {' and '.join(SHIPPED)} can be included")
                for section, rules in _shipped(included).sections.items():
                    sections[section].extend(rules)
            elif current is None:
                raise ValueError("a call before the first section")
            else:
                sections[current].append(_rule(line))
        except ValueError as error:
            raise ConfigurationError(
                f"seccomp profile {source}, line {number}: {error}", remedy="see strict.profile for the form"
            ) from None
    return Profile(source, {section: tuple(rules) for section, rules in sections.items()})


def _rule(line: str) -> Rule:
    call, _, rest = line.partition(" ")
    if not _NAME.fullmatch(call):
        raise ValueError(f"{call!a} is not a system call")
    if call in escapes():
        raise ValueError(f"{call} is a way out of the sandbox, which no profile can allow")
    conditions = tuple(_condition(part.strip()) for part in rest.split(",")) if rest.strip() else ()
    arguments = [condition.argument for condition in conditions]
    if len(set(arguments)) != len(arguments):
        raise ValueError("two conditions about one argument; write two lines")
    return Rule(call, conditions)


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!a} is not a condition (aN == VALUE, aN <= VALUE, aN & MASK == VALUE)")
    argument, value = int(match[1]), _value(match["value"])
    if match["mask"] is None:
        return Condition(argument, match["operator"], value)
    if match["operator"] != "==":
        raise ValueError("a mask goes with ==")
    return Condition(argument, "&", value, _value(match["mask"]))


def _value(text: str) -> int:
    value = 0
    for name in text.split("|"):
        if name in _VALUES:
            value |= _VALUES[name]
        else:
            try:
                value |= int(name, 0)
            except ValueError:
                raise ValueError(f"{name!a} is neither a number nor a known name") from None
    return value


# ---- libseccomp ----------------------------------------------------------------------------------------------------------

_KILL_PROCESS = 0x8000_0000
_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_ATTRIBUTE_BAD_ARCHITECTURE = 2
_OPERATORS = {"<=": 3, "==": 4, "&": 7}
_NO_SUCH_CALL = -1
_HIGHEST_CALL = 600
"""Numbers up to here that libseccomp does not know answer ENOSYS; those above are no calls of any kernel yet."""
_NOTIFY = 0x7FC0_0000
_EXECUTES = "execve"
_JUDGED = "connect"
"""Where to says memory that a program can change while it is looked at: so the host makes the call itself."""
_FALLS_BACK = ("clone3",)
"""A C library tries these first, and something that can be judged by its arguments after ENOSYS."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        raise HostError(
            "libseccomp is not installed, and no plugin can be sandboxed without it", remedy="apt-get install libseccomp2"
        ) from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_release.restype = None
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _check(answer: int, what: str) -> None:
    if answer < 0:
        raise HostError(f"libseccomp refuses {what} ({os.strerror(-answer)})", remedy="update libseccomp")


@cache
def _unknown_numbers() -> tuple[int, ...]:
    """Numbers of calls that are newer than the installed libseccomp."""
    library = _library()
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    known = set()
    for number in range(_HIGHEST_CALL):
        name = library.seccomp_syscall_resolve_num_arch(0, number)  # 0: this machine's
        if name:
            known.add(number)
            free(name)
    return tuple(range(max(known) + 1, _HIGHEST_CALL))


def compile_profile(profile: Profile, sections: Iterable[str]) -> bytes:
    """The program that allows these sections of a profile, as the kernel takes it. Raises HostError, ConfigurationError."""
    return _compile(profile.name, tuple(profile.rules(sections)))


def compile_program(profile: Profile, granted: Iterable[str]) -> bytes:
    """The same for a program of its own, which is executed under it: it can become another, of those that it is shown.

    Each of its calls of ``connect`` is put to the host.
    """
    rules = profile.rules(("running", "loading", *granted, "program"))
    # No filters of its own: the one for a library takes rights away once the library is loaded.
    others = (rule for rule in rules if rule.call not in {"seccomp", _JUDGED})
    return _compile(profile.name, (*others, Rule(_EXECUTES)), executes=True)


@cache
def _compile(name: str, rules: tuple[Rule, ...], *, executes: bool = False) -> bytes:
    library = _library()
    context = library.seccomp_init(_ERRNO | errno.EPERM)
    if not context:
        raise MemoryError
    try:
        _check(library.seccomp_attr_set(context, _ATTRIBUTE_BAD_ARCHITECTURE, _KILL_PROCESS), "to refuse other architectures")
        for call in escapes():
            if call != _EXECUTES or not executes:
                _add(context, _KILL_PROCESS, Rule(call))
        if executes:
            _add(context, _NOTIFY, Rule(_JUDGED))
        for call in _FALLS_BACK:
            _add(context, _ERRNO | errno.ENOSYS, Rule(call))
        for number in _unknown_numbers():
            _check(library.seccomp_rule_add_array(context, _ERRNO | errno.ENOSYS, number, 0, None), f"call {number}")
        unconditional = {rule.call for rule in rules if not rule.conditions}
        for rule in rules:
            if rule.call in _FALLS_BACK:
                raise ConfigurationError(f"seccomp profile {name}: {rule.call} cannot be judged by its arguments")
            if not rule.conditions or rule.call not in unconditional:
                _add(context, _ALLOW, rule, unknown_is_an_error=True)
        program = _export(context)
    finally:
        library.seccomp_release(context)
    if len(program) > 8 * MAX_INSTRUCTIONS:
        raise ConfigurationError(f"seccomp profile {name}: more than {MAX_INSTRUCTIONS} instructions", remedy="shorten it")
    return program


def _add(context: int, action: int, rule: Rule, *, unknown_is_an_error: bool = False) -> None:
    library = _library()
    number = library.seccomp_syscall_resolve_name(rule.call.encode())
    if number == _NO_SUCH_CALL and unknown_is_an_error:
        raise ConfigurationError(f"no system call is named {rule.call}", remedy="correct the seccomp profile")
    if number < 0:  # another architecture's, or newer than this libseccomp
        return
    comparisons = (_Comparison * max(len(rule.conditions), 1))()
    for place, condition in zip(comparisons, rule.conditions, strict=False):
        place.argument = condition.argument
        place.operator = _OPERATORS[condition.operator]
        place.first, place.second = (condition.mask, condition.value) if condition.operator == "&" else (condition.value, 0)
    _check(
        library.seccomp_rule_add_array(context, action, number, len(rule.conditions), comparisons), f"a rule about {rule.call}"
    )


def _export(context: int) -> bytes:
    descriptor = os.memfd_create("supervm-seccomp", os.MFD_CLOEXEC)
    try:
        _check(_library().seccomp_export_bpf(context, descriptor), "to write the program")
        os.lseek(descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read()
    finally:
        os.close(descriptor)
