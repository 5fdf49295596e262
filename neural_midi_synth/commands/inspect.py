"""nms_inspect: from takes to a page that says what is wrong with them."""

from __future__ import annotations

import json
import pathlib

from absl import flags

from neural_midi_synth import configs, environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.outputs import check_writable, write_aside

USAGE = """Looks at takes before they are trained on: what is wrong, and what to do.

nms_inspect my_takes/ --output report/
    writes report/inspection.html (open it in a browser) and inspection.json
nms_inspect session.RPP --output report/
    the same of a Reaper project

The exit status is 0 where training may begin, and 1 where something has to be mended first."""

# Several commands have these flags, and tests import several commands.
_OUTPUT = flags.DEFINE_string("output", None, "Folder the report is written to.", required=True, allow_override=True)
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file",
    ["models/guitar.gin"],
    "Gin file that the takes are to be trained with, a path or one of the package's; may be repeated.",
    allow_override=True,
)
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "Gin binding such as 'MidiAudioConfig.voices=6'; may be repeated.", allow_override=True
)
_TRACK = flags.DEFINE_string(
    "track", None, "Number (from 1) or name of the track of MIDI files that annotates.", allow_override=True
)
_MIDI_CHANNEL = flags.DEFINE_integer(
    "midi_channel", None, "MIDI channel that annotates.", lower_bound=1, upper_bound=16, allow_override=True
)
_AUDIO_TRACK = flags.DEFINE_string(
    "audio_track", None, "Number or name of the track of a Reaper project that has the recordings.", allow_override=True
)
_MIDI_TRACK = flags.DEFINE_string(
    "midi_track", None, "Number or name of the track of a Reaper project that annotates them.", allow_override=True
)


def main(takes: list[str]) -> None:
    """Inspects the takes of a folder or a project."""
    if len(takes) != 1:
        raise command_line.UsageError("give one folder of takes, or one Reaper project")
    source, folder = pathlib.Path(takes[0]).expanduser(), pathlib.Path(_OUTPUT.value).expanduser()
    check_writable(folder / "inspection.html")
    environment.import_tensorflow_quietly()

    from neural_midi_synth.data_prep import inspection_page, midi_audio
    from neural_midi_synth.data_prep.inspection import inspect
    from neural_midi_synth.instrument.controls import Controls
    from neural_midi_synth.instrument.loading import configure

    configure([configs.find(name) for name in _GIN_FILE.value], list(_GIN_PARAM.value))
    chosen = {
        "track": _TRACK.value,
        "midi_channel": _MIDI_CHANNEL.value,
        "audio_track": _AUDIO_TRACK.value,
        "midi_track": _MIDI_TRACK.value,
    }
    config = midi_audio.configured(source, **{name: value for name, value in chosen.items() if value is not None})
    styles = Controls().styles
    with command_line.progress_bar("Inspecting", "takes") as progress:
        found = inspect(config, styles, progress)
    with command_line.progress_bar("Drawing", "takes") as progress:
        page = inspection_page.page(source.resolve().name, found, styles, config, progress)
    for name, text in (
        ("inspection.html", page),
        ("inspection.json", json.dumps(found.facts(), indent=1, default=float) + "\n"),
    ):
        with write_aside(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
    print(f"{found.verdict.capitalize()}: {found.message}\nThe report: {folder / 'inspection.html'}")
    if not found.may_train:
        raise DataError(f"{source}: {found.verdict}. What has to be mended is in {folder / 'inspection.html'}.")


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE, takes_files=True)


if __name__ == "__main__":
    run()
