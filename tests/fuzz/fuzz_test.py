"""Damaged files, made anew from whole ones and kept from before: each is played, or refused in one line.

`make fuzz` looks for hours where the code has not been yet; what it finds is put into `regressions/`.
"""

import pathlib

import hypothesis
import pytest
import targets
from hypothesis import strategies as st

REGRESSIONS = pathlib.Path(__file__).with_name("regressions")
EXAMPLES = {"midi": 200, "reaper": 200, "sound": 200, "config": 200, "instrument": 200, "request": 40}
"""As many as take some seconds."""

edits = st.lists(
    st.tuples(
        st.integers(0, 2**20), st.sampled_from(["put", "insert", "delete", "repeat", "cut"]), st.binary(max_size=6)
    ),
    min_size=1,
    max_size=6,
)


def edited(content, changes):
    """A file with some changes."""
    content = bytearray(content)
    for place, what, new in changes:
        place %= len(content) + 1
        if what == "put":
            content[place : place + len(new)] = new
        elif what == "insert":
            content[place:place] = new
        elif what == "delete":
            del content[place : place + 1 + len(new)]
        elif what == "repeat":
            content[place:place] = content[max(place - 40, 0) : place] * len(new)
        elif len(new) == 6:  # Now and then, since little is left.
            del content[place:]
    return bytes(content)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_is_damaged_is_refused_in_one_line(name):
    whole = targets.seeds(name)

    @hypothesis.settings(max_examples=EXAMPLES[name], deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.sampled_from(range(len(whole))), edits)
    def feed(number, changes):
        targets.run(name, edited(whole[number], changes))

    for content in whole:
        targets.TARGETS[name](content)  # What is whole is not refused.
    feed()


@pytest.mark.parametrize("path", sorted(REGRESSIONS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_before_is_not_found_again(path):
    targets.run(path.parent.name, path.read_bytes())


def test_a_fault_is_found(monkeypatch):
    """The test of the tests: what is no DataError, or has two lines, does not pass."""
    monkeypatch.setitem(targets.TARGETS, "midi", lambda content: content[999])
    with pytest.raises(IndexError):
        targets.run("midi", b"")

    def two_lines(content):
        raise targets.DataError("a\nb")

    monkeypatch.setitem(targets.TARGETS, "midi", two_lines)
    with pytest.raises(AssertionError, match="more than one line"):
        targets.run("midi", b"")
