"""A store file: opening it, its one writer, its transactions.

A ``Store`` is synchronous and may be used from any thread, by one thread at a time: who shares one serialises the calls. To read
while another thread writes, open the same path again with ``read_only=True``; a reader sees whole batches only.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, TypeAlias

from supervm_rt.chain.types import ForkRules
from supervm_rt.errors import StoreCorrupt, StoreError, StoreTooNew
from supervm_rt.ir.translator import Translator
from supervm_rt.store import queries, schema
from supervm_rt.store.faults import RESTORE, from_system, seam
from supervm_rt.store.lock import WriterLock
from supervm_rt.store.mirror import Mirror, open_mirror
from supervm_rt.store.queries import ChainReader
from supervm_rt.store.records import ChainInfo, StoredEvent

_WAIT_SECONDS: Final = 10.0
"""How long SQLite waits for a lock of another program, such as a checkpoint of a reader that closes last."""
_CACHE_KIBIBYTES: Final = 65536
_LOG_BYTES: Final = 64 << 20
"""The write-ahead log is copied into the store when it passes this, and begins anew."""

_Version: TypeAlias = tuple[int, int, int, bool] | None


class Store:
    """An open store; made by ``Store.open``. A context manager that closes it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: WriterLock | None, unchanging: _Version = None) -> None:
        """For ``open``. ``unchanging``: the file's version where the connection relies on that nobody writes it."""
        self.path = path
        self._connection = connection
        self._lock = lock
        self._unchanging = unchanging
        self._mirrors: dict[str, Mirror] = {}
        self._closed = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        create: bool = True,
        max_bytes: int | None = None,
        durable: bool = True,
    ) -> Store:
        """Opens the store at ``path``, for writing unless ``read_only``.

        ``create``: make it where there is none (never when ``read_only``). ``max_bytes``: the size that its file may grow to.
        ``durable=False`` leaves out the syncs, for stores that need not survive a failure of the machine.

        Raises StoreError where there is no store and none may be made, or the path cannot be used; StoreLocked, StoreTooNew,
        StoreCorrupt, StoreFull as they say. Nothing is changed by a refusal.
        """
        try:
            real = Path(os.path.realpath(path))
            os.fsencode(real)
        except ValueError:
            raise StoreError(f"{os.fspath(path)!a} is not a path", remedy="name the store without such characters") from None
        found = _exists(real)
        if found:
            _refuse_other_files(real)
        elif read_only or not create:
            raise StoreError(f"there is no store at {real}", remedy="name an existing one, or fill one with the mirror command")
        if read_only:
            return cls(real, *_connect_reader(real))
        if found and real.stat().st_nlink > 1:
            raise StoreError(
                f"the store {real} has another name too (a hard link), under which somebody else could write it",
                remedy="make a copy of it, or remove the other name",
            )
        if found and not os.access(real, os.W_OK):
            raise StoreError(f"this user may not write the store {real}", remedy="give the right to, or open it read-only")
        lock = WriterLock(real)
        try:
            # Asked again: until the lock was taken, another process may have made it.
            if not _exists(real):
                _create(real)
            else:
                with contextlib.suppress(OSError):
                    _discard_draft(real)
            connection = _connect_writer(real, max_bytes=max_bytes, durable=durable)
        except BaseException:
            lock.release()
            raise
        return cls(real, connection, lock)

    @property
    def read_only(self) -> bool:
        """Whether this handle cannot write."""
        return self._lock is None

    def close(self) -> None:
        """Ends it and gives the lock back; may be called again. Committed data is safe whether this is called or not."""
        if self._closed:
            return
        self._closed = True
        for mirror in self._mirrors.values():
            mirror.disable("its store was closed")
        try:
            with seam(self.path):
                self._connection.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /) -> None:
        self.close()

    def mirror(self, name: str, *, translator: Translator, rules: ForkRules) -> Mirror:
        """Opens the chain ``name`` for writing; makes it where the store has none.

        Of the translator, its family, network and built-in genesis block are used. A chain has one mirror at a time: one that
        was opened before can no longer be used. Raises ConfigurationError where the stored chain is of another family, network,
        mode or rule for holes; a changed final_depth or orphan_limit is taken over.

        Takes time for the blocks that are not final, not for the chain.
        """
        if self.read_only:
            raise StoreError(f"the store {self.path} is open read-only", remedy="open it for writing")
        mirror = open_mirror(self, name, translator, rules)
        earlier = self._mirrors.get(name)
        if earlier is not None:
            earlier.disable("the chain was opened again")
        self._mirrors[name] = mirror
        return mirror

    def chains(self) -> list[ChainInfo]:
        """All chains, by name."""
        return queries.chains(self)

    def chain(self, name: str) -> ChainReader:
        """One chain, for reading. Raises NotInStore, naming those that there are."""
        return queries.resolve_chain(self, name)

    def events(self, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """At most ``limit`` events of all chains with a sequence above ``after``, in order."""
        return queries.events(self, None, after, limit)

    def position(self, plugin: str, chain: str) -> bytes | None:
        """Where this plugin goes on in this chain; None: from the beginning, also where there is no such chain yet."""
        return queries.position(self, plugin, chain)

    def cursor_key(self) -> bytes:
        """What this store's cursors are sealed with. A copy of the store has the same."""
        with self.snapshot() as connection:
            row = connection.execute("SELECT key FROM cursor_key").fetchone()
        if row is None or not isinstance(row[0], bytes) or len(row[0]) != schema.CURSOR_KEY_BYTES:
            raise StoreCorrupt(f"the store {self.path} is damaged: its key for cursors is missing", remedy=RESTORE)
        return row[0]

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: all of it is committed at the end, or none of it after an exception."""
        connection = self._connection
        with seam(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite ends some failed transactions itself; and the first error is the one to be told.
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
        if self._lock is not None:
            self._lock.ring()

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """All reads inside see one state of the store. May be nested, also in ``transaction``."""
        with seam(self.path):
            if self._unchanging is not None and self._unchanging != _version(self.path) and not self._connection.in_transaction:
                self._connection.close()
                self._connection, _, self._unchanging = _connect_reader(self.path)
            connection = self._connection
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
        if self._unchanging is not None and self._unchanging != _version(self.path):
            raise StoreError(f"the store {self.path} began to be written while it was read", remedy="read again")


def _exists(path: Path) -> bool:
    """Looks without opening. Raises StoreError for what can never be a store."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise from_system(error, path, "look for a store at") from error
    if path.is_dir():
        raise StoreError(f"{path} is a folder, not a store", remedy="name a file in it, such as chain.store")
    if not path.is_file():
        raise StoreError(f"{path} is not a file", remedy="name a path for a file")
    if status.st_size == 0:
        raise StoreCorrupt(f"{path} is an empty file, not a store", remedy="delete it, or name another path")
    return True


def _refuse_other_files(path: Path) -> None:
    """Looks at the header alone, without locks or files beside it, so that a file of somebody else stays untouched.

    The header is read through SQLite because closing any descriptor of the file would drop the locks that other connections of
    this process have on it (POSIX locks belong to the process).
    """
    if not os.access(path, os.R_OK):
        raise StoreError(f"this user may not read {path}", remedy="give the right to read it")
    with seam(path):
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        try:
            application = _pragma(connection, "application_id")
            version = _pragma(connection, "user_version")
        except sqlite3.DatabaseError as error:
            # Also seen while a checkpoint of the writer is under way: the connection that honours locks decides.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT and _has_log(path):
                return
            raise
        finally:
            connection.close()
    if application != schema.APPLICATION_ID:
        raise StoreCorrupt(f"{path} is a database, but not a store", remedy="name another path")
    _refuse_newer(path, version)


def _refuse_newer(path: Path, version: int) -> None:
    if version > schema.SCHEMA_VERSION:
        raise StoreTooNew(
            f"the store {path} has version {version}; this supervm-rt knows versions up to {schema.SCHEMA_VERSION}",
            remedy="use the newer supervm-rt that wrote it, or another store",
        )


def _check(path: Path, connection: sqlite3.Connection) -> None:
    """The last word on what was opened: through the log, and with a look at the tables."""
    if _pragma(connection, "application_id") != schema.APPLICATION_ID:
        raise StoreCorrupt(f"{path} is a database, but not a store", remedy="name another path")
    version = _pragma(connection, "user_version")
    _refuse_newer(path, version)
    if version < 1:
        raise StoreCorrupt(f"the store {path} is damaged: it has version {version}", remedy=RESTORE)
    if version < schema.SCHEMA_VERSION and _pragma(connection, "query_only") == 0:
        schema.migrate(connection, version)
    elif version < schema.SCHEMA_VERSION:
        raise StoreError(
            f"the store {path} is of the older version {version}", remedy="open it once for writing: that updates it"
        )
    # As bytes: what was damaged need not be text.
    found = dict(connection.execute("SELECT CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_schema").fetchall())
    missing = sorted(name for name in schema.TABLE_NAMES if name.encode() not in found)
    if missing:
        raise StoreCorrupt(f"the store {path} is damaged: its tables {', '.join(missing)} are missing", remedy=RESTORE)
    # A name of a column that has changed would show as a mistake of whoever asks for it.
    made = {statement.strip() for statement in found.values() if statement is not None}
    if not all(statement.strip().encode() in made for statement in (*schema.TABLES, *schema.FEED_TABLES)):
        raise StoreCorrupt(f"the store {path} is damaged: its tables are not those that a store has", remedy=RESTORE)


def _create(path: Path) -> None:
    """Makes the store under another name first: nobody ever sees half of one."""
    if _has_log(path):
        raise StoreError(
            f"{path}-wal is left of a store that is no longer at {path}",
            remedy="put the store's file back beside it, or delete it",
        )
    draft = _draft(path)
    try:
        _discard_draft(path)
        with seam(path):
            connection = sqlite3.connect(f"{draft.as_uri()}?mode=rwc", uri=True, isolation_level=None)
            try:
                # A draft that a failure leaves behind is made anew: it needs no journal, and one sync at its end.
                connection.execute("PRAGMA journal_mode = MEMORY")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(f"PRAGMA page_size = {schema.PAGE_SIZE}")
                connection.execute("PRAGMA auto_vacuum = NONE")
                schema.create_tables(connection)
                connection.execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
        _sync(draft, os.O_RDONLY)
        draft.rename(path)
        _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except BaseException as error:
        with contextlib.suppress(OSError):
            _discard_draft(path)
        if isinstance(error, OSError):
            raise from_system(error, path, "create the store") from error
        raise


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def _discard_draft(path: Path) -> None:
    """Removes what is left of a store that was never finished, and the files that SQLite kept beside it."""
    draft = _draft(path)
    for suffix in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    opened = os.open(path, flags)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _connect_writer(path: Path, *, max_bytes: int | None, durable: bool) -> sqlite3.Connection:
    with seam(path):
        connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
            _check(path, connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // schema.PAGE_SIZE}")
            connection.execute(f"PRAGMA journal_size_limit = {2 * _LOG_BYTES}")
            # Some builds overwrite what is deleted; there is no secret in a public chain.
            connection.execute("PRAGMA secure_delete = OFF")
            if max_bytes is not None:
                connection.execute(f"PRAGMA max_page_count = {max(1, max_bytes // _pragma(connection, 'page_size'))}")
        except BaseException:
            connection.close()
            raise
        return connection


def _connect_reader(path: Path) -> tuple[sqlite3.Connection, None, _Version]:
    """A connection that cannot write, in the order of ``Store``'s arguments.

    SQLite shares a log and an index of it between readers and a writer, in files beside the store:

    - Where a writer has made them, they are used; rights to read are enough.
    - Where there are none and this user may write the store and its folder, they are made, and taken away at the end.
    - Else they are not made: they would belong to a stranger, and the store's owner could not write them. Nobody is writing, so
      the file alone is the store, for as long as it stays as it is.
    """
    with seam(path):
        if _has_log(path):
            return _read_connection(path, "mode=ro"), None, None
        if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
            try:
                return _read_connection(path, "mode=rw"), None, None
            except sqlite3.OperationalError as error:
                # A disk may be too full for these files and still be read.
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}:
                    raise
        version = _version(path)
        return _read_connection(path, "mode=ro&immutable=1"), None, version


def _read_connection(path: Path, query: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?{query}", uri=True, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(connection)
        connection.execute("PRAGMA query_only = ON")
        _check(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
    # No memory mapping: a file that is cut short under one kills the process, where a read gives an error.
    connection.execute("PRAGMA mmap_size = 0")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _has_log(path: Path) -> bool:
    try:
        return path.with_name(path.name + "-wal").stat().st_size > 0
    except OSError:
        return False


def _version(path: Path) -> _Version:
    """What changes whenever a writer begins, or copies its log into the file."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0, False)
    return (status.st_ino, status.st_size, status.st_mtime_ns, _has_log(path))
