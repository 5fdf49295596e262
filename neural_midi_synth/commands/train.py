"""nms_train: from a folder of takes to an instrument."""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from neural_midi_synth import configs, environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

    from neural_midi_synth.data_prep.midi_audio import MidiAudioConfig

USAGE = """Trains an instrument on recordings and their MIDI annotations.

nms_train --source_dir my_takes/ --save_dir runs/my_guitar
    builds the data set if it has to, and trains the default instrument on it
nms_train --save_dir runs/demo --max_minutes 10
    ten minutes on the demo guitar

nms_train --source_dir session.RPP --save_dir runs/my_guitar
    the same, on what a Reaper project has

nms_train --source_dir my_takes/ --save_dir runs/strings --gin_file models/guitar_strings.gin
    an instrument of six voices, on takes with chords

The same command goes on where an earlier one was stopped."""

DEFAULT_CONFIG = "models/guitar.gin"
_MOST_FAULTS = 10  # that are listed

_SOURCE_DIR = flags.DEFINE_string(
    "source_dir",
    None,
    "Folder of recordings, each with a MIDI file of the same name, or of Reaper projects, or one project (.RPP); the "
    "demo guitar if not given.",
    allow_override=True,
)
_SAVE_DIR = flags.DEFINE_string("save_dir", None, "Folder of the instrument.", required=True, allow_override=True)
_TRACK = flags.DEFINE_string(
    "track",
    None,
    "Number (from 1) or name of the track that annotates the recordings, where MIDI files have several with notes.",
    allow_override=True,
)
_MIDI_CHANNEL = flags.DEFINE_integer(
    "midi_channel",
    None,
    "MIDI channel that annotates the recordings, where notes are on several.",
    lower_bound=1,
    upper_bound=16,
    allow_override=True,
)
_AUDIO_TRACK = flags.DEFINE_string(
    "audio_track",
    None,
    "Number (from 1) or name of the track that has the recordings, where a Reaper project has several.",
    allow_override=True,
)
_MIDI_TRACK = flags.DEFINE_string(
    "midi_track",
    None,
    "Number or name of the track that annotates the recordings, where several of a Reaper project have notes.",
    allow_override=True,
)
_ALIGN = flags.DEFINE_enum(
    "align",
    None,
    ["notes", "take", "off"],
    "Move annotations to where they are heard: take by take, and single notes too (the default), or not at all.",
    allow_override=True,
)
_VELOCITIES = flags.DEFINE_enum(
    "velocities",
    None,
    ["auto", "annotated", "from_audio"],
    "Velocities: those annotated, or told from the sound; auto (the default) takes those that carry information.",
    allow_override=True,
)
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Name of a built data set, such as midi_audio/default; instead of --source_dir.",
    allow_override=True,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder where data sets are kept; TFDS's own if not given.", allow_override=True
)
_EXAMPLE_DIR = flags.DEFINE_string(
    "example_dir",
    None,
    "Folder of MIDI files to play for TensorBoard; examples/ of the source folder if there is one.",
    allow_override=True,
)
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [DEFAULT_CONFIG], "Gin file, a path or one of the package's; may be repeated.", allow_override=True
)
_GIN_PARAM = flags.DEFINE_multi_string(
    "gin_param", [], "Gin binding such as 'train.batch_size=8'; may be repeated.", allow_override=True
)
_START_FROM = flags.DEFINE_string(
    "start_from",
    None,
    "Folder or .nms file of an instrument that a new one begins with, for few takes or little time; demo_guitar is the "
    "one that comes with the package.",
    allow_override=True,
)
_STEPS = flags.DEFINE_integer("steps", None, "Train for so many steps.", lower_bound=1, allow_override=True)
_MAX_MINUTES = flags.DEFINE_float(
    "max_minutes", None, "Train for so many minutes, interruptions not counted.", lower_bound=0.01, allow_override=True
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "default",
    ["default", "mirrored", "multi_worker"],
    "One device, all GPUs of this machine, or the workers of TF_CONFIG.",
    allow_override=True,
)
_IGNORE_WARNINGS = flags.DEFINE_bool(
    "ignore_warnings",
    False,
    "Do not list what looks doubtful in the takes. The instrument tells that it was ignored.",
    allow_override=True,
)
_DEBUG = flags.DEFINE_bool(
    "debug",
    False,
    "Show the traceback of an error in building the instrument, for your own processors.",
    allow_override=True,
)


def main() -> None:
    """Trains as the flags say."""
    if _DATASET.value and _SOURCE_DIR.value:
        raise command_line.UsageError("give either --source_dir or --dataset")
    if _DATASET.value and (_TRACK.value or _MIDI_CHANNEL.value or _AUDIO_TRACK.value or _MIDI_TRACK.value):
        raise command_line.UsageError(
            "--track, --midi_channel, --audio_track and --midi_track are for --source_dir; "
            "a built data set has its notes"
        )
    if _DATASET.value and (_ALIGN.value or _VELOCITIES.value):
        raise command_line.UsageError("--align and --velocities are for --source_dir; a built data set is corrected")
    if _STEPS.value is not None and _MAX_MINUTES.value is not None:
        raise command_line.UsageError("give either --steps or --max_minutes")
    if _STRATEGY.value == "multi_worker":
        _check_workers()
    environment.import_tensorflow_quietly()
    strategy = _strategy(_STRATEGY.value)  # Workers have to meet before TensorFlow does anything else.

    import tensorflow as tf

    from neural_midi_synth.data_prep import corrections, midi_audio
    from neural_midi_synth.instrument.loading import PRETRAINED, configure, load
    from neural_midi_synth.training.batches import built_data_set
    from neural_midi_synth.training.loop import train

    start = None
    if _START_FROM.value:
        start = load(PRETRAINED if _START_FROM.value == PRETRAINED.name else _START_FROM.value)
    params = list(_GIN_PARAM.value)
    if _STEPS.value is not None:
        params.append(f"nms.train.steps = {_STEPS.value}")
    configure([configs.find(name) for name in _GIN_FILE.value], params)
    if _DATASET.value:
        builder = built_data_set(_DATASET.value, _DATA_DIR.value)
    else:
        chosen = {
            "track": _TRACK.value,
            "midi_channel": _MIDI_CHANNEL.value,
            "audio_track": _AUDIO_TRACK.value,
            "midi_track": _MIDI_TRACK.value,
            "align": _ALIGN.value,
            "velocities": _VELOCITIES.value,
        }
        chosen = {name: value for name, value in chosen.items() if value is not None}
        builder = midi_audio.build(_SOURCE_DIR.value, _DATA_DIR.value, before_building=_inspect, **chosen)
        for line in corrections.told(builder.info.metadata or {}):
            print(line)
    examples = _EXAMPLE_DIR.value
    if examples is None and not _DATASET.value:
        source = pathlib.Path(_SOURCE_DIR.value or midi_audio.DEMO_GUITAR).expanduser()
        beside = (source if source.is_dir() else source.parent) / "examples"
        examples = beside if beside.is_dir() else None
    try:
        train(builder, _SAVE_DIR.value, examples, _MAX_MINUTES.value, strategy, debug=_DEBUG.value, start=start)
    except tf.errors.UnavailableError as error:
        raise DataError(
            "another worker has ended, and none can go on without it. Start the same command on all of them again; "
            "they go on from the last checkpoint."
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("Required bindings"):  # What gin says of what no file configures.
            raise
        raise DataError(f"gin: {str(error).splitlines()[0]}. Include 'models/guitar.gin' in the gin file.") from error
    print(f"The instrument is in {_SAVE_DIR.value}. Play it: nms_render --instrument {_SAVE_DIR.value} --midi riff.mid")


def _inspect(config: MidiAudioConfig) -> dict[str, Any] | None:
    """Looks at the takes before a data set is made of them, tells what was found, and returns it in short."""
    from neural_midi_synth.data_prep.inspection import inspect
    from neural_midi_synth.instrument.controls import Controls

    with command_line.progress_bar("Inspecting", "takes") as progress:
        found = inspect(config, Controls().styles, progress)
    faults = [(take, fault) for take in found.takes for fault in take.faults]
    told_by_building = ("unreadable", "polyphonic", "does_not_fit")
    if any(take.is_critical and fault.kind in told_by_building for take, fault in faults):
        return None
    print(f"{found.verdict.capitalize()}: {found.message}")
    for take, fault in [] if _IGNORE_WARNINGS.value else faults[:_MOST_FAULTS]:
        print(f"    {take.name}: {fault.message}")
    if len(faults) > _MOST_FAULTS or not found.may_train:
        print(f"    See all of it: nms_inspect {config.source_dir} --output report/")
    if not found.may_train:
        raise DataError(f"{config.source_dir}: {found.message}")
    facts = {"verdict": found.verdict, "message": found.message, "warnings": len(faults)}
    return {**facts, "ignored": bool(faults) and _IGNORE_WARNINGS.value}


def _strategy(name: str) -> tf.distribute.Strategy:
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _check_workers() -> None:
    try:
        json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
    except (KeyError, TypeError, ValueError) as error:
        raise command_line.UsageError(
            "--strategy=multi_worker needs TF_CONFIG to name the workers, as TensorFlow's guide to it tells"
        ) from error
    if _MAX_MINUTES.value is not None:
        raise command_line.UsageError("--max_minutes is for one worker, whose clock is the only one; give --steps")


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE)


if __name__ == "__main__":
    run()
