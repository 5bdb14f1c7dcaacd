"""Sources that lie on the disk as they are: a folder, with links followed but not back up, and one text."""

import os
from pathlib import Path

from relaunch.data_prep.archive import Source


class Folder(Source):
    """A link to a file or a sibling is what it points to; one that leads nowhere or back up is left out."""

    def _list(self):
        return self._below(self.path, (os.path.realpath(self.path),))

    def _below(self, folder: Path, above: tuple[str, ...]):
        """`above`: the real paths of this folder and of those that led here."""
        with os.scandir(folder) as found:  # unlike os.walk it raises for a folder that may not be read
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = Path(entry.path).relative_to(self.path).as_posix()
            if entry.is_file():
                yield name, entry.stat().st_size
            elif not entry.is_dir():
                what = "links that lead nowhere" if entry.is_symlink() else "files that are no regular files"
                self.left_out.add(what, name)
            elif entry.name.startswith("."):
                self.left_out.add("hidden folders", name)
            else:
                real = os.path.realpath(entry.path)
                if any(os.path.commonpath([real, known]) == real for known in above):
                    self.left_out.add("links that lead back up", name)
                    continue
                self.folders.add(name)
                yield from self._below(Path(entry.path), (*above, real))

    def _stream(self, wanted):
        for name in sorted(wanted):
            yield name, (self.path / name).read_bytes()

    def _files_on_disk(self, names):
        return [(name, self.path / name) for name in names]


class Single(Source):
    """One file that is no archive."""

    def _list(self):
        yield self.name, self.path.stat().st_size

    def _stream(self, wanted):
        yield self.name, self.path.read_bytes()
