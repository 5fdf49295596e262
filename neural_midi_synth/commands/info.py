"""nms_info: what an instrument is."""

from __future__ import annotations

import pathlib

from absl import flags

from neural_midi_synth import environment
from neural_midi_synth.commands import command_line
from neural_midi_synth.errors import DataError

USAGE = """Tells what an instrument is: its range, its styles, its verdict, and what may be done with it.

nms_info guitar.nms
    of a file that nms_export --file wrote; nothing of it is run
nms_info runs/my_guitar
    of a folder that nms_train wrote
nms_info guitar.nms --extract here/
    and writes its sound, its picture and its licence"""

_EXTRACT = flags.DEFINE_string(
    "extract", None, "Folder for the sound, the picture and the licence of an .nms file.", allow_override=True
)
_MODULE = command_line.define_module_flag()


def main(sources: list[str]) -> None:
    """Tells of each instrument.

    Args:
      sources: Folders and files.
    """
    if not sources:
        raise command_line.UsageError("name the folder or the .nms file of an instrument")
    if _EXTRACT.value and (len(sources) > 1 or not pathlib.Path(sources[0]).is_file()):
        raise command_line.UsageError("--extract takes one .nms file")
    for place, source in enumerate(sources):
        if place:
            print()
        _tell(source)
    if _EXTRACT.value:
        _extract(sources[0], pathlib.Path(_EXTRACT.value))


def _tell(source: str) -> None:
    from neural_midi_synth.instrument import portable

    if pathlib.Path(source).is_file():
        facts = portable.read_facts(source)
        facts["licence"] = (facts["licence"].strip().splitlines() or [""])[0]
    else:
        environment.import_tensorflow_quietly()
        from neural_midi_synth.exporting.facts import instrument_facts
        from neural_midi_synth.instrument.loading import load

        instrument = load(source, modules=_MODULE.value)
        facts = {**instrument_facts(instrument, source), "parameters": instrument.count_params()}
    from neural_midi_synth.exporting import card

    try:
        print("\n".join(card.lines(source, facts)))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{source}: {portable.FACTS_NAME} is damaged. Ask for it again.") from error


def _extract(source: str, folder: pathlib.Path) -> None:
    from neural_midi_synth.files.outputs import write_aside
    from neural_midi_synth.instrument import portable

    opened = portable.archive(source)
    for name in (portable.SOUND_NAME, portable.PICTURE_NAME, portable.LICENCE_NAME):
        content = opened.read(name)
        with write_aside(folder / name) as aside:
            aside.write_bytes(content)
        print(folder / name)


def run() -> None:
    """The console script."""
    command_line.run(main, USAGE, takes_files=True)


if __name__ == "__main__":
    run()
