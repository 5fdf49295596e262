"""nms_play: an instrument played live, from a keyboard to the loudspeakers."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pathlib
import sys
import time
from typing import TYPE_CHECKING

from absl import flags

from neural_midi_synth import environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.audio import AUDIO_SUFFIXES
from neural_midi_synth.files.outputs import check_writable

if TYPE_CHECKING:
    from neural_midi_synth.commands.play_screen import Screen
    from neural_midi_synth.instrument.instrument import Instrument
    from neural_midi_synth.playing.devices import Keyboards, Speakers
    from neural_midi_synth.playing.session import Session

USAGE = """Plays a trained instrument live: from a MIDI keyboard, or the computer's, to loudspeakers. Ctrl-C ends it.

nms_play
    the guitar that comes with the package, on every keyboard that is connected
nms_play --list
    shows sound devices and MIDI inputs
nms_play --instrument runs/my_guitar --device "USB Audio" --keyboard Keystation
    one that nms_train trained, on devices of your choice
nms_play --map cc1=openness --style power_chord=0
    the modulation wheel opens and mutes; styles begin as you say
nms_play --midi riff.mid --record take.wav
    a file, and your keyboard along with it; keeps the sound, and take.mid beside it"""

_INSTRUMENT = flags.DEFINE_string(
    "instrument",
    None,
    "Folder or .nms file of a trained instrument; the guitar of the package unless given.",
    allow_override=True,
)
_LIST = flags.DEFINE_bool("list", False, "Show sound devices and MIDI inputs, and end.", allow_override=True)
_DEVICE = flags.DEFINE_string(
    "device",
    None,
    "Sound device: its number or a part of its name; the system's own unless given.",
    allow_override=True,
)
_KEYBOARD = flags.DEFINE_string(
    "keyboard", None, "MIDI input: a part of its name; all of them unless given.", allow_override=True
)
_VOICES = flags.DEFINE_integer(
    "voices", 6, "How many notes can last at once.", lower_bound=1, upper_bound=64, allow_override=True
)
_BLOCK = flags.DEFINE_float(
    "block",
    None,
    "Length of a block, ms; the shortest that this machine computes in good time unless given.",
    lower_bound=1.0,
    upper_bound=200.0,
    allow_override=True,
)
_BUFFER = flags.DEFINE_integer(
    "buffer",
    0,
    "Samples that the sound device is to ask for at once; 0 leaves that to the device.",
    lower_bound=0,
    upper_bound=8192,
    allow_override=True,
)
_MAP = flags.DEFINE_multi_string(
    "map",
    None,
    "A knob and its style, such as cc1=openness; may be repeated. Unless given, cc1 is for the first style.",
    allow_override=True,
)
_STYLE = flags.DEFINE_multi_string(
    "style",
    [],
    "A style and its value to begin with, 0 to 127, such as openness=127; may be repeated.",
    allow_override=True,
)
_MPE = flags.DEFINE_bool(
    "mpe", False, "Channel 1 is the master and all others are members, without being told.", allow_override=True
)
_MIDI = flags.DEFINE_string("midi", None, "MIDI file to play; the program ends after it.", allow_override=True)
_RECORD = flags.DEFINE_string(
    "record", None, "Sound file to keep what is played; its MIDI goes beside it.", allow_override=True
)

_TEND_SECONDS = 0.05
_MODULE = command_line.define_module_flag()


def main() -> None:
    """Plays as the flags say."""
    environment.import_tensorflow_quietly()

    from neural_midi_synth.exporting.kept_models import KeptModels
    from neural_midi_synth.instrument.loading import PRETRAINED, load
    from neural_midi_synth.instrument.rendering import as_piece
    from neural_midi_synth.playing import devices
    from neural_midi_synth.playing.keyboard import Keyboard
    from neural_midi_synth.playing.live import Live, go_first
    from neural_midi_synth.playing.recording import recording
    from neural_midi_synth.playing.session import Session
    from neural_midi_synth.playing.stream import Stream

    if _LIST.value:
        _show(*devices.listed())
        return
    knobs = dict(_knob(text) for text in _MAP.value) if _MAP.value is not None else None
    styles = dict(command_line.style(text) for text in _STYLE.value)
    if _RECORD.value is not None:
        _check_take(pathlib.Path(_RECORD.value))
    devices.import_rtmidi()
    sounddevice = devices.import_sounddevice()
    instrument = load(_INSTRUMENT.value, modules=_MODULE.value)
    _check_styles(instrument, styles, knobs or {})
    # Models are found by the package's code, of which modules of one's own are no part.
    name = _INSTRUMENT.value or "The guitar of the package"
    tell = functools.partial(_tell, name)
    stream_of = KeptModels(_INSTRUMENT.value or PRETRAINED, tell).stream if not _MODULE.value else Stream
    devices.output_device(sounddevice, _DEVICE.value)
    piece = as_piece(_MIDI.value, instrument) if _MIDI.value is not None else None
    go_first()
    tell("trying how fast this machine is.")
    live = Live(instrument, _block_frames(instrument), _VOICES.value, stream=stream_of)
    stream = live.stream
    keyboard = Keyboard("keyboard", instrument.styles, knobs, _MPE.value)
    with contextlib.ExitStack() as stack:
        take = stack.enter_context(recording(_RECORD.value, stream.sample_rate, stream.hop, stream.latency))
        screen = stack.enter_context(_screen())
        session = Session(live, keyboard, piece, take)
        for style, value in styles.items():
            session.set_style(style, value)
        # What is there now stays; nobody need look through it for garbage while somebody plays.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        keyboards = devices.Keyboards(session.receive, _KEYBOARD.value, screen.tell)
        stack.callback(keyboards.close)
        stack.enter_context(live.running())
        speakers = devices.Speakers(live, _DEVICE.value, _BUFFER.value, screen.tell)
        stack.callback(speakers.close)
        screen.begin(session, speakers, keyboards)
        with contextlib.suppress(KeyboardInterrupt):
            _tend(session, speakers, keyboards, screen)
    if take is not None:
        print(f"{take.path}\n{take.midi_path}")


def _tell(name: str, sentence: str) -> None:
    print(f"{name}: {sentence}", file=sys.stderr)


def _tend(session: Session, speakers: Speakers, keyboards: Keyboards, screen: Screen) -> None:
    """Looks after devices and the screen until the piece is over, or the player ends it."""
    while not session.is_over and not screen.is_ended:
        time.sleep(_TEND_SECONDS)
        if session.live.failure is not None:
            raise session.live.failure
        speakers.tend()
        if keyboards.tend():
            session.release()
        screen.show()


def _screen() -> contextlib.AbstractContextManager[Screen]:
    from neural_midi_synth.commands.play_screen import Lines, Screen

    return Screen() if sys.stdout.isatty() else Lines()


def _show(outputs: list[str], inputs: list[str]) -> None:
    """Prints what there is of each kind."""
    for title, found in (("Sound devices (--device)", outputs), ("MIDI inputs (--keyboard)", inputs)):
        print(f"{title}:", *(f"  {each}" for each in found or ["none"]), sep="\n")


def _block_frames(instrument: Instrument) -> int | None:
    """Control frames of a block, from its length in ms, if that was given."""
    if _BLOCK.value is None:
        return None
    stride = instrument.decoder.stride
    return max(round(_BLOCK.value / 1000.0 * instrument.frame_rate / stride), 1) * stride


def _check_styles(instrument: Instrument, styles: dict[str, float], knobs: dict[int, str]) -> None:
    for style in [*styles, *knobs.values()]:
        if style not in instrument.styles:
            known = ", ".join(instrument.styles) or "none"
            raise DataError(f"'{style}' is not a style of this instrument; it has {known}.")
    for style, value in styles.items():
        if not 0 <= value <= 127:
            raise DataError(f"{style}={value:g}: a style's value is 0 to 127.")


def _check_take(path: pathlib.Path) -> None:
    if path.suffix.lower() not in AUDIO_SUFFIXES:
        raise DataError(f"{path}: unknown kind of sound. Choose one of {', '.join(sorted(AUDIO_SUFFIXES))}.")
    check_writable(path)
    check_writable(path.with_suffix(".mid"))


def _knob(text: str) -> tuple[int, str]:
    name, _, style = text.partition("=")
    number = name.strip().lower().removeprefix("cc")
    if not (number.isdecimal() and int(number) < 120 and style.strip()):
        raise command_line.UsageError(f"--map {text}: write a knob's controller and a style, such as cc1=openness")
    return int(number), style.strip()


def run() -> None:
    """The console script."""
    # The operations of a block are small: handing them from thread to thread would take as long as some of them do.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    # Python's threads take turns: the one that hands blocks to the sound device must not wait for long.
    sys.setswitchinterval(0.0005)
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
