"""From notes to control frames: the one place where MIDI becomes the input of a network, in graph.

Training, rendering, streaming and the exported model all call `Controls`, so they cannot drift apart. Times are rounded
to frames once, in float64 and int64; every frame is then found by bisection, so the work is linear in the number of
frames and the result does not depend on where a block begins. `Score` keeps it linear in the length of the music: it
finds the few rows that matter to a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gin
import numpy as np
import tensorflow as tf

from neural_midi_synth.midi.pieces import in_force

PADDING = -1.0e9
"""Rows whose time is at or below this, or is not finite, are ignored: batches of unequal length are padded with it."""

LONG_AGO = 100.0
"""Seconds: `distance_from_offset` before the first note."""

COLUMNS = {"notes": 4, "control_changes": 3, "pitch_bends": 2}
"""Columns of each kind of row."""

VELOCITY = "velocity"
"""The channel that tells whether there has been a note: it is above 0 from the first one on."""
_NOTE_CHANNELS = (
    "f0_midi",
    VELOCITY,
    "gate",
    "distance_from_onset",
    "distance_to_offset",
    "distance_from_offset",
    "onset",
)
_CC_CHANNELS = tuple(f"cc_{number}" for number in range(128))
_FAR = 2**52  # frames: later than any note, and exact in float64
ONSET = "onset"
"""The channel with which notes begin to the sample."""
ATTACK = 1.0 / 16.0
"""Share of a hop in which a note rises, where it begins to the sample."""

# A note takes effect at the first frame that comes after its rise, and where in the hop before it begins is told in
# 64ths, an eighth of a millisecond at 125 frames a second. Both numbers are a little more than a rise and a half: times
# that are common in music then lie well away from where rounding turns, and one that came as float32 finds the same.
_TO_NEXT = 0.0794
_PLACES, _TO_PLACE = 64.0, 0.56
# An event goes to the nearest frame, and one exactly between two frames to the later one: a half is added, then the
# fraction dropped. Such times are common in music (at 125 frames a second, half a second is one). A time that came as
# float32 may be too early, by up to a 64th of a frame within a quarter of an hour; so as much more is added.
_TO_NEAREST = 0.5 + 1.0 / 64.0


@gin.configurable(module="nms")
def hop(sample_rate: int = gin.REQUIRED, frame_rate: int = gin.REQUIRED) -> int:
    """Samples a frame, for configs, which give the two rates once and take the hop from them.

    Args:
        sample_rate: Samples a second.
        frame_rate: Control frames a second; a divisor of the sample rate.

    Raises:
        ValueError: The frame rate does not divide the sample rate.
    """
    if frame_rate < 1 or sample_rate % frame_rate:
        raise ValueError(f"hop: the frame rate {frame_rate} does not divide {sample_rate} Hz.")
    return sample_rate // frame_rate


def frame_of(seconds: float, frame_rate: int) -> int:
    """The control frame at which an event takes effect: the nearest one, the later one of two that are equally near.

    Files, streams and exported models all use it, so an event given to a stream for this frame plays as it does in a
    file. A host that counts samples calls it with `sample / sample_rate`.

    Args:
        seconds: Time of the event.
        frame_rate: Control frames a second.

    Returns:
        The frame's number.
    """
    return math.floor(seconds * frame_rate + _TO_NEAREST)


class Lookup:
    """Finds the rows that are in force at frames: times are float64, and rows are found by bisection.

    Attributes:
        dtype: Of times and values.
    """

    dtype = tf.float64

    def is_finite(self, rows: tf.Tensor) -> tf.Tensor:
        """Which values are finite."""
        return tf.math.is_finite(rows)

    def last_at(self, event_frames: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
        """The last event at or before each frame.

        Args:
            event_frames: Of events in order, int64 `[batch, n]`.
            frames: int64 `[batch, n_frames]`.

        Returns:
            Its index, int32 `[batch, n_frames]`; -1 where there is none.
        """
        return tf.searchsorted(event_frames, frames, side="right") - 1


_BISECTION = Lookup()


@gin.configurable(module="nms")
class Controls:
    """Turns the notes of a voice into control frames.

    Frame `i` stands for the time `i / frame_rate`. The channels:

    | channel | value | unit |
    |---|---|---|
    | `f0_midi` | pitch of the newest note, bent; held after it ends until the next onset | MIDI note number |
    | `velocity` | of the newest note, held likewise; 0 before the first, where a voice is silent | 0 to 1 |
    | `gate` | 1 while the note lasts, else 0 | |
    | `distance_from_onset` | since the note began, 0 when none lasts | s |
    | `distance_to_offset` | until the note ends, 0 when none lasts; needs the future | s |
    | `distance_from_offset` | since the note ended, 0 while one lasts | s |
    | `cc_N` | control change N, held between events; its default before the first | 0 to 1 |
    | `onset` | where a note began in the hop before the frame; -1 where none did | hops, 0 to 1 |

    With the channel `onset`, which an instrument adds where its processors take it, notes begin to the sample: a note
    takes effect at the first frame after its onset, and `distance_from_onset` is the time since the onset itself; it
    ends with the first frame after its end. Without it a note begins and ends at the frame that is nearest.

    Attributes:
        channels: Names of the channels, in order.
        frame_rate: Frames a second.
        styles: Style name → controller number.
        needs_future: The channels that cannot be known live.
    """

    def __init__(
        self,
        channels: tuple[str, ...] = gin.REQUIRED,
        frame_rate: int = gin.REQUIRED,
        styles: dict[str, int] | None = None,
        defaults: dict[str, float] | None = None,
        default_pitch: float = 60.0,
    ) -> None:
        """Names the channels.

        Args:
            channels: Names of channels, as in the table above.
            frame_rate: Frames a second, a whole number.
            styles: Style name → controller number, such as `{'openness': 55}`.
            defaults: Style name → control change value (0 to 127) where a file has none; 0 where not named.
            default_pitch: MIDI note number before the first note.

        Raises:
            ValueError: A channel or a default that is not known, or a frame rate that is not a whole number.
        """
        self.channels = tuple(channels)
        if frame_rate != int(frame_rate) or frame_rate < 1:
            raise ValueError(f"Controls.frame_rate: {frame_rate} is not a whole number from 1.")
        self.frame_rate = int(frame_rate)
        self.styles = dict(styles or {})
        self.default_pitch = float(default_pitch)
        defaults = dict(defaults or {})
        for channel in self.channels:
            if channel not in _NOTE_CHANNELS and channel not in _CC_CHANNELS:
                raise ValueError(
                    f"Controls.channels: unknown channel '{channel}'; choose from {', '.join(_NOTE_CHANNELS)}, cc_N."
                )
        unknown = sorted(set(defaults) - set(self.styles))
        if unknown:
            raise ValueError(f"Controls.defaults: '{unknown[0]}' is not one of the styles {sorted(self.styles)}.")
        self._cc_defaults = {self.styles[style]: float(value) for style, value in defaults.items()}
        self.needs_future = tuple(channel for channel in self.channels if channel == "distance_to_offset")

    def add(self, channel: str) -> None:
        """Adds a channel of notes, unless it is there."""
        if channel not in self.channels:
            self.channels += (channel,)

    @property
    def defaults(self) -> dict[str, float]:
        """Style name → control change value (0 to 127) where there is none, for the styles that have a channel."""
        return {
            style: self._cc_defaults.get(number, 0.0)
            for style, number in self.styles.items()
            if f"cc_{number}" in self.channels
        }

    def __call__(
        self,
        notes: tf.Tensor,
        control_changes: tf.Tensor,
        pitch_bends: tf.Tensor,
        n_frames: int | tf.Tensor,
        first_frame: int | tf.Tensor = 0,
        lookup: Lookup = _BISECTION,
    ) -> dict[str, tf.Tensor]:
        """Computes control frames.

        Rows need no order. Rows padded with `PADDING` are ignored, and so are notes that do not last and rows with
        values that are not finite.

        Args:
            notes: `[batch, n, 4]`: start s, end s, MIDI pitch, velocity (0 to 127). float32 or float64; float32 finds
                the same frames for a quarter of an hour, float64 for ever.
            control_changes: `[batch, m, 3]`: time s, controller number, value (0 to 127).
            pitch_bends: `[batch, k, 2]`: time s, semitones.
            n_frames: Number of frames.
            first_frame: Frame number of the first one, a scalar or `[batch]`.
            lookup: How rows are found, for those that can't bisect.

        Returns:
            Channel name → float32 `[batch, n_frames, 1]`.
        """
        batch = tf.shape(notes)[0]
        first_frame = tf.broadcast_to(tf.cast(first_frame, tf.int64), [batch])
        frames = first_frame[:, tf.newaxis] + tf.range(tf.cast(n_frames, tf.int64))

        values = self._note_channels(notes, pitch_bends, frames, lookup)
        for channel in self.channels:
            if channel.startswith("cc_"):
                number = int(channel[3:])
                value, known = _held(control_changes, frames, self.frame_rate, lookup, number)
                value = tf.where(known, value, self._cc_defaults.get(number, 0.0))
                values[channel] = tf.clip_by_value(value / 127.0, 0.0, 1.0)
        return {channel: tf.cast(values[channel], tf.float32)[..., tf.newaxis] for channel in self.channels}

    def _note_channels(
        self, notes: tf.Tensor, pitch_bends: tf.Tensor, frames: tf.Tensor, lookup: Lookup
    ) -> dict[str, tf.Tensor]:
        dtype = lookup.dtype
        notes = _with_padding_row(notes, dtype)
        notes = _sorted(notes, has_length(notes, lookup))
        begins = notes[..., 0]
        to_frame = _to_next_frame if ONSET in self.channels else _to_frames
        onset, end = (to_frame(each, self.frame_rate) for each in (begins, notes[..., 1]))
        next_onset = tf.concat([onset[:, 1:], tf.fill([tf.shape(onset)[0], 1], tf.constant(_FAR, tf.int64))], axis=1)
        # However short, a note lasts a frame; however long, it ends where the next begins.
        offset = tf.minimum(tf.maximum(end, onset + 1), next_onset)

        index, known = _last_at(onset, frames, lookup)
        onset, offset, begins = (tf.gather(x, index, batch_dims=1) for x in (onset, offset, begins))
        pitch, velocity = (tf.gather(notes[..., column], index, batch_dims=1) for column in (2, 3))
        gate = known & (frames < offset)
        bend, bent = _held(pitch_bends, frames, self.frame_rate, lookup)

        def seconds(distance: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.where(where, distance, 0), dtype) / self.frame_rate

        since_onset = seconds(frames - onset, gate)
        begins_at = tf.fill(tf.shape(frames), tf.constant(-1.0, dtype))
        if ONSET in self.channels:
            hops = begins * self.frame_rate
            since_onset = tf.where(gate, tf.cast(frames, dtype) - hops, 0.0) / self.frame_rate
            within = tf.floor((hops - tf.cast(onset - 1, dtype)) * _PLACES + _TO_PLACE) / _PLACES
            within = tf.clip_by_value(within, 0.0, 1.0 - ATTACK)
            begins_at = tf.where(known & (frames == onset), within, begins_at)
        pitch = tf.where(known, pitch, self.default_pitch) + tf.where(bent, bend, 0.0)
        return {
            "f0_midi": tf.clip_by_value(pitch, 0.0, 127.0),
            VELOCITY: tf.clip_by_value(tf.where(known, velocity, 0.0) / 127.0, 0.0, 1.0),
            "gate": tf.cast(gate, tf.float32),
            "distance_from_onset": since_onset,
            "distance_to_offset": seconds(offset - frames, gate),
            "distance_from_offset": tf.where(
                known, seconds(frames - offset, known & ~gate), tf.constant(LONG_AGO, dtype)
            ),
            ONSET: begins_at,
        }


def has_length(notes: tf.Tensor, lookup: Lookup = _BISECTION) -> tf.Tensor:
    """Which rows are notes, neither padding nor without length: `[batch, n, 4]` to bool `[batch, n]`."""
    finite = tf.reduce_all(lookup.is_finite(notes), axis=-1)
    return finite & (notes[..., 0] > PADDING) & (notes[..., 1] > notes[..., 0])


def voices_of(features: Mapping[str, tf.Tensor]) -> int:
    """Voices of each piece in a batch of features: `notes` are `[batch, n, 4]`, or `[batch, voices, n, 4]`."""
    notes = features["notes"]
    return notes.shape[1] if len(notes.shape) == 4 else 1


def _with_padding_row(rows: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Rows with one row of padding more, so that there is always a row to gather."""
    rows = tf.cast(rows, dtype)
    return tf.pad(rows, [[0, 0], [0, 1], [0, 0]], constant_values=PADDING)


def _sorted(rows: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Rows by time, in their given order where times are equal; those that are not valid go last and get no time."""
    times = tf.where(valid, rows[..., 0], float("inf"))
    order = tf.argsort(times, axis=-1, stable=True)
    rows = tf.concat([times[..., tf.newaxis], tf.where(valid[..., tf.newaxis], rows[..., 1:], 0.0)], axis=-1)
    return tf.gather(rows, order, batch_dims=1)


def _to_frames(times: tf.Tensor, frame_rate: int) -> tf.Tensor:
    """Seconds to the nearest frame, int64."""
    return tf.cast(tf.clip_by_value(tf.floor(times * frame_rate + _TO_NEAREST), -float(_FAR), float(_FAR)), tf.int64)


def _to_next_frame(times: tf.Tensor, frame_rate: int) -> tf.Tensor:
    """Seconds to the first frame after them, by a rise and more, int64."""
    frames = tf.floor(times * frame_rate + _TO_NEXT) + 1.0
    return tf.cast(tf.clip_by_value(frames, -float(_FAR), float(_FAR)), tf.int64)


def _last_at(event_frames: tf.Tensor, frames: tf.Tensor, lookup: Lookup) -> tuple[tf.Tensor, tf.Tensor]:
    """Index of the last event at or before each frame, and whether there is one."""
    index = lookup.last_at(event_frames, frames)
    return tf.maximum(index, 0), index >= 0


def _held(
    events: tf.Tensor, frames: tf.Tensor, frame_rate: int, lookup: Lookup, number: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The value in force at each frame, and whether there is one; of one controller where `number` is given."""
    events = _with_padding_row(events, lookup.dtype)
    valid = tf.reduce_all(lookup.is_finite(events), axis=-1) & (events[..., 0] > PADDING)
    if number is not None:
        valid &= tf.equal(events[..., 1], number)
    events = _sorted(events, valid)
    index, known = _last_at(_to_frames(events[..., 0], frame_rate), frames, lookup)
    return tf.gather(events[..., -1], index, batch_dims=1), known


class Score:
    """A piece whose rows that matter to a block are found at once, however many it has."""

    def __init__(self, voices: Sequence[Mapping[str, np.ndarray]], frame_rate: int) -> None:
        """Sorts the rows.

        Args:
            voices: `notes`, `control_changes` and `pitch_bends` of each voice, float64 `[n, columns]`.
            frame_rate: Of the `Controls` that will take them.
        """
        self._voices = [list(_by_kind(rows, frame_rate)) for rows in voices]

    def rows(self, first_frame: int, end_frame: int) -> dict[str, np.ndarray]:
        """Of each kind of event the one in force at `first_frame`, those before `end_frame`, and the next one.

        Args:
            first_frame: Of the block.
            end_frame: The one after its last.

        Returns:
            What `Controls` takes, a voice a row: float64 `[voices, n, columns]`.
        """
        voices = []
        for kinds in self._voices:
            found: dict[str, list[np.ndarray]] = {name: [np.zeros([0, n])] for name, n in COLUMNS.items()}
            for name, frames, rows in kinds:
                # A note that begins to the sample takes effect up to a frame later than at the nearest.
                first, end = max(in_force(frames, first_frame - 1), 0), np.searchsorted(frames, end_frame) + 1
                found[name].append(rows[first:end])
            voices.append({name: np.concatenate(rows) for name, rows in found.items()})
        return padded(voices)


def _by_kind(rows: Mapping[str, np.ndarray], frame_rate: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, frames and rows, by time, of each kind of event: notes, bends, and each controller by itself."""
    for name in COLUMNS:
        usable = np.isfinite(rows[name]).all(axis=1) & (rows[name][:, 0] > PADDING)
        if name == "notes":
            usable &= rows[name][:, 1] > rows[name][:, 0]
        of_kind = rows[name][usable]
        numbers = of_kind[:, 1] if name == "control_changes" else np.zeros(len(of_kind))
        for number in np.unique(numbers):
            of_number = of_kind[numbers == number]
            of_number = of_number[np.argsort(of_number[:, 0], kind="stable")]
            yield name, np.floor(of_number[:, 0] * frame_rate + _TO_NEAREST), of_number


def padded(voices: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of voices as `Controls` takes them: float64 `[voices, n, columns]`, filled up with `PADDING`."""
    result = {}
    for name, columns in COLUMNS.items():
        of_voices = [np.asarray(rows[name], np.float64).reshape([-1, columns]) for rows in voices]
        filled = np.full([len(voices), max(map(len, of_voices)), columns], PADDING)
        for row, of_voice in zip(filled, of_voices):
            row[: len(of_voice)] = of_voice
        result[name] = filled
    return result
