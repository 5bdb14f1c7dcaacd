"""Downloads with a checked hash: to NAME.part, resumed after an interruption, renamed when complete."""

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from relaunch.data_prep import files
from relaunch.data_prep.errors import DATA, Failure
from relaunch.data_prep.packed import FLAG
from relaunch.data_prep.progress import Progress


def download(urls: list[str], md5: str, target: Path, show: bool) -> None:
    """Fetch `target` from the first of `urls` that answers.

    Failure 65 if none does or the MD5 is another; 73 if `target` cannot be written.
    """
    if target.exists():
        return  # only a checked download gets this name
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in urls:
        try:
            _fetch(url, part, show)
            break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}")
    else:
        raise Failure(
            DATA,
            f"cannot download {'; '.join(reasons)}",
            "get the file some other way and add --source PATH; a half download is continued next time",
        )
    if (found := files.md5(part)) != md5:
        part.unlink()
        raise Failure(
            DATA, f"{url} gave a file with MD5 {found}, published is {md5}", "try again, or add --source PATH"
        )
    with files.storage(target, FLAG):
        files.sync(part)
        os.replace(part, target)


def _fetch(url: str, part: Path, show: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "relaunch", **({"Range": f"bytes={have}-"} if have else {})}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        return  # nothing lies beyond what we have: complete, or the MD5 will tell
    with answer:
        if answer.status != 206:  # the server does not resume
            have = 0
        length = int(answer.headers.get("Content-Length") or 0)
        with files.storage(part, FLAG):
            part.parent.mkdir(parents=True, exist_ok=True)
            file = open(part, "ab" if have else "wb", buffering=0)  # closing must not fail on a full disk
        with file, Progress(part.stem, have + length or None, "B", show) as progress:
            progress.add(have)
            received = 0
            while chunk := answer.read(1 << 20):
                with files.storage(part, FLAG):
                    written = 0
                    while written < len(chunk):
                        written += file.write(chunk[written:])
                received += len(chunk)
                progress.add(len(chunk))
        if length and received != length:
            raise urllib.error.URLError(f"the connection broke after {have + received:,} bytes")
