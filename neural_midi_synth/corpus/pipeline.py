"""A corpus on Apache Beam: its jobs are shared out, and what has arrived is counted.

Workers write their own files, each whole or not there, into the folder of the corpus, which all of them see. So nothing
depends on how a runner collects results: what is there is done, and what is not is played when the same corpus is made
again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import multiprocessing
import os
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from neural_midi_synth import environment
from neural_midi_synth.corpus import jobs as jobs_lib
from neural_midi_synth.corpus.jobs import Settings
from neural_midi_synth.errors import DataError
from neural_midi_synth.files.locks import LOCK_NAME, only_writer
from neural_midi_synth.files.outputs import write_aside

MANIFEST_NAME = "manifest.jsonl"
"""In the folder of a corpus: a line on each sound."""

NOT_PLAYED_NAME = "not_played.jsonl"
"""In the folder of a corpus: a line on each file that could not be played, with the reason."""

_MOST_TOGETHER = 16  # Files in an element of the pipeline.
_ELEMENTS = 1024  # So many, at least, as long as there are files.
_ASIDE = re.compile(r"\..*\.[0-9a-f]{8}(\..*)?")  # As `write_aside` names what is not whole yet.
_GRACE_SECONDS = 5.0
_LOOK_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Summary:
    """What has become of the files.

    Attributes:
        played: Number of sounds.
        not_played: Number of files that could not be played.
        before: How many of both were there before.
    """

    played: int
    not_played: int
    before: int


def make_corpus(
    settings: Settings, beam_arguments: Sequence[str] = (), tell: Callable[[str], None] | None = None
) -> Summary:
    """Plays what has not been played yet, and lists what there is.

    Args:
        settings: Of the corpus.
        beam_arguments: Beam's own, such as `--runner=DaskRunner`; unless they say so, this machine's processors share
            the work.
        tell: Is told in a line what is going on.

    Returns:
        What there is now.

    Raises:
        DataError: There are no files, an instrument can't be loaded, the folder has another corpus, it can't be
            written, or files have not arrived although the runner said so.
    """
    tell = tell or (lambda line: None)
    output = pathlib.Path(settings.output)
    with only_writer(output):
        _keep_settings(settings)
        _sweep(output)
        files = jobs_lib.find_files(settings)
        total = sum(len(settings.jobs(midi)) for midi in files)
        missing = _missing(settings, files)
        before = total - len(missing)
        tell(f"{len(files)} MIDI files: {total} sounds to be made, {before} of them done before.")
        _run_until_done(settings, beam_arguments, "play", lambda: _missing(settings, files), tell)
        played, refused = _list(settings, files)
        if settings.sound == "tfds":
            from neural_midi_synth.corpus import shards

            shards.begin(settings)
            _run_until_done(settings, beam_arguments, "write_shards", lambda: shards.missing(settings), tell)
            shards.finish(settings)
        _sweep(output)
    return Summary(played, refused, before)


def _keep_settings(settings: Settings) -> None:
    """Raises DataError where the folder has a corpus that was made otherwise."""
    path = pathlib.Path(settings.output) / jobs_lib.SETTINGS_NAME
    facts = settings.facts()
    if path.exists():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: damaged. Delete it, or choose another --output.") from error
        other = sorted(name for name in facts.keys() | kept.keys() if facts.get(name) != kept.get(name))
        if other:
            raise DataError(
                f"{path}: the corpus there was made with other {', '.join(other)}. Choose another --output."
            )
        return
    strange = [
        each.name for each in path.parent.iterdir() if each.name != LOCK_NAME and not _ASIDE.fullmatch(each.name)
    ]
    if strange:
        raise DataError(f"{path.parent}: has other files in it, such as {min(strange)}. Choose another --output.")
    with write_aside(path) as aside:
        aside.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sweep(output: pathlib.Path) -> None:
    """Removes what workers that were killed had not finished."""
    for folder, _, names in os.walk(output):
        for name in names:
            if _ASIDE.fullmatch(name):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))


def _missing(settings: Settings, files: Sequence[str]) -> list[int]:
    """Returns the places in the list of files that have something to be played."""
    return [
        number
        for number, midi in enumerate(files)
        if not all(jobs_lib.line_path(settings, job).exists() for job in settings.jobs(midi))
    ]


def _run_until_done(
    settings: Settings,
    beam_arguments: Sequence[str],
    step: str,
    missing: Callable[[], list[int]],
    tell: Callable[[str], None],
) -> None:
    """Runs a pipeline over what is missing, and again where workers have ended, as long as that makes it less."""
    left = missing()
    while left:
        failure = _run(settings, list(beam_arguments), step, left)
        still = missing()
        if not still:
            return
        if failure is not None and not failure.startswith(_WORKER_ENDED):
            raise DataError(failure)
        if len(still) == len(left):
            why = "since its workers end" if failure else "although it says so"
            raise DataError(
                f"{settings.output}: {len(still)} files have not come from the runner, {why}. Run the same command "
                "again, or choose another --runner."
            )
        tell(f"{len(still)} files have not arrived yet{', since a worker has ended' if failure else ''}: going on.")
        left = still


_WORKER_ENDED = "worker ended"


def _run(settings: Settings, beam_arguments: list[str], step: str, numbers: list[int]) -> str | None:
    """Runs a pipeline in a process of its own; returns what went wrong.

    Beam's local runner waits for ever for a worker that was killed, and its threads can't be stopped.
    """
    import psutil

    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_pipeline, args=(settings, beam_arguments, step, numbers, sending))
    process.start()
    sending.close()
    workers: set[Any] = set()
    ended_at: float | None = None
    try:
        tree = psutil.Process(process.pid)
        while process.is_alive() and not receiving.poll(_LOOK_SECONDS):
            workers.update(_local_workers(tree))
            if ended_at is None and any(map(_has_ended, workers)):
                ended_at = time.monotonic()
            if ended_at is not None and time.monotonic() - ended_at > _GRACE_SECONDS:
                return _WORKER_ENDED
        # The pipe is closed without a word where the process was killed.
        with contextlib.suppress(EOFError):
            return receiving.recv()
        return _WORKER_ENDED
    finally:
        _end(process.pid)
        process.join()


def _local_workers(tree: Any) -> Iterator[Any]:
    """Yields the processes that Beam's local runner has started to work for it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for child in tree.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "apache_beam.runners.worker.sdk_worker_main" in child.cmdline():
                    yield child


def _has_ended(process: Any) -> bool:
    import psutil

    with contextlib.suppress(psutil.Error):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def _end(pid: int) -> None:
    """Ends a process and those that it has started."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
    except psutil.Error:
        return
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()


def _pipeline(settings: Settings, beam_arguments: list[str], step: str, numbers: list[int], answer: Any) -> None:
    """Runs a pipeline; what the process does that `_run` has started."""
    _end_with(os.getppid())
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        environment.prepare()
        logging.disable(logging.WARNING)  # Of what Beam could use and is not there.
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        from neural_midi_synth.corpus import steps

        together = max(1, min(_MOST_TOGETHER, len(numbers) // _ELEMENTS))
        elements = [numbers[first : first + together] for first in range(0, len(numbers), together)]
        options = PipelineOptions(_with_defaults(beam_arguments))
        with environment.silent_stderr(), beam.Pipeline(options=options) as pipeline:
            _ = pipeline | beam.Create(elements) | beam.ParDo(steps.STEPS[step](settings))
        answer.send(None)
    except BaseException as error:
        answer.send(_told(error))
    finally:
        answer.close()
        os._exit(0)  # Threads of runners would keep the process from ending.


def _end_with(parent: int) -> None:
    """Ends this process when the one that started it has ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        _end(os.getpid())

    threading.Thread(target=watch, daemon=True).start()


def _with_defaults(arguments: list[str]) -> list[str]:
    """Beam's arguments, and what goes without saying: a process a processor, and a file after the other on Dask."""
    given = " ".join(arguments)
    if "--runner" not in given:
        return [
            "--runner=DirectRunner",
            *([] if "--direct_running_mode" in given else ["--direct_running_mode=multi_processing"]),
            *([] if "--direct_num_workers" in given else [f"--direct_num_workers={os.cpu_count() or 1}"]),
            *arguments,
        ]
    if "DaskRunner" in given and "--dask_npartitions" not in given and "--dask_partition_size" not in given:
        return [*arguments, "--dask_partition_size=1"]
    return arguments


def _told(error: BaseException) -> str:
    """What went wrong in a line; a worker's DataError comes wrapped into what the runner says of it."""
    found = re.findall(r"DataError: (.*?)(?: \[while running|\n|$)", str(error))
    if found:
        return found[-1].encode().decode("unicode_escape", "ignore") if "\\n" in found[-1] else found[-1]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"Beam: {lines[-1] if lines else type(error).__name__}"


def _list(settings: Settings, files: list[str]) -> tuple[int, int]:
    """Writes the manifest and the list of what was not played, in the order of the files; returns their lengths."""
    output = pathlib.Path(settings.output)
    counts = [0, 0]
    with write_aside(output / MANIFEST_NAME) as manifest, write_aside(output / NOT_PLAYED_NAME) as refused:
        with open(manifest, "w", encoding="utf-8") as played, open(refused, "w", encoding="utf-8") as not_played:
            for line in jobs_lib.lines(settings, files):
                if line is None:  # Deleted while this was going on.
                    raise DataError(f"{output}: lines are missing. Run the same command again.")
                is_reason = "reason" in line
                counts[is_reason] += 1
                (not_played if is_reason else played).write(json.dumps(line, ensure_ascii=False) + "\n")
    return counts[0], counts[1]
