"""Removing the files of a template in a pool: the file, its record, and leftovers of its downloads.

Called by `job`. It touches no other files, and none at all while the file is in use.
"""

import os
import re
import stat

from directdownload.download import lock
from directdownload.download.errors import StorageError, storage_error
from directdownload.download.guard import Guard
from directdownload.download.store import inuse
from directdownload.download.store.place import Place
from directdownload.hostfiles import writing
from directdownload.resources.base import REMOVE_MENTIONED
from directdownload.resources.jobs import JobDocument, JobResult
from directdownload.resources.reasons import Reason

#: A host's name, which `Place.in_pool` puts between the template's uid (without dots) and the kind of file.
_HOST = r"(?P<host>[a-z0-9]([-a-z0-9.]*[a-z0-9])?)"
_SUFFIX = r"\.(?P<kind>part|out|journal|journal\.tmp|pieces|pieces\.tmp)"


def remove(document: JobDocument, place: Place, guard: Guard) -> JobResult:
    """Removed or InUse. On a shared pool it also removes other hosts' leftovers, except those of running downloads."""
    work = _Work(document, place)
    if not _ours(place.final) and not work.names():
        return JobResult(reason=Reason.REMOVED, message="there was nothing to remove", path=place.final)
    place.prepare()
    # wait: a download of this host that is stopping may still publish, and keeps its journal
    own = lock.acquire(place.part, guard)[0] if _ours(place.part) else None
    try:
        if _ours(place.final) and (users := _users(document, place, guard)):
            return _in_use(place, users)
        with lock.section(place.lock, guard):
            # searching the pool may have taken long
            if _ours(place.final) and inuse.locked(place.final):
                return _in_use(place, inuse.LOCKED)
            _unlink(place.seal)
            _unlink(place.journal_seal or "")
            removed = _ours(place.final) and _unlink(place.final)
            _sync(place.directory)
            running = work.remove()
            _sync(work.directory)
    finally:
        if own is not None:
            os.close(own)
    message = "removed" if removed else "there was no file; leftovers of downloads are removed"
    if running:
        message += f"; a download still runs on {', '.join(running)} and keeps its part"
    return JobResult(reason=Reason.REMOVED, message=message, path=place.final)


def _users(document: JobDocument, place: Place, guard: Guard) -> str:
    """A message about the users of the file; empty if none counts."""
    locked = inuse.locked(place.final)
    mention = "" if document.remove_mentioned else _mention(document, place, guard, locked=locked)
    return "; ".join(filter(None, (inuse.LOCKED if locked else "", mention)))


def _mention(document: JobDocument, place: Place, guard: Guard, *, locked: bool) -> str:
    """A message about the files that name it, with the remedy for an administrator if no lock is held."""
    annotate = f"kubectl annotate templateplacement {document.placement} {REMOVE_MENTIONED}=true"
    otherwise = f"; if no disk of a virtual machine depends on the file: {annotate}" if not locked else ""
    try:
        found = inuse.mention(place.final, place.directory, guard)
    except StorageError as error:
        raise StorageError(error.reason, error.message + otherwise) from error
    return found + otherwise if found else ""


class _Work:
    """The files of one template in the work directory."""

    def __init__(self, document: JobDocument, place: Place) -> None:
        self.directory = os.path.dirname(place.part)
        self._host = document.host
        self._shared = document.pool.shared
        record = os.path.basename(place.record)
        self._lock = os.path.basename(place.lock)
        self._of_all = {record, f"{record}.tmp", self._lock}
        self._of_a_host = re.compile(re.escape(document.template_uid) + r"\." + _HOST + _SUFFIX)

    def names(self) -> list[str]:
        """The regular files; the product makes no others."""
        try:
            with os.scandir(self.directory) as entries:
                return sorted(e.name for e in entries if self._ours(e.name) and e.is_file(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise storage_error(error, self.directory, "read") from error

    def remove(self) -> list[str]:
        """Remove all but the files of running downloads; return their hosts. The caller holds the lock and its part."""
        running = set()
        names = [name for name in self.names() if name != self._lock]
        held = []
        try:
            for name in names:
                match = self._of_a_host.fullmatch(name)
                if match is not None and match["kind"] == "part" and match["host"] != self._host:
                    descriptor = lock.try_acquire(os.path.join(self.directory, name))
                    if descriptor is None:
                        running.add(match["host"])
                    else:
                        held.append(descriptor)
            for name in names:
                match = self._of_a_host.fullmatch(name)
                if match is None or match["host"] not in running:
                    _unlink(os.path.join(self.directory, name))
        finally:
            for descriptor in held:
                os.close(descriptor)
        return sorted(running)

    def _ours(self, name: str) -> bool:
        match = self._of_a_host.fullmatch(name)
        if match is not None:
            return self._shared or match["host"] == self._host
        return name in self._of_all


def _ours(path: str) -> bool:
    """Whether it exists and is a regular file: the product makes no others, and removes none."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise storage_error(error, path, "remove") from error


def _in_use(place: Place, users: str) -> JobResult:
    return JobResult(reason=Reason.IN_USE, message=f"{place.final} is in use: {users}", path=place.final)


def _unlink(path: str) -> bool:
    try:
        return bool(path) and writing.remove(path)
    except OSError as error:
        raise storage_error(error, path, "remove") from error


def _sync(directory: str) -> None:
    try:
        writing.sync_directory(directory)
    except OSError as error:
        raise storage_error(error, directory, "remove from") from error
