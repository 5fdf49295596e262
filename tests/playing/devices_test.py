"""Keyboards that come and go while they are looked for."""

import time
from types import SimpleNamespace

import pytest

from neural_midi_synth.playing import devices


class _Error(Exception):
    pass


class _Port:
    """A MIDI input of a system with one keyboard, which is gone as often as `misses` says when it is opened."""

    misses = 0
    names = ["Keystation"]

    def __init__(self, api, client):
        self.is_deleted = False

    def get_ports(self):
        return _Port.names

    def set_callback(self, callback):
        self.callback = callback

    def open_port(self, number, name):
        if _Port.misses:
            _Port.misses -= 1
            raise _Error("no ports available!")

    def open_virtual_port(self, name):
        pass

    def delete(self):
        self.is_deleted = True


@pytest.fixture
def rtmidi(monkeypatch):
    fake = SimpleNamespace(API_RTMIDI_DUMMY=9, RtMidiError=_Error, MidiIn=_Port, get_compiled_api=lambda: [1])
    monkeypatch.setattr(devices, "import_rtmidi", lambda: fake)
    return fake


def test_a_keyboard_that_is_plugged_in_again_soon_is_heard_again(rtmidi, monkeypatch):
    told = []
    keyboards = devices.Keyboards(lambda message, when: None, None, told.append)
    for names in ([], ["Keystation"]):
        monkeypatch.setattr(_Port, "names", names)
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            keyboards.tend()
            time.sleep(0.05)
    assert told == ["Keystation: plays.", "Keystation: the keyboard is gone; its notes end.", "Keystation: plays."]
    keyboards.close()


def test_a_keyboard_that_goes_while_it_is_opened_is_opened_when_it_is_back(rtmidi, monkeypatch):
    monkeypatch.setattr(devices, "_LOOK_SECONDS", 0.0)
    _Port.misses, told = 2, []
    keyboards = devices.Keyboards(lambda message, when: None, None, told.append)
    assert keyboards.names == ["nms_play (virtual)"] and told == []
    assert keyboards.tend() == [] and told == []
    assert keyboards.tend() == [] and told == ["Keystation: plays."]
    assert keyboards.names == ["Keystation", "nms_play (virtual)"]
    keyboards.close()
