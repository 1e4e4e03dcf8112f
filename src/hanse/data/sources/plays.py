"""Shakespeare's plays as one JSON file of speeches by role, made from Project Gutenberg's texts."""

from __future__ import annotations

import configparser
import io
import json
import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import IO

    Members = Iterator[tuple[str, IO[bytes]]]
    Play = dict[str, list[str]]

FILE = "plays.json"
ATTRIBUTION = (
    "Shakespeare's plays: Project Gutenberg's texts as edited by the Open Shakespeare project, "
    "Open Knowledge Foundation (CC BY 2.5), from the Python package shakespeare 0.6"
)
BUNDLED = (
    "A Midsummer Night's Dream",
    "Macbeth",
    "The Comedy of Errors",
    "The Tempest",
)
CHARACTERS = f"\n !\"&'(),-.:;?{string.digits}{string.ascii_letters}"
"""All that occurs in speeches: the classes, in this order."""

_SUFFIX = "_gut.txt"  # the texts in modern spelling; those of the folio end in _gut_f.txt
_DIRECTION = re.compile(r"\[[^][]*\]")  # a stage direction
_BEGINNING = re.compile(r"^(act (i|1|first)\b|induction|prologue)", re.IGNORECASE | re.MULTILINE)
_HEADING = re.compile(
    r"(act|scene|actus|scaena|induction|prologue|epilogue|the end)\b", re.IGNORECASE
)
_SPEAKER = re.compile(r"([A-Z][A-Za-z' &-]{0,30})\.|([A-Z][A-Z' &-]{1,30})")
_NUMERAL = re.compile(r"[IVX]+")
_STRAY = re.compile(f"[^{re.escape(CHARACTERS)}]")  # brackets without a partner, and the like
_TOGETHER = frozenset({"ALL", "BOTH", "SONG"})  # no person of the play


def json_file(members: Members) -> Members:
    """The data set's file, from the files of the Python package shakespeare.

    Args:
        members: names and contents of the package's files.
    """
    texts, about = {}, configparser.ConfigParser(interpolation=None)
    for name, stream in members:
        if name.endswith(_SUFFIX):
            texts[name.removesuffix(".txt")] = stream.read().decode("utf-8-sig")
        elif name == "metadata.txt":
            about.read_string(stream.read().decode("utf-8"))
    plays = {
        about[name]["title"]: roles for name, text in texts.items() if (roles := speeches(text))
    }
    yield FILE, io.BytesIO(as_json(plays))


def as_json(plays: Mapping[str, Play]) -> bytes:
    """Plays as the bytes of a file, the same for the same plays."""
    return json.dumps(plays, indent=0, sort_keys=True).encode("ascii")


def plays_of(content: bytes) -> dict[str, list[str]]:
    """Each role's speeches by "role (play)", from the content of a file.

    Raises:
        ValueError: if it is not such a file, or a character in it is none of `CHARACTERS`.
    """
    found: dict[str, list[str]] = {}
    for title, roles in json.loads(content).items():
        for role, said in roles.items():
            if not set("".join(said)) <= set(CHARACTERS):
                message = f"{role} of {title} says what is no text"
                raise ValueError(message)
            found[f"{role} ({title})"] = said
    return found


def speeches(text: str) -> Play:
    """What each role says in a play, in order; nothing for what is no play.

    A speech is a paragraph whose first line is a name; what follows after a stage direction or a
    blank line, without another name, is still the same speech. Stage directions are dropped.
    """
    start = _BEGINNING.search(text)
    if start is None:
        return {}
    roles: Play = {}
    speaker: str | None = None
    for paragraph in re.split(r"\n\s*\n", _DIRECTION.sub("", text[start.start() :])):
        lines = [" ".join(_STRAY.sub("", line).split()) for line in paragraph.splitlines()]
        lines = [line for line in lines if line]
        if not lines:
            continue
        name = _named(lines)
        if name is not None:
            speaker = name if name not in _TOGETHER else None
            if speaker is not None:
                roles.setdefault(speaker, []).append("\n".join(lines[1:]))
        elif _HEADING.match(lines[0]):
            speaker = None
        elif speaker is not None:
            roles[speaker][-1] += "\n" + "\n".join(lines)
    return roles


def _named(lines: Sequence[str]) -> str | None:
    """Who begins to speak in a paragraph, if anybody does."""
    found = _SPEAKER.fullmatch(lines[0])
    if found is None or len(lines) < 2 or _HEADING.match(lines[0]):
        return None
    name = (found[1] or found[2]).upper()
    return None if _NUMERAL.fullmatch(name) or len(name.split()) > 4 else name
