"""How the benchmarks measure: time in turns, memory in a process of its own, and that both compute the same."""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from neural_midi_synth.instrument.oscillators import polynomial_sines
from neural_midi_synth.instrument.recurrent import on_gpu

SAME = 1e-4  # of the peak: how near ours must come to stock.
_MIN_REPEATS, _MAX_REPEATS = 3, 25


class DifferentError(Exception):
    """Ours and stock do not compute the same, so their times mean nothing."""


def check_same(what: str, ours: Any, stock: Any, tolerance: float = SAME) -> None:
    """Raises DifferentError unless two nests of tensors are the same to `tolerance` of each tensor's peak."""
    for our, their in zip(tf.nest.flatten(ours), tf.nest.flatten(stock), strict=True):
        our, their = np.asarray(our), np.asarray(their)
        difference = np.abs(our - their).max() / np.abs(their).max()
        if not difference <= tolerance:
            raise DifferentError(f"{what}: ours differs from stock by {difference:.2g} of the peak.")


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Times calls in turns: the first, the second …, the first again, so that a busy moment hits all of them.

    A turn is two calls, of which the second is timed, as it is when calls of one kind follow each other.

    Args:
        calls: What to call, by name. Each is called once before, which traces its graph.
        seconds: How long to repeat; three times in any case.

    Returns:
        The median time of each, s.
    """
    for call in calls.values():
        _finished(call())
    times: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for repeat in range(_MAX_REPEATS):
        if repeat >= _MIN_REPEATS and time.perf_counter() - began > seconds:
            break
        for name, call in calls.items():
            _finished(call())
            start = time.perf_counter()
            _finished(call())
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) for name, each in times.items()}


def _finished(results: Any) -> None:
    for result in tf.nest.flatten(results):
        if tf.is_tensor(result):
            result.numpy()


def median_time(call: Callable[[], Any], repeats: int) -> float:
    """The median time of a call that was called before, s."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        _finished(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def gradient(
    function: Callable[..., Any],
    inputs: Sequence[tf.Tensor],
    fixed: Sequence[tf.Tensor] = (),
    variables: Sequence[tf.Variable] = (),
    as_trained: bool = False,
) -> Callable[[], list[tf.Tensor]]:
    """Makes a call that runs `function(*inputs, *fixed)` forward and backward, in a graph.

    Args:
        function: Gives a tensor, or a nest of them.
        inputs: With respect to which there are gradients.
        fixed: With respect to which there are none.
        variables: With respect to which there are gradients, too.
        as_trained: Whether the graph is compiled by XLA, as `Instrument.train_step` has it where there is no GPU.

    Returns:
        A function without arguments that returns the gradients of the sum of all outputs, each with a weight of its
        own.
    """
    compiled = as_trained and not on_gpu()

    @functools.partial(tf.function, jit_compile=compiled)
    def run(inputs: Sequence[tf.Tensor], fixed: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        with polynomial_sines() if compiled else contextlib.nullcontext(), tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = tf.nest.flatten(function(*inputs, *fixed))
            loss = tf.add_n([tf.reduce_sum(output * _weights(output.shape)) for output in outputs])
        return tape.gradient(loss, [*inputs, *variables])

    traced = run.get_concrete_function(list(inputs), list(fixed))
    return lambda: traced(list(inputs), list(fixed))


def _weights(shape: tf.TensorShape) -> tf.Tensor:
    """From -1 to 1 along the second axis, so that no gradient is the same everywhere."""
    if len(shape) < 2:
        return tf.ones(shape)
    return tf.reshape(tf.cos(0.3 * tf.range(shape[1], dtype=tf.float32)), [1, -1, *[1] * (len(shape) - 2)])


def in_a_process(of: str, quick: bool, **what: Any) -> dict[str, float]:
    """Has one of the `measurements` done in a Python of its own, where nothing else takes memory.

    Args:
        of: Name of the measurement.
        quick: Whether its sizes are the tiny ones.
        **what: Its arguments.

    Returns:
        What it returns, and `memory`: the peak, without what there was before, MB.
    """
    command = [sys.executable, str(pathlib.Path(__file__).with_name("bench.py")), "--measure", json.dumps([of, what])]
    answer = subprocess.run([*command, *(["--quick"] if quick else [])], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])


def memory() -> tuple[float, float]:
    """Resident memory of this process now, and at its peak, MB; both the peak where there is no /proc."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return peak, peak
    # Not ru_maxrss, which begins with the peak of the process that started this one.
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return tuple(int(fields[name].split()[0]) / 2**10 for name in ("VmRSS", "VmHWM"))


def profile(call: Callable[[], Any]) -> list[tuple[str, float]]:
    """Runs a call once and tells its kinds of TensorFlow operations, the costliest first, and their seconds."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    _finished(call())
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            _finished(call())
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    seconds: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                # Operations are named 'their/path:Kind'; what runs them, 'Class::method'.
                path, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
                if colon and kind.isidentifier() and not path.endswith(":"):
                    seconds[kind] += event.duration_ps * 1e-12
    return seconds.most_common()


def bounds() -> tuple[float, float]:
    """What TensorFlow gets out of this machine at best: flop/s in matrix products, and bytes moved a second."""
    matrix, long = tf.ones([2048, 2048]), tf.Variable(tf.ones([2**25]))
    add = functools.partial(long.assign_add, tf.ones_like(long), read_value=False)
    times = interleaved({"product": lambda: matrix @ matrix, "sum": add}, 1.0)
    return 2.0 * 2048.0**3 / times["product"], 3.0 * 4.0 * 2.0**25 / times["sum"]
