"""nms_export: from an instrument to a SavedModel, samples for a sampler, a web page, or one file to hand on."""

from __future__ import annotations

import pathlib

from absl import flags

from neural_midi_synth import environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.files.inputs import read_bytes
from neural_midi_synth.files.outputs import check_writable

USAGE = """Exports an instrument for those who have not got this package, or as one file for those who have.

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
    and that with round robins and more layers, five times as large
nms_export --web site/ --instrument runs/my_guitar --instrument runs/my_bass
    writes a web page on which both are played: put site/ on any web server, or try it with
    python -m http.server --directory site/
nms_export --instrument runs/my_guitar --file my_guitar.nms --licence "CC BY 4.0"
    writes the instrument as one file to hand on, which every command takes; nms_info my_guitar.nms tells what it is"""


_INSTRUMENT = flags.DEFINE_multi_string(
    "instrument",
    [],
    "Folder or .nms file of a trained instrument; the guitar of the package unless given. --web takes several.",
    allow_override=True,
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the versions, or of sampler/.", allow_override=True)
_WEB = flags.DEFINE_string("web", None, "Folder of a web page, written in place of all else.", allow_override=True)
_FILE = flags.DEFINE_string("file", None, "Write the instrument as this one file, name.nms.", allow_override=True)
_LICENCE = flags.DEFINE_string(
    "licence", None, "What may be done with the file: name of a licence, or a text file of it.", allow_override=True
)
_TFLITE = flags.DEFINE_bool("tflite", False, "Write stream.tflite, the stream for LiteRT, too.", allow_override=True)
_BLOCK_FRAMES = flags.DEFINE_integer(
    "block_frames",
    None,
    "Control frames in a block of stream.tflite or the page, a multiple of the decoder's stride; about 16 ms unless "
    "given.",
    lower_bound=1,
    allow_override=True,
)
_VOICES = flags.DEFINE_integer(
    "voices",
    None,
    "Voices of stream.tflite or the page: how many notes can last at once; one for the file, six for the page, unless "
    "given.",
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
    if [_OUTPUT.value, _WEB.value, _FILE.value].count(None) != 2:
        raise command_line.UsageError("give --output, --web or --file, one of them")
    for flag in (_WEB, _FILE):
        if flag.value is not None and (_TFLITE.value or _SAMPLER.value):
            raise command_line.UsageError(f"--{flag.name} is an export by itself, without --sampler and --tflite")
    if _LICENCE.value is not None and _FILE.value is None:
        raise command_line.UsageError("--licence is for --file")
    if _SAMPLER.value and _TFLITE.value:
        raise command_line.UsageError("--sampler and --tflite are two exports: run it once for each")
    if _SIZE.value is not None and not _SAMPLER.value:
        raise command_line.UsageError("--size is for --sampler")
    for flag in (_BLOCK_FRAMES, _VOICES):
        if flag.value is not None and not (_TFLITE.value or _WEB.value):
            raise command_line.UsageError(f"--{flag.name} is for --tflite and --web")
    if len(_INSTRUMENT.value) > 1 and not _WEB.value:
        raise command_line.UsageError("several instruments are for --web")
    if _WEB.value:
        _export_page()
        return
    if _FILE.value is not None:
        _export_file()
        return
    check_writable(pathlib.Path(_OUTPUT.value) / ("sampler" if _SAMPLER.value else "instrument.json"))
    environment.import_tensorflow_quietly()

    from neural_midi_synth.exporting.versions import export
    from neural_midi_synth.instrument.loading import PRETRAINED, load

    folder = next(iter(_INSTRUMENT.value), PRETRAINED)
    if _SAMPLER.value:
        _export_samples(pathlib.Path(folder))
        return
    instrument, voices = load(folder, modules=_MODULE.value), _VOICES.value or 1
    print(export(instrument, _OUTPUT.value, _TFLITE.value, _BLOCK_FRAMES.value, voices, trained_in=folder))


def _export_page() -> None:
    environment.import_tensorflow_quietly()

    from neural_midi_synth.exporting import web_page
    from neural_midi_synth.instrument.loading import PRETRAINED, load, name_of

    web_page.check_page()
    folders = [pathlib.Path(folder) for folder in _INSTRUMENT.value or [PRETRAINED]]
    exhibits = [web_page.Exhibit(load(folder, modules=_MODULE.value), name_of(folder), folder) for folder in folders]
    print(web_page.write(exhibits, _WEB.value, _BLOCK_FRAMES.value, _VOICES.value or web_page.VOICES))


def _export_file() -> None:
    licence = _LICENCE.value
    if licence is not None and pathlib.Path(licence).is_file():
        licence = read_bytes(pathlib.Path(licence)).decode("utf-8", "replace")
    check_writable(_FILE.value)
    environment.import_tensorflow_quietly()

    from neural_midi_synth.exporting.portable import export_file
    from neural_midi_synth.instrument.loading import PRETRAINED, load

    (folder,) = _INSTRUMENT.value or [PRETRAINED]
    path = export_file(load(folder, modules=_MODULE.value), _FILE.value, folder, licence)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _export_samples(folder: pathlib.Path) -> None:
    from neural_midi_synth.exporting.sampler import Sampler
    from neural_midi_synth.instrument.loading import load, name_of

    instrument = load(folder, modules=_MODULE.value)
    sampler = Sampler(instrument, name_of(folder), _SIZE.value or "small", trained_in=folder)
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
