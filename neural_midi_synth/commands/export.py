"""nms_export: from an instrument to a SavedModel that needs nothing but TensorFlow, or to samples for a sampler."""

from __future__ import annotations

import pathlib

from absl import flags

from neural_midi_synth import environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.files.outputs import check_writable

USAGE = """Exports an instrument for those who have TensorFlow or a sampler, and not this package.

nms_export --instrument runs/my_guitar --output exported/
    writes exported/1/, as TensorFlow Serving watches for it, and exported/instrument.json, which tells what it is;
    the next export becomes exported/2/
nms_export --instrument runs/my_guitar --output exported/ --tflite
    and exported/stream.tflite, to play live where TensorFlow is too much
nms_export --instrument runs/my_guitar --output exported/ --tflite --voices 6
    and that with six voices
nms_export --instrument runs/my_guitar --output my_guitar/ --sampler
    writes my_guitar/sampler/my_guitar.sfz with its samples, for the samplers of DAWs, and nothing else
nms_export --instrument runs/my_guitar --output my_guitar/ --sampler --size full
    and that with round robins and more layers, five times as large"""


_INSTRUMENT = flags.DEFINE_string(
    "instrument", None, "Folder of a trained instrument; the guitar of the package unless given.", allow_override=True
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the versions.", required=True, allow_override=True)
_TFLITE = flags.DEFINE_bool("tflite", False, "Write stream.tflite, the stream for LiteRT, too.", allow_override=True)
_BLOCK_FRAMES = flags.DEFINE_integer(
    "block_frames",
    None,
    "Control frames in a block of stream.tflite, a multiple of the decoder's stride; unless given, about 16 ms.",
    lower_bound=1,
    allow_override=True,
)
_VOICES = flags.DEFINE_integer(
    "voices",
    None,
    "Voices of stream.tflite: how many notes can last at once; one unless given.",
    lower_bound=1,
    upper_bound=64,
    allow_override=True,
)
_SAMPLER = flags.DEFINE_bool(
    "sampler", False, "Write sampler/, an SFZ with FLAC samples, in place of a SavedModel.", allow_override=True
)
_SIZE = flags.DEFINE_enum("size", None, ["small", "full"], "How many samples; small unless given.", allow_override=True)
_MODULE = command_line.define_module_flag()


def main() -> None:
    """Exports as the flags say."""
    if _SAMPLER.value and _TFLITE.value:
        raise command_line.UsageError("--sampler and --tflite are two exports: run it once for each")
    if _SIZE.value is not None and not _SAMPLER.value:
        raise command_line.UsageError("--size is for --sampler")
    for flag in (_BLOCK_FRAMES, _VOICES):
        if flag.value is not None and not _TFLITE.value:
            raise command_line.UsageError(f"--{flag.name} is for --tflite")
    check_writable(pathlib.Path(_OUTPUT.value) / ("sampler" if _SAMPLER.value else "instrument.json"))
    environment.import_tensorflow_quietly()

    from neural_midi_synth.exporting.versions import export
    from neural_midi_synth.instrument.loading import PRETRAINED, load

    folder = _INSTRUMENT.value or PRETRAINED
    if _SAMPLER.value:
        _export_samples(pathlib.Path(folder))
        return
    instrument, voices = load(folder, modules=_MODULE.value), _VOICES.value or 1
    print(export(instrument, _OUTPUT.value, _TFLITE.value, _BLOCK_FRAMES.value, voices, trained_in=folder))


def _export_samples(folder: pathlib.Path) -> None:
    from neural_midi_synth.exporting.sampler import Sampler
    from neural_midi_synth.instrument.loading import load

    instrument = load(folder, modules=_MODULE.value)
    sampler = Sampler(instrument, folder.resolve().name, _SIZE.value or "small", trained_in=folder)
    print(f"{sampler.n_samples} samples, about {sampler.megabytes:.0f} MB", flush=True)
    with command_line.progress_bar("Sampling", "samples") as progress:
        path = sampler.write(_OUTPUT.value, progress)
    n_bytes = sum(each.stat().st_size for each in path.parent.rglob("*.*") if each.is_file())
    print(f"{path}: {n_bytes / 1e6:.1f} MB")


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
