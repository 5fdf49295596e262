"""What nms_play shows while it plays, and the computer's keys that play."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from neural_midi_synth.playing.extra import import_extra

if TYPE_CHECKING:
    from neural_midi_synth.playing.devices import Keyboards, Speakers
    from neural_midi_synth.playing.live import Latency, Live
    from neural_midi_synth.playing.session import Session

_PIANO = "awsedftgyhujkolp"
"""Keys of the computer, from C upward, black ones in the row above."""

_NAMES = ("C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B")
_LOWEST_NOTE, _VELOCITY = 48, 100
_LOUDEST, _QUIETEST = 0.0, -60.0  # dB full scale
_BAR = 40  # characters
# A terminal tells of no key that rises. One that is held repeats, at first after half a second or so.
_FIRST_REPEAT_SECONDS, _NEXT_REPEAT_SECONDS = 0.6, 0.15
_STYLE_STEP = 16
_SHOW_SECONDS = 0.1
_MOST_SENTENCES = 4


def latency_line(latency: Latency, tolerance: float) -> str:
    """The latency in words, and by part.

    Args:
        latency: From an event to its sound.
        tolerance: By how much single events are off that, s.
    """
    parts = ", ".join(
        f"{name} {1000 * getattr(latency, name):.1f}" for name in ("block", "computing", "network", "device")
    )
    return f"latency {1000 * latency.total:.1f} ms ± {1000 * tolerance:.1f} ({parts})"


def _underruns(live: Live) -> str:
    return "1 underrun" if live.gaps == 1 else f"{live.gaps} underruns"


class Lines:
    """Where there is no terminal: lines, when something changes.

    Attributes:
        is_ended: Whether the player has ended it.
    """

    def __init__(self) -> None:
        self.is_ended = False
        self._session: Session | None = None
        self._latency: Latency | None = None

    def __enter__(self) -> Lines:
        """Takes the screen."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives it back, and sums up."""
        if self._session is not None:
            live = self._session.live
            seconds = live.stream.frame / live.stream.instrument.frame_rate
            print(f"played {seconds:.1f} s, {_underruns(live)}, load {100 * live.load:.0f} %", flush=True)

    def begin(self, session: Session, speakers: Speakers, keyboards: Keyboards) -> None:
        """Says what plays, and on what."""
        self._session, self._speakers, self._keyboards = session, speakers, keyboards
        print(f"{speakers.name}, {session.live.sample_rate} Hz; {', '.join(keyboards.names) or 'no MIDI'}", flush=True)
        self.show()

    def tell(self, sentence: str) -> None:
        """Says what happened to a device."""
        print(sentence, file=sys.stderr, flush=True)

    def show(self) -> None:
        """Says the latency where it has changed."""
        live = self._session.live
        if live.latency != self._latency:
            self._latency = live.latency
            print(latency_line(self._latency, live.tolerance), flush=True)


class Screen(Lines):
    """One screen of a terminal, on which everything is seen, and whose keys play."""

    def __init__(self) -> None:
        super().__init__()
        self._live, self._table = (import_extra(f"rich.{name}", "rich") for name in ("live", "table"))
        self._sentences: list[str] = []
        self._keys = _Keys()
        self._chosen = 0
        self._shown = 0.0
        self._level = _QUIETEST
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Screen:
        """Takes the screen."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Gives it back, and sums up."""
        self._stack.close()
        super().__exit__(*error)

    def begin(self, session: Session, speakers: Speakers, keyboards: Keyboards) -> None:
        """Shows what plays."""
        self._session, self._speakers, self._keyboards = session, speakers, keyboards
        self._stack.enter_context(self._keys.listening())
        self._display = self._stack.enter_context(self._live.Live(self._picture(), auto_refresh=False))

    def tell(self, sentence: str) -> None:
        """Shows what happened to a device, with what happened before."""
        self._sentences = [*self._sentences, sentence][-_MOST_SENTENCES:]

    def show(self) -> None:
        """Plays what the keys play, and draws anew."""
        now = time.perf_counter()
        for what, value in self._keys.news(now):
            self._do(what, value, now)
        if now > self._shown + _SHOW_SECONDS:
            self._shown = now
            self._display.update(self._picture(), refresh=True)

    def _do(self, what: str, value: Any, now: float) -> None:
        import mido

        session = self._session
        styles = list(session.keyboard.styles)
        if what in ("note_on", "note_off"):
            session.receive(mido.Message(what, note=value, velocity=_VELOCITY), now)
        elif what == "quit":
            self.is_ended = True
        elif what == "panic":
            session.panic()
        elif styles and what == "choose":
            self._chosen = (self._chosen + 1) % len(styles)
        elif styles and what == "learn":
            session.keyboard.learning = styles[self._chosen]
        elif styles:
            style = styles[self._chosen]
            session.set_style(style, session.values.get(style, 0.0) + value)

    def _picture(self) -> Any:
        live, session = self._session.live, self._session
        peak, live.output.peak = live.output.peak, 0.0
        decibels = 20.0 * math.log10(max(peak, 1e-6))
        self._level = max(decibels, self._level - 3.0, _QUIETEST)
        table = self._table.Table.grid(padding=(0, 2))
        table.add_row("sound", f"{self._speakers.name}, {live.sample_rate} Hz" if self._speakers.is_open else "gone")
        table.add_row("MIDI", ", ".join(self._keyboards.names) or "none")
        filled = (self._level - _QUIETEST) / (_LOUDEST - _QUIETEST)
        table.add_row("level", f"{_bar(filled)} {self._level:.0f} dB")
        names = ("·" if pitch is None else _note_name(pitch) for pitch in live.stream.pitches)
        table.add_row("voices", "  ".join(names))
        for i, style in enumerate(session.keyboard.styles):
            knobs = [f"cc{number}" for number, of in session.keyboard.knobs.items() if of == style]
            knobs += ["move a knob"] if session.keyboard.learning == style else []
            value = session.values.get(style, 0.0)
            name = f"> {style}" if i == self._chosen else f"  {style}"
            table.add_row(name, f"{_bar(value / 127.0)} {value:.0f}  {' '.join(knobs)}")
        table.add_row("latency", latency_line(live.latency, live.tolerance).removeprefix("latency "))
        table.add_row("load", f"{_bar(live.load)} {100 * live.load:.0f} %, {_underruns(live)}")
        table.add_row("", f"keys {_PIANO[:12]} play, z x octave, Tab style, - = its value, m learns its knob,")
        table.add_row("", "space panic, q ends")
        for sentence in self._sentences:
            table.add_row("", sentence)
        return table


class _Keys:
    """The computer's keys as a small piano."""

    def __init__(self) -> None:
        self._octave = 0
        self._held: dict[int, float] = {}  # Note → when it ends unless its key repeats.

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Has keys come at once, unseen."""
        with _reader() as self._next:
            yield

    def news(self, now: float) -> Iterator[tuple[str, Any]]:
        """What keys have done: notes, and words for what else they do."""
        while (key := self._next()) is not None:
            if key in _PIANO:
                note = _LOWEST_NOTE + 12 * self._octave + _PIANO.index(key)
                is_new = note not in self._held
                self._held[note] = now + (_FIRST_REPEAT_SECONDS if is_new else _NEXT_REPEAT_SECONDS)
                if is_new:
                    yield "note_on", note
            elif key in "zx":
                self._octave = min(max(self._octave + (1 if key == "x" else -1), -3), 4)
            elif key in _WORDS:
                yield _WORDS[key]
        for note in [note for note, end in self._held.items() if end < now]:
            del self._held[note]
            yield "note_off", note


_WORDS = {
    "q": ("quit", None),
    " ": ("panic", None),
    "\t": ("choose", None),
    "m": ("learn", None),
    "-": ("set", -_STYLE_STEP),
    "=": ("set", _STYLE_STEP),
    "+": ("set", _STYLE_STEP),
}


@contextlib.contextmanager
def _reader() -> Iterator[Any]:
    """What returns the next key that was pressed, or None: in a terminal of POSIX, or in one of Windows."""
    if not sys.stdin.isatty():
        yield lambda: None
    elif sys.platform == "win32":
        import msvcrt

        yield lambda: msvcrt.getwch().lower() if msvcrt.kbhit() else None
    else:
        import os
        import select
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        try:
            yield (
                lambda: (
                    os.read(sys.stdin.fileno(), 1).decode("latin-1").lower()
                    if select.select([sys.stdin], [], [], 0.0)[0]
                    else None
                )
            )
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _note_name(pitch: float) -> str:
    octave, step = divmod(round(pitch), 12)
    return f"{_NAMES[step]}{octave - 1}"


def _bar(share: float) -> str:
    filled = round(_BAR * min(max(share, 0.0), 1.0))
    return "█" * filled + "·" * (_BAR - filled)
