"""A JACK server without a sound card, and a client of it that plays and listens, for tests of nms_play."""

import collections
import contextlib
import multiprocessing
import multiprocessing.managers
import os
import shutil
import subprocess
import sys
import time
import typing

import numpy as np

PERIOD, SAMPLE_RATE = 256, 48000


def why_not():
    """Why there can be no server here; None where there can."""
    if shutil.which("jackd") is None:
        return "jackd is not installed (Debian: apt install jackd2 libportaudio2)"
    try:
        import jack  # noqa: F401
        import sounddevice  # noqa: F401
    except (ModuleNotFoundError, OSError) as error:
        return f"{error}"
    return None


def _may_go_first():
    """Whether JACK's threads may go before others, as they should."""
    program = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(60))"
    return subprocess.run([sys.executable, "-c", program], stderr=subprocess.DEVNULL, check=False).returncode == 0


class Server:
    """JACK with its dummy driver, under a name of its own.

    In its synchronous mode a client is heard one period after it was asked, and a recording of it has no delay.
    """

    def __init__(self):
        self.name = f"nms_test_{os.getpid()}"

    def start(self, sample_rate=SAMPLE_RATE):
        """Starts the server, and waits until it answers."""
        before = ["-R", "-P", "60"] if _may_go_first() else ["-r"]
        driver = ["-S", "-n", self.name, "-d", "dummy", "-r", str(sample_rate), "-p", str(PERIOD)]
        self._process = subprocess.Popen(
            ["jackd", *before, *driver], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        subprocess.run(
            ["jack_wait", "-w", "-t", "20", "-s", self.name],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self):
        """Ends it."""
        self._process.terminate()
        self._process.wait(20.0)


@contextlib.contextmanager
def running_server(monkeypatch):
    """A server that everything started meanwhile finds."""
    server = Server()
    monkeypatch.setenv("JACK_DEFAULT_SERVER", server.name)
    monkeypatch.setenv("JACK_NO_AUDIO_RESERVATION", "1")
    server.start()
    try:
        yield server
    finally:
        server.stop()


class Heard(typing.NamedTuple):
    """What a player heard and sent, in frames of JACK's clock.

    Attributes:
        samples: What was heard, from the first sample to the last.
        first: Frame of the first of them.
        sent: Messages, each with the frame that it was stamped with.
        stumbled: Frames at which JACK said that it had been too late.
    """

    samples: np.ndarray
    first: int
    sent: list[tuple[int, bytes]]
    stumbled: list[int]


class _Player:
    """Sends MIDI at given samples, and records what another client plays.

    Two clients of JACK: what sends does little, so that it is hardly later than the period's begin that its messages
    are stamped with.
    """

    def __init__(self):
        import jack

        self._sender, self._listener = jack.Client("player"), jack.Client("listener")
        self._out = self._sender.midi_outports.register("keys")
        self._in = self._listener.inports.register("in")
        self._waiting = collections.deque()
        self._sent, self._heard, self._stumbled = [], {}, []
        self._sender.set_process_callback(self._send)
        self._listener.set_process_callback(self._listen)
        self._listener.set_xrun_callback(lambda _: self._stumbled.append(self._listener.frame_time))
        for client in (self._sender, self._listener):
            _activate(client)

    def close(self):
        """Leaves the server."""
        for client in (self._sender, self._listener):
            client.deactivate()
            client.close()

    def listen_to(self, name, seconds=10.0):
        """Connects the first audio output of a client whose name has this in it."""
        until = time.monotonic() + seconds
        while not (ports := self._listener.get_ports(name, is_audio=True, is_output=True)):
            if time.monotonic() > until:
                raise TimeoutError(f"JACK has no output of {name}: {self._listener.get_ports()}")
            time.sleep(0.05)
        self._listener.connect(ports[0], self._in)

    def wait_until_found(self, seconds=10.0):
        """Waits until a program has connected itself to the keys."""
        until = time.monotonic() + seconds
        while not self._out.connections:
            if time.monotonic() > until:
                raise TimeoutError(f"No program found the keys: {self._sender.get_ports(is_midi=True)}")
            time.sleep(0.05)

    def send(self, *messages, periods=0):
        """Sends messages at the begin of a period, so many from now."""
        self._waiting.append((self._sender.frame_time + periods * PERIOD, messages))

    def heard(self):
        """All that was heard and sent until now."""
        heard = dict(self._heard)
        frames = sorted(heard)
        samples = np.zeros(frames[-1] + PERIOD - frames[0], np.float32)
        for frame in frames:
            samples[frame - frames[0] :][:PERIOD] = heard[frame]
        return Heard(samples, frames[0], list(self._sent), list(self._stumbled))

    def _send(self, _):
        self._out.clear_buffer()
        frame = self._sender.last_frame_time
        while self._waiting and self._waiting[0][0] <= frame:
            for message in self._waiting.popleft()[1]:
                self._out.write_midi_event(0, message)
                self._sent.append((frame, message))

    def _listen(self, _):
        self._heard[self._listener.last_frame_time] = np.array(self._in.get_array())


def _activate(client, times=10):
    """Lets a client take part; JACK waits a few periods for its first one, which can be too short on a busy machine."""
    import jack

    for _ in range(times - 1):
        with contextlib.suppress(jack.JackErrorCode):
            client.activate()
            return
        with contextlib.suppress(jack.JackErrorCode):
            client.deactivate()
        time.sleep(0.1)
    client.activate()


class _Players(multiprocessing.managers.BaseManager):
    """Keeps a player in a process of its own."""


_Players.register("Player", _Player)


@contextlib.contextmanager
def player():
    """A player in a process of its own: where JACK brings down its clients, the tests go on."""
    with _Players(ctx=multiprocessing.get_context("spawn")) as players:
        its_player = players.Player()
        yield its_player
        with contextlib.suppress(EOFError, ConnectionError):  # How JACK lets go of a client is not what is tested.
            its_player.close()
