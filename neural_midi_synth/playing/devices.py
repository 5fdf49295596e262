"""Sound devices and MIDI ports: found, opened, and opened again when they have gone and come back."""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_midi_synth.environment import silent_stderr
from neural_midi_synth.errors import DataError
from neural_midi_synth.playing.extra import import_extra
from neural_midi_synth.playing.live import Live
from neural_midi_synth.playing.output import SteadyClock

if TYPE_CHECKING:
    import mido

Tell = Callable[[str], None]
"""Is told what happens to a device, in a sentence."""

_COMMON_RATES = (48000, 44100)
_CALLBACKS_WATCHED = 8  # Before it plays: what the device asks for, and how late it plays that.
_SILENCE_SECONDS = 2.0  # After so long without a callback a device is gone.
_RETRY_SECONDS = 1.0
_LOOK_SECONDS = 0.25  # A keyboard that went and is back under its name before one looks is taken for one that stayed.
_CLOSE_SECONDS = 3.0
_CLOCK_MEMORY = 5.0  # s
_NO_KEYBOARDS = ("Midi Through", "nms_play", "RtMidi")


class Speakers:
    """A sound device that plays what is live, for as long as it is there.

    Attributes:
        name: Of the device, once it is open.
        is_open: Whether it plays.
    """

    def __init__(self, live: Live, device: str | None, buffer_samples: int, tell: Tell) -> None:
        """Opens a device.

        Args:
            live: What it plays.
            device: Number or part of the name; the system's own choice unless given.
            buffer_samples: How many samples it is to ask for at once; 0 leaves that to the device.
            tell: Is told when the device goes and comes.

        Raises:
            DataError: There is no such device, it can't be opened, or what plays through it is not installed.
        """
        self._live, self._wanted, self._buffer, self._tell = live, device, buffer_samples, tell
        self._sounddevice = import_sounddevice()
        self._stream: Any = None
        self._tried = -_RETRY_SECONDS
        self._is_stuck = False
        self.is_open = False
        self.name = ""
        self._open()

    def tend(self) -> None:
        """Looks after the device; to be called some times a second.

        Raises:
            DataError: The device is gone in such a way that this process can't open another one.
        """
        now = time.perf_counter()
        if self.is_open and (now > self._called + _SILENCE_SECONDS or not self._stream.active):
            self.close()
            if self._is_stuck:
                raise DataError(f"{self.name}: the sound device is gone for good. Start nms_play again.")
            self._tell(f"{self.name}: the sound device is gone; it plays on when there is one again.")
            self._tried = now
        if not self.is_open and now > self._tried + _RETRY_SECONDS:
            self._tried = now
            with contextlib.suppress(DataError):  # It was told once that the device is gone.
                with silent_stderr():
                    self._sounddevice._terminate()  # PortAudio looks for devices only when it begins.
                    self._sounddevice._initialize()
                self._open()
                self._tell(f"{self.name}: plays at {self._live.sample_rate} Hz.")

    def close(self) -> None:
        """Closes the device."""
        self.is_open, self._is_playing = False, False
        stream, self._stream = self._stream, None
        if stream is None:
            return

        def close() -> None:
            with contextlib.suppress(self._sounddevice.PortAudioError):  # One that is gone can't be stopped.
                stream.abort()
            with contextlib.suppress(self._sounddevice.PortAudioError):
                stream.close()

        closer = threading.Thread(target=close, daemon=True)
        closer.start()
        closer.join(_CLOSE_SECONDS)
        if closer.is_alive():
            # A JACK server has ended: PortAudio waits for it for ten minutes, and would do so again at exit.
            self._is_stuck = True
            atexit.unregister(self._sounddevice._exit_handler)

    def _open(self) -> None:
        found = output_device(self._sounddevice, self._wanted)
        rates = dict.fromkeys((int(found["default_samplerate"]), self._live.stream.sample_rate, *_COMMON_RATES))
        self._asked: list[tuple[int, float]] = []
        self._is_playing = False
        self._called = time.perf_counter()
        reason = ""
        for rate in rates:
            try:
                with silent_stderr():
                    self._stream = self._sounddevice.OutputStream(
                        samplerate=rate,
                        blocksize=self._buffer,
                        device=found["index"],
                        channels=min(found["max_output_channels"], 2),
                        dtype="float32",
                        latency="low",
                        callback=self._play,
                    )
                    self._stream.start()
                break
            except self._sounddevice.PortAudioError as error:
                reason = str(error)
        else:
            raise DataError(f"{found['name']}: can't be opened ({reason}). Choose another device with --device.")
        self.name = found["name"]
        until = time.perf_counter() + _SILENCE_SECONDS
        while len(self._asked) < _CALLBACKS_WATCHED:
            if time.perf_counter() > until:
                self.close()
                raise DataError(f"{self.name}: asks for no sound. Choose another device with --device.")
            time.sleep(0.005)
        known = [seconds for _, seconds in self._asked if 0.0 < seconds < 1.0]
        latency = float(np.median(known)) if known else self._stream.latency
        self._live.connect(rate, max(n for n, _ in self._asked), latency)
        self._is_playing = self.is_open = True

    def _play(self, samples: np.ndarray, n_samples: int, times: Any, status: Any) -> None:
        """What PortAudio calls."""
        now = time.perf_counter()
        self._called = now
        if self._is_playing:
            samples[:] = self._live.read(n_samples, now)[:, np.newaxis]
        else:
            samples.fill(0.0)
            self._asked.append((n_samples, times.outputBufferDacTime - times.currentTime))


class Keyboards:
    """MIDI inputs: those that are there and those that come, or a virtual port where there is none.

    Attributes:
        names: Of the ports that are open.
    """

    def __init__(self, receive: Callable[[mido.Message, float], None], wanted: str | None, tell: Tell) -> None:
        """Opens what there is.

        Args:
            receive: Is called with each message, and when it came, s by `time.perf_counter`; from threads of theirs.
            wanted: Part of the names of the ports to open; all unless given.
            tell: Is told when keyboards go and come.

        Raises:
            DataError: No port has that name, or what reads ports is not installed.
        """
        self._rtmidi = import_rtmidi()
        self._receive, self._wanted, self._tell = receive, wanted, tell
        self._ports: dict[tuple[int, str], Any] = {}
        self._virtual: Any = None
        self._looked = 0.0
        with silent_stderr():
            self._lookers = {api: each for api in _midi_systems(self._rtmidi) if (each := self._input(api)) is not None}
        self._look()
        if wanted and not self._ports:
            self.close()
            raise DataError(f"No MIDI input is called '{wanted}'. nms_play --list shows those there are.")
        if not self._ports:
            self._open_virtual()

    @property
    def names(self) -> list[str]:
        """Of the ports that are open, the virtual one last."""
        return [name for _, name in self._ports] + (["nms_play (virtual)"] if self._virtual else [])

    def tend(self) -> list[str]:
        """Looks after the ports; to be called some times a second. Returns the names of those that have gone."""
        if time.perf_counter() < self._looked + _LOOK_SECONDS:
            return []
        return self._look()

    def close(self) -> None:
        """Closes all ports."""
        for port in [*self._ports.values(), *self._lookers.values(), *([self._virtual] if self._virtual else [])]:
            port.delete()
        self._ports, self._lookers, self._virtual = {}, {}, None

    def _look(self) -> list[str]:
        self._looked = time.perf_counter()
        there = {(api, name): i for api, looker in self._lookers.items() for i, name in _keyboards(looker)}
        gone = [key for key in self._ports if key not in there]
        for key in gone:
            self._ports.pop(key).delete()
            self._tell(f"{key[1]}: the keyboard is gone; its notes end.")
        for (api, name), number in there.items():
            if (api, name) not in self._ports and (self._wanted or "").lower() in name.lower():
                port = self._input(api)
                if port is not None:
                    self._listen(port)
                    try:
                        port.open_port(number, "keyboard")
                    except self._rtmidi.RtMidiError:  # It has gone since it was listed.
                        port.delete()
                        continue
                    self._ports[api, name] = port
                    self._tell(f"{name}: plays.")
        return [name for _, name in gone]

    def _open_virtual(self) -> None:
        for api in self._lookers:
            port = self._input(api)
            try:
                port.open_virtual_port("keyboard")
            except (self._rtmidi.RtMidiError, NotImplementedError):  # Windows has none.
                port.delete()
                continue
            self._listen(port)
            self._virtual = port
            return

    def _input(self, api: int) -> Any:
        try:
            return self._rtmidi.MidiIn(api, "nms_play")
        except self._rtmidi.RtMidiError:  # The system has no such service, or it does not run.
            return None

    def _listen(self, port: Any) -> None:
        """Messages keep the time that the driver gives them, whenever our thread gets to see them."""
        import mido

        clock, counted = SteadyClock(_CLOCK_MEMORY), 0.0

        def callback(event: tuple[list[int], float], _: Any) -> None:
            nonlocal counted
            content, seconds_since = event
            counted += seconds_since
            when = clock.see(counted, time.perf_counter())
            try:
                message = mido.Message.from_bytes(content)
            except ValueError:  # Noise on the line is no message.
                return
            self._receive(message, when)

        port.set_callback(callback)


def import_sounddevice() -> ModuleType:
    """PortAudio's package.

    Raises:
        DataError: It is not installed, or PortAudio is not; with the command that mends it.
    """
    try:
        with silent_stderr():
            return import_extra("sounddevice", "sounddevice")
    except OSError as error:
        raise DataError("Live play needs PortAudio: on Debian or Ubuntu, `apt install libportaudio2`.") from error


def import_rtmidi() -> ModuleType:
    """RtMidi's package.

    Raises:
        DataError: It is not installed; with the command that mends it.
    """
    return import_extra("rtmidi", "python-rtmidi")


def listed() -> tuple[list[str], list[str]]:
    """The sound devices, with their numbers, and the MIDI inputs there are.

    Raises:
        DataError: What finds them is not installed.
    """
    sounddevice, rtmidi = import_sounddevice(), import_rtmidi()
    outputs = [
        f"{device['index']}: {device['name']}, {device['default_samplerate']:g} Hz"
        for device in sounddevice.query_devices()
        if device["max_output_channels"]
    ]
    inputs = []
    with silent_stderr():
        for api in _midi_systems(rtmidi):
            with contextlib.suppress(rtmidi.RtMidiError):  # A system without that service.
                looker = rtmidi.MidiIn(api, "nms_play")
                inputs += [name for _, name in _keyboards(looker)]
                looker.delete()
    return outputs, inputs


def output_device(sounddevice: ModuleType, wanted: str | None) -> dict[str, Any]:
    """Chooses a sound device.

    Args:
        sounddevice: PortAudio's package.
        wanted: Number or part of the name; the system's own choice unless given.

    Returns:
        What PortAudio tells of it.

    Raises:
        DataError: There is none, or none of that name.
    """
    devices = [device for device in sounddevice.query_devices() if device["max_output_channels"]]
    if not devices:
        server = " or start JACK" if sys.platform == "linux" else ""
        raise DataError(f"There is no sound device. Connect one{server}; nms_play --list shows those there are.")
    if wanted is None:
        default = sounddevice.default.device[1]
        return next((device for device in devices if device["index"] == default), devices[0])
    for device in devices:
        if wanted == str(device["index"]) or (not wanted.isdigit() and wanted.lower() in device["name"].lower()):
            return device
    raise DataError(f"No sound device is called '{wanted}'. nms_play --list shows those there are.")


def _midi_systems(rtmidi: ModuleType) -> list[int]:
    return [api for api in rtmidi.get_compiled_api() if api != rtmidi.API_RTMIDI_DUMMY]


def _keyboards(looker: Any) -> Iterator[tuple[int, str]]:
    """Number and name of each port that may be a keyboard."""
    for number, name in enumerate(looker.get_ports()):
        if not name.startswith(_NO_KEYBOARDS):
            yield number, name
