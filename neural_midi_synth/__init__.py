"""Neural MIDI synthesizers: a recording and its MIDI annotation go in, an instrument that plays any MIDI comes out.

    import neural_midi_synth as nms
    samples = nms.load("runs/my_guitar").render("riff.mid")

Importing this package readies the environment for TensorFlow (see `environment`) but does not import it.
"""

from __future__ import annotations

import importlib
from typing import Any

from neural_midi_synth import environment
from neural_midi_synth.errors import DataError

environment.prepare()

__version__ = "0.1.0"
__all__ = ["DataError", "Instrument", "Piece", "Stream", "Voice", "load", "read_midi", "write_midi"]

_LAZY = {
    "Instrument": "neural_midi_synth.instrument.instrument",
    "Piece": "neural_midi_synth.midi.pieces",
    "Stream": "neural_midi_synth.playing.stream",
    "Voice": "neural_midi_synth.midi.pieces",
    "load": "neural_midi_synth.instrument.loading",
    "read_midi": "neural_midi_synth.midi.standard_midi_file",
    "write_midi": "neural_midi_synth.midi.standard_midi_file",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a public name when it is first asked for, since TensorFlow takes seconds to import."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
