"""The web page plays in a real browser what the instrument plays, whatever is done to it."""

import io
import json
import pathlib
import time

import mido
import numpy as np
import pytest
import soundfile
import tensorflow as tf
from web_browser import ISOLATED, chromium, serve, why_not

import neural_midi_synth as nms
from neural_midi_synth import configs
from neural_midi_synth.errors import DataError
from neural_midi_synth.exporting import web_page
from neural_midi_synth.exporting.web_page import Exhibit
from neural_midi_synth.instrument.loading import PRETRAINED, build, configure
from neural_midi_synth.midi.pieces import Voice

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"left out: {why_not()}")

# The promise, of full scale; the wav file's 16 bits are in it.
PROMISED = 1e-3
PIECES = web_page.PAGE / "pieces"
SHORT = "test_midi_extra_long_open_closed.mid"
A2, E3 = 45, 52

FAKE_MIDI = """
const input = Object.assign(new EventTarget(), {
  id: "1", name: "Fake keyboard", manufacturer: "", type: "input", state: "connected", connection: "open",
  version: "", open: async () => input, close: async () => input, onmidimessage: null, onstatechange: null,
});
const access = Object.assign(new EventTarget(), {
  inputs: new Map([["1", input]]), outputs: new Map(), sysexEnabled: false, onstatechange: null,
});
navigator.requestMIDIAccess = async () => access;
window.sendMidi = (...data) => {
  const event = Object.assign(new Event("midimessage"), { data: new Uint8Array(data) });
  input.dispatchEvent(event);
  input.onmidimessage?.(event);
};
"""


# What is put before the worker's script: it takes the time from messages, or needs 60 ms more for each block.
TOLD_TIME = """
addEventListener("message", ({ data }) => {
  if (data.type === "clock") performance.now = () => 1000 * data.seconds - performance.timeOrigin;
});
"""
SLOW_ANSWERS = """
const answer = MessagePort.prototype.postMessage;
MessagePort.prototype.postMessage = function (...message) {
  for (const until = Date.now() + 60; Date.now() < until; );
  answer.apply(this, message);
};
"""
BLOCK_SECONDS = """async () => {
  const [{ block_frames, frame_rate }] = (await (await fetch("instruments.json")).json()).instruments;
  return block_frames / frame_rate;
}"""
# Plays a worker of its own block after block; each hears of the keys that were pressed since the one before.
PLAY_AT_TIMES = """async (pressed) => {
  const here = (path) => new URL(path, document.baseURI).href;
  const [instrument] = (await (await fetch("instruments.json")).json()).instruments;
  const script = performance.getEntriesByType("resource").find(({ name }) => name.includes("/worker-")).name;
  const worker = new Worker(script);
  const told = (type) => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.type === type) resolve(data);
      else if (data.type === "failed") reject(new Error(data.message));
    };
  });
  worker.postMessage({ type: "load", instrument, model: here(instrument.model), runtime: here("litert/") });
  await told("loaded");
  const { port1, port2 } = new MessageChannel();
  worker.postMessage({ type: "begin", port: port2, ring: null }, [port2]);
  const events = pressed.flatMap((time) => [
    { seconds: time, event: { what: "noteOn", values: [52, 110] } },
    { seconds: time + 0.06, event: { what: "noteOff", values: [52] } },
  ]);
  const heard = [];
  const length = instrument.block_frames / instrument.frame_rate;
  for (let now = 0; now < pressed.at(-1) + 0.5; now += length) {
    while (events.length && events[0].seconds <= now) {
      const { seconds, event } = events.shift();
      worker.postMessage({ type: "event", channel: "keys", event, when: 1000 * seconds });
    }
    worker.postMessage({ type: "clock", seconds: now });
    worker.postMessage({ type: "heard", id: 1 });
    await told("audio"); // So all of that has come.
    const block = new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
    port1.postMessage({ type: "pull" });
    heard.push(...(await block));
  }
  worker.terminate();
  return heard;
}"""


def _with(prefix):
    """Answers for a script: itself, with something before it."""

    def answer(route):
        original = route.fetch()
        route.fulfill(response=original, body=prefix + original.text())

    return answer


@pytest.fixture(scope="module")
def guitar():
    return nms.load()


@pytest.fixture(scope="module")
def folder(guitar, tmp_path_factory):
    """A page with the guitar and a small instrument that must know when notes end."""
    tf.random.set_seed(0)
    small = ["Decoder.units = 16", "Decoder.layers = 1", "Decoder.rnn_units = 16"]
    configure([configs.find("models/guitar_16k.gin")], small, skip_unknown=True)
    exhibits = [Exhibit(guitar, "demo_guitar", PRETRAINED), Exhibit(build(), "small")]
    return web_page.write(exhibits, tmp_path_factory.mktemp("web") / "site").parent


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def address(folder):
    with serve(folder) as address:
        yield address


@pytest.fixture
def open_page(browser, address):
    """Opens the page: `open_page(script)`. In the end, nothing went wrong and nobody else was asked for anything."""
    contexts, wrong = [], []

    def open_one(script="", at=None, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        home = at or address
        page.on("pageerror", lambda error: wrong.append(f"uncaught: {error}"))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("request", lambda it: wrong.append(it.url) if not it.url.startswith((home, f"blob:{home}")) else None)
        if script:
            page.add_init_script(script)
        page.goto(home)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def page(open_page):
    """The page when it is ready."""
    page = open_page()
    page.wait_for_selector("body.ready")
    return page


def saved(page, button="#save"):
    """What a button saves."""
    with page.expect_download(timeout=120_000) as download:
        page.click(button)
    audio, _ = soundfile.read(download.value.path(), dtype="float32")
    return audio


def until(page, condition, seconds=30.0):
    """Waits for what a script says; Playwright's own way would need an evaluation that the page does not allow."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(20)


def drop(page, content, name="dropped.mid"):
    """Drops a file on the page; returns what it then says."""
    page.evaluate("document.getElementById('message').textContent = ''")
    page.evaluate(
        """([bytes, name]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        }""",
        [list(content), name],
    )
    until(page, "document.getElementById('message').textContent !== ''")
    return page.inner_text("#message")


def press(page, pitch, height=0.8, milliseconds=400):
    """Presses a key of the keyboard on screen for a while."""
    box = page.locator(f'[data-pitch="{pitch}"]').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + height * box["height"])
    page.mouse.down()
    page.wait_for_selector(f'[data-pitch="{pitch}"].sounds')
    page.wait_for_timeout(milliseconds)
    page.mouse.up()
    page.wait_for_selector(f'[data-pitch="{pitch}"]:not(.sounds)')


def pitches_in(audio, sample_rate):
    """The lowest strong partial of each stretch of a sixth of a second that is not silent, as MIDI note numbers."""
    found = set()
    size = sample_rate // 6
    for begin in range(0, len(audio) - size, size // 2):
        stretch = audio[begin : begin + size]
        if np.abs(stretch).max() > 0.02:
            spectrum = np.abs(np.fft.rfft(stretch * np.hanning(size), 8 * size))
            lowest = np.argmax(spectrum > 0.3 * spectrum.max())
            top = lowest + np.argmax(spectrum[lowest : lowest + 64])
            found.add(round(69 + 12 * np.log2(top * sample_rate / (8 * size) / 440)))
    return found


def midi_of_a_band():
    """Chords under the pedal, strings with bends of their own range, tempo changes, drums: two pitched parts."""
    midi = mido.MidiFile(type=1, ticks_per_beat=480)
    conductor, chords, lead = (midi.add_track(name) for name in ("", "Chords", "Lead"))
    conductor += [
        mido.MetaMessage("set_tempo", tempo=600_000),
        mido.MetaMessage("set_tempo", tempo=300_000, time=960),
    ]
    chords.append(mido.Message("program_change", program=29))
    for beat, root in enumerate((40, 45, 43)):
        if beat == 1:
            chords.append(mido.Message("control_change", control=64, value=127))
        for pitch in (root, root + 7, root + 12):
            chords.append(mido.Message("note_on", note=pitch, velocity=90))
        chords.append(mido.Message("control_change", control=55, value=40 * beat))
        for i, pitch in enumerate((root, root + 7, root + 12)):
            chords.append(mido.Message("note_off", note=pitch, time=0 if i else 400))
        chords.append(mido.Message("control_change", control=64, value=0, time=120))
    for number, value in ((101, 0), (100, 0), (6, 12)):
        lead.append(mido.Message("control_change", channel=3, control=number, value=value))
    lead.append(mido.Message("note_on", channel=3, note=76, velocity=100))
    lead.append(mido.Message("pitchwheel", channel=3, pitch=2048, time=100))
    lead.append(mido.Message("note_off", channel=3, note=76, time=300))
    lead += [mido.Message("note_on", channel=9, note=38, velocity=100)]
    lead += [mido.Message("note_off", channel=9, note=38, time=100)]
    written = io.BytesIO()
    midi.save(file=written)
    return written.getvalue()


def midi_of_strings():
    """A melody for each of three strings, each on a MIDI channel that bends by itself."""
    midi = mido.MidiFile(type=0, ticks_per_beat=480)
    track = midi.add_track()
    for channel in range(3):
        track.append(mido.Message("pitchwheel", channel=channel, pitch=1000 * channel))
        track.append(mido.Message("note_on", channel=channel, note=40 + 5 * channel, velocity=100, time=30))
    for channel in range(3):
        track.append(mido.Message("pitchwheel", channel=channel, pitch=-1000 * channel, time=200))
        track.append(mido.Message("note_off", channel=channel, note=40 + 5 * channel, time=100))
    written = io.BytesIO()
    midi.save(file=written)
    return written.getvalue()


@pytest.mark.slow
def test_it_plays_the_published_example_as_the_instrument_renders_it(page, guitar):
    page.select_option("#pieces", label="Extra long open closed")
    expected = guitar.render(PIECES / SHORT)
    played = saved(page)
    assert np.abs(expected).max() > 0.1
    assert len(played) == len(expected)
    np.testing.assert_allclose(played, np.clip(expected, -1.0, 1.0), rtol=0.0, atol=PROMISED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content, styles",
    [(midi_of_a_band(), {}), (midi_of_strings(), {"openness": 127, "power_chord": 127})],
    ids=["band", "strings"],
)
def test_it_reads_a_dropped_file_as_the_library_does(page, guitar, tmp_path, content, styles):
    (tmp_path / "dropped.mid").write_bytes(content)
    expected = guitar.render(tmp_path / "dropped.mid", styles=styles)
    if styles:
        page.fill("#style-55", "127")
        page.check("#style-56")
    assert drop(page, content) == "dropped.mid is ready to play."
    played = saved(page)
    assert np.abs(expected).max() > 0.1
    # Frames of a block more, since the page plays whole frames.
    assert abs(len(played) - len(expected)) <= guitar.hop
    n = min(len(played), len(expected))
    np.testing.assert_allclose(played[:n], np.clip(expected[:n], -1.0, 1.0), rtol=0.0, atol=PROMISED)


@pytest.mark.slow
def test_keys_of_the_screen_and_of_the_computer_play(page, guitar):
    press(page, A2)
    page.keyboard.down("d")  # The third white key from C2 on.
    page.wait_for_selector('[data-pitch="40"].sounds')
    page.wait_for_timeout(400)
    page.keyboard.up("d")
    page.keyboard.press("x")  # An octave higher.
    assert page.locator('[data-pitch="48"]').get_attribute("aria-label") == "C3"
    page.locator('[data-pitch="48"]').focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.pitch") == "49"
    assert pitches_in(saved(page, "#save-heard"), guitar.sample_rate) >= {A2, 40}


@pytest.mark.slow
def test_where_a_key_is_pressed_is_how_hard(page):
    press(page, A2, height=0.65)
    soft = len(saved(page, "#save-heard"))
    press(page, A2, height=0.99)
    heard = saved(page, "#save-heard")
    assert 1.1 * np.abs(heard[:soft]).max() < np.abs(heard[soft:]).max()


@pytest.mark.slow
def test_a_midi_keyboard_plays_bends_and_turns_what_it_was_taught(open_page, guitar):
    page = open_page(FAKE_MIDI)
    page.wait_for_selector("body.ready")
    page.click("#midi")
    page.wait_for_selector("text=MIDI: Fake keyboard")
    page.evaluate("sendMidi(0xe0, 0, 96)")  # Half way up: a semitone.
    page.evaluate("sendMidi(0x90, 45, 100)")
    page.wait_for_selector(f'[data-pitch="{A2}"].sounds')
    page.wait_for_timeout(400)
    page.evaluate("sendMidi(0xb0, 64, 127)")  # The pedal holds it.
    page.evaluate("sendMidi(0x80, 45, 0)")
    page.wait_for_timeout(200)
    assert page.locator(f'[data-pitch="{A2}"].sounds').count() == 1
    page.evaluate("sendMidi(0xb0, 64, 0)")
    page.wait_for_selector(f'[data-pitch="{A2}"]:not(.sounds)')
    assert A2 + 1 in pitches_in(saved(page, "#save-heard"), guitar.sample_rate)

    page.evaluate("sendMidi(0xb0, 1, 99)")  # The modulation wheel is for the first style, until a knob is taught.
    assert page.input_value("#style-55") == "99"
    page.locator(".style", has_text="Power chord").get_by_text("Teach a knob").click()
    page.evaluate("sendMidi(0xb0, 21, 127)")
    assert page.is_checked("#style-56")
    page.evaluate("sendMidi(0xb0, 21, 0)")
    assert not page.is_checked("#style-56")


@pytest.mark.slow
def test_keys_keep_their_rhythm(open_page, guitar):
    """The worker by itself, at times that it is told: each key is heard as long after it was pressed as the others."""
    page = open_page()
    page.wait_for_selector("body.ready")
    page.route("**/assets/worker-*.js", _with(TOLD_TIME))
    block = page.evaluate(BLOCK_SECONDS)
    pressed = 0.05 + np.cumsum(np.random.default_rng(0).uniform(0.3, 0.5, 12))

    def lateness(samples):
        """From each press until the sound is there, s."""
        places = np.flatnonzero(np.abs(samples) > 0.3 * np.abs(samples).max())
        first = places[np.diff(places, prepend=-guitar.sample_rate) > 0.08 * guitar.sample_rate]
        assert len(first) == len(pressed)
        return first / guitar.sample_rate - pressed

    late = lateness(np.array(page.evaluate(PLAY_AT_TIMES, pressed.tolist()), np.float32))
    assert np.ptp(late) < 0.002  # s; at the begins of blocks it would be as long as a block, 16 ms.
    notes = np.stack([pressed, pressed + 0.06, np.full(12, 52.0), np.full(12, 110.0)], axis=1)
    rendered = lateness(guitar.render(Voice(notes)))
    assert np.mean(late - rendered) == pytest.approx(block + guitar.latency / guitar.sample_rate, abs=0.001)


@pytest.mark.slow
def test_a_key_does_not_wait_behind_blocks_where_they_take_longer_than_they_last(open_page):
    page = open_page(FAKE_MIDI)
    page.route("**/assets/worker-*.js", _with(SLOW_ANSWERS))
    page.reload()
    page.wait_for_selector("body.ready")
    page.click("#midi")
    page.wait_for_selector("text=MIDI: Fake keyboard")
    page.evaluate("sendMidi(0x90, 45, 100)")
    page.wait_for_selector(f'[data-pitch="{A2}"].sounds')
    page.wait_for_timeout(4000)  # If each block were asked for again and again, hundreds would be waited for now.
    page.evaluate("sendMidi(0x90, 52, 100)")
    page.wait_for_selector(f'[data-pitch="{E3}"].sounds', timeout=2000)


@pytest.mark.slow
def test_a_piece_is_played_sought_and_stopped(page, guitar):
    page.click("#start")
    until(page, "parseFloat(document.getElementById('seek').value) > 0.3")
    page.fill("#style-55", "127")  # Which the riff says itself, until it is let to again.
    page.locator(".style", has_text="Openness").get_by_text("Follow the piece").click()
    page.evaluate("const seek = document.getElementById('seek'); seek.value = 12; seek.onchange()")
    until(page, "parseFloat(document.getElementById('seek').value) > 12.1")
    page.click("#start")
    page.wait_for_selector("#start:text('Play')")
    assert np.abs(saved(page, "#save-heard")).max() > 0.05
    page.click("#panic")
    page.wait_for_timeout(100)
    assert page.locator(".key.sounds").count() == 0


@pytest.mark.slow
def test_damaged_files_are_told_and_the_page_plays_on(page):
    """A few of them; `python tests/exporting/web_page_test.py` drops a thousand."""
    answers = {drop(page, content) for content in mutated(60)}
    assert {answer.split(" ", 1)[1] for answer in answers} > {"is ready to play."}
    assert "is not a Standard MIDI file" in drop(page, b"RIFF....WAVE", "sound.wav")
    assert "has no notes" in drop(page, PIECES.joinpath(SHORT).read_bytes()[:14], "short.mid")
    press(page, A2)


@pytest.mark.slow
def test_one_instrument_after_the_other_and_what_must_know_the_end_plays_files_only(page):
    page.select_option("#instruments", label="Small")
    page.wait_for_selector("body.ready h1:text('Small')")
    page.locator(f'[data-pitch="{A2}"]').click()
    assert "plays files only" in page.inner_text("#message")
    page.select_option("#pieces", label="Extra long open closed")
    assert np.isfinite(saved(page)).all()
    page.select_option("#instruments", label="Demo guitar")
    page.wait_for_selector("body.ready h1:text('Demo guitar')")
    press(page, A2)


@pytest.mark.slow
@pytest.mark.parametrize("headers, way", [({}, "in messages"), (ISOLATED, "through shared memory")])
def test_the_delay_is_stated_with_and_without_shared_memory(open_page, folder, headers, way):
    with serve(folder, headers) as at:
        page = open_page(at=at)
        page.wait_for_selector("body.ready")
        press(page, A2)
        page.wait_for_selector("#facts :text('measured at the last key')")
        assert way in page.inner_text("#facts")


@pytest.mark.slow
def test_a_phone_sees_all_of_it_in_the_dark_too(open_page):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, color_scheme="dark")
    page.wait_for_selector("body.ready")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 16, 13)"
    narrowest = page.evaluate("Math.min(...[...document.querySelectorAll('.key.white')].map((key) => key.clientWidth))")
    assert narrowest >= 30
    page.locator(f'[data-pitch="{A2}"]').tap()
    until(page, "document.querySelector('#facts').innerText.includes('measured')")
    page.set_viewport_size({"width": 1200, "height": 800})
    page.wait_for_selector('[data-pitch="72"]', state="attached")


@pytest.mark.slow
@pytest.mark.parametrize(
    "script, sentence",
    [
        ("delete window.WebAssembly", "no WebAssembly"),
        ("window.AudioContext = class { constructor() { throw new Error('not allowed'); } }", "gives no sound"),
    ],
)
def test_what_a_browser_misses_is_told(open_page, script, sentence):
    page = open_page(script)
    if "AudioContext" in script:
        page.wait_for_selector("body.ready")
        page.locator(f'[data-pitch="{A2}"]').click()
    page.wait_for_selector(f"#message:has-text('{sentence}')")


def test_it_may_ask_nobody_else(browser, address, folder):
    """The content security policy keeps the page from it, not only its good manners."""
    page = browser.new_page()
    page.goto(address)
    with serve(folder) as other:
        asked = page.evaluate("(other) => fetch(other).then(() => 'allowed', () => 'refused')", other)
    page.close()
    assert asked == "refused"


def test_what_it_consists_of(folder, guitar):
    listed = json.loads((folder / "instruments.json").read_text())
    first, second = listed["instruments"]
    assert (first["title"], first["voices"], first["block_frames"]) == ("Demo guitar", 6, 4)
    assert (first["live"], second["live"]) == (True, False)
    assert first["verdict"]["message"] and first["trained_on"]["pitch"]["minimum"] == guitar.pitch_range[0]
    for path in (*(each["model"] for each in listed["instruments"]), *(each["file"] for each in listed["pieces"])):
        assert (folder / path).is_file()
    assert [each["title"] for each in listed["pieces"]][0] == "Riff"


def test_it_is_written_whole_or_not_at_all(guitar, tmp_path, monkeypatch):
    def fails(*_):
        raise DataError("LiteRT: no.")

    monkeypatch.setattr(web_page.litert, "convert", fails)
    with pytest.raises(DataError, match="LiteRT: no"):
        web_page.write([Exhibit(guitar, "guitar")], tmp_path / "site")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(web_page.litert, "convert", lambda *_: b"model")
    for _ in range(2):  # A page replaces a page.
        web_page.write([Exhibit(guitar, "guitar"), Exhibit(guitar, "guitar")], tmp_path / "site")
    assert sorted(path.name for path in (tmp_path / "site" / "instruments").iterdir()) == [
        "guitar.tflite",
        "guitar_2.tflite",
    ]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="holds files of something else"):
        web_page.write([Exhibit(guitar, "guitar")], tmp_path / "photos")


def mutated(count, seed=0):
    """MIDI files with bytes changed, cut out, doubled or cut off."""
    random = np.random.default_rng(seed)
    originals = [*(path.read_bytes() for path in sorted(PIECES.glob("*.mid"))), midi_of_a_band(), midi_of_strings()]
    for _ in range(count):
        content = bytearray(originals[random.integers(len(originals))])
        for _ in range(random.integers(1, 6)):
            begin = int(random.integers(0, len(content) - 1))
            end = min(begin + int(random.integers(1, 24)), len(content))
            kind = random.integers(4)
            if kind == 0:
                content[begin:end] = random.integers(0, 256, end - begin, np.uint8).tobytes()
            elif kind == 1 and len(content) > 64:
                del content[begin:end]
            elif kind == 2:
                content[begin:begin] = content[begin:end]
            elif random.integers(8) == 0:
                del content[max(begin, 8) :]
        yield bytes(content)


def _drop_a_thousand(address):
    with chromium() as browser:
        page, wrong, answers = browser.new_page(), [], {}
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body.ready")
        for content in mutated(1000, seed=1):
            answer = drop(page, content).split(" ", 1)[1]
            answers[answer] = answers.get(answer, 0) + 1
        press(page, A2)
        print(f"{len(wrong)} uncaught errors; it still plays. {answers}")


if __name__ == "__main__":
    import sys

    with serve(pathlib.Path(sys.argv[1])) as served:
        _drop_a_thousand(served)
