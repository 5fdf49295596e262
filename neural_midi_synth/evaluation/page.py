"""The HTML page of an evaluation: one portable file with pictures, players and numbers, for phone and desk."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
import string
from collections.abc import Mapping, Sequence

import numpy as np

from neural_midi_synth.evaluation import pictures


@dataclasses.dataclass(frozen=True)
class Measure:
    """How one number is called, written and explained."""

    title: str
    unit: str
    decimals: int
    scale: float
    better: str
    explanation: str

    def text(self, value: float | None) -> str:
        """Returns the value as it is printed in tables, a dash where there is none."""
        if value is None or not math.isfinite(value):
            return "–"
        return f"{self.scale * value:.{self.decimals}f}{self.unit}"


MEASURES = {
    "spectral_loss": Measure(
        "Spectral loss",
        "",
        2,
        1.0,
        "lower is better",
        "What training makes small: how much the two sounds' spectra differ, linearly and in logarithm, looked at "
        "through six window lengths. It has no unit; compare it between instruments on the same examples only.",
    ),
    "log_mel_db": Measure(
        "Log-mel difference",
        " dB",
        1,
        1.0,
        "lower is better",
        "How far the tone is off: the mean difference in level over time and 80 bands spaced as the ear hears pitch. "
        "Whatever is more than 80 dB below the reference's peak counts as silence.",
    ),
    "envelope_db": Measure(
        "Envelope difference",
        " dB",
        1,
        1.0,
        "lower is better",
        "How far the loudness is off from moment to moment. Whatever is more than 60 dB below the reference's loudest "
        "moment counts as silence.",
    ),
    "pitch_accuracy": Measure(
        "Pitch accuracy",
        " %",
        0,
        100.0,
        "higher is better",
        "Where the reference has a pitch, how often the instrument plays the same one, to within half a semitone "
        "either way, as the pitch tracker pYIN hears both.",
    ),
    "real_time_factor": Measure(
        "Speed",
        " ×",
        1,
        1.0,
        "higher is better",
        "Seconds of sound made in one second on the computer that made this page; above 1 is faster than real time.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One example as it was played and measured.

    Attributes:
      name: What the example is called.
      seconds: Its length.
      numbers: Key of `MEASURES` -> value; NaN, or no key, where there is no such number.
      sounds: "reference" and "instrument" -> mono samples, float32, full scale ±1. Empty: numbers only.
      pictures: "light" and "dark" -> PNG bytes. Empty: numbers only.
    """

    name: str
    seconds: float
    numbers: Mapping[str, float]
    sounds: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def mean(results: Sequence[Result]) -> dict[str, float]:
    """Returns the mean of each measure over the results that have it; NaN where none has.

    Speed is not averaged but taken over all: seconds of sound over seconds of rendering.
    """
    means = {}
    for key in MEASURES:
        weighted = [(result.numbers[key], result.seconds) for result in results if _has(result, key)]
        if not weighted:
            means[key] = math.nan
        elif key == "real_time_factor":
            means[key] = sum(seconds for _, seconds in weighted) / sum(seconds / speed for speed, seconds in weighted)
        else:
            means[key] = sum(value for value, _ in weighted) / len(weighted)
    return means


def table(results: Sequence[Result]) -> str:
    """Returns the numbers as lines of text, a row for each result and one for their mean."""
    rows = [["example", *(measure.title for measure in MEASURES.values())]]
    rows += [[result.name, *_texts(result.numbers)] for result in results]
    rows += [["mean", *_texts(mean(results))]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    rule = "─" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def page(title: str, results: Sequence[Result], sample_rate: int) -> str:
    """Builds the page.

    Args:
      title: What the instrument is called.
      results: The examples in the order they are shown.
      sample_rate: Samples per second of their sounds.

    Returns:
      HTML with everything in it: pictures as PNG, sounds as FLAC.
    """
    means = mean(results)
    tiles = "".join(
        f'<div class="tile"><span>{measure.title}</span><b>{measure.text(means[key])}</b><i>{measure.better}</i></div>'
        for key, measure in MEASURES.items()
        if math.isfinite(means[key])
    )
    head = "".join(f"<th>{measure.title}</th>" for measure in MEASURES.values())
    rows = "".join(
        f"<tr><th>{_link(result, index)}</th>{''.join(f'<td>{text}</td>' for text in _texts(result.numbers))}</tr>"
        for index, result in enumerate(results)
    )
    foot = "".join(f"<td>{text}</td>" for text in _texts(means))
    explanations = "".join(
        f"<dt>{measure.title} <i>({measure.better})</i></dt><dd>{measure.explanation}</dd>"
        for measure in MEASURES.values()
    )
    return _PAGE.substitute(
        title=html.escape(title),
        count=f"{len(results)} example{'s' if len(results) != 1 else ''}",
        rate=f"{sample_rate / 1000:g} kHz",
        tiles=tiles,
        head=head,
        rows=rows,
        foot=foot,
        explanations=explanations,
        examples="".join(
            _example(result, index, sample_rate) for index, result in enumerate(results) if result.pictures
        ),
        left=f"{pictures.TIME_LEFT}",
        right=f"{pictures.TIME_RIGHT}",
    )


def _has(result: Result, key: str) -> bool:
    return math.isfinite(result.numbers.get(key, math.nan))


def _texts(numbers: Mapping[str, float]) -> list[str]:
    return [measure.text(numbers.get(key)) for key, measure in MEASURES.items()]


def _link(result: Result, index: int) -> str:
    name = html.escape(result.name)
    return f'<a href="#example-{index}">{name}</a>' if result.pictures else name


def _example(result: Result, index: int, sample_rate: int) -> str:
    numbers = "".join(
        f"<span>{measure.title} <b>{measure.text(result.numbers[key])}</b></span>"
        for key, measure in MEASURES.items()
        if _has(result, key)
    )
    players = "".join(
        f"<figure><figcaption>{name.capitalize()}</figcaption>"
        f'<audio controls preload="metadata" src="{_sound(samples, sample_rate)}"></audio></figure>'
        for name, samples in result.sounds.items()
    )
    name, seconds = html.escape(result.name), max(len(samples) for samples in result.sounds.values()) / sample_rate
    return (
        f'<article id="example-{index}" data-seconds="{seconds:.6f}"><h3>{name}</h3>'
        f'<p class="numbers">{numbers}</p><div class="players">{players}</div>'
        '<div class="scroll"><div class="picture"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data("image/png", result.pictures["dark"])}">'
        f'<img src="{_data("image/png", result.pictures["light"])}" '
        f'alt="{name}: spectrograms of {" and ".join(result.sounds)}, notes, and styles over time">'
        '</picture><div class="head" hidden></div></div></div></article>'
    )


def _sound(samples: np.ndarray, sample_rate: int) -> str:
    import soundfile

    flac = io.BytesIO()
    samples = samples / max(1.0, float(np.abs(samples).max(initial=0.0)))  # Lowered rather than clipped.
    soundfile.write(flac, samples, sample_rate, format="FLAC", subtype="PCM_16")
    return _data("audio/flac", flac.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_PAGE = string.Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title: evaluation</title>
<style>
:root { --back: #ffffff; --panel: #f6f5f2; --ink: #25221e; --quiet: #6d675f; --line: #e2dfd8; --accent: #b3401f; }
@media (prefers-color-scheme: dark) {
  :root { --back: #1b1a1d; --panel: #242327; --ink: #ece8e1; --quiet: #a29c93; --line: #36343a; --accent: #ff9166; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 62rem; background: var(--back); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: clamp(1.6rem, 5vw, 2.4rem); line-height: 1.15; margin: 0; letter-spacing: -.02em; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem; }
h3 { font-size: 1.15rem; margin: 0; }
a { color: var(--accent); text-underline-offset: .15em; }
.lead { color: var(--quiet); margin: .4rem 0 1.75rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; }
.tile { background: var(--panel); border-radius: .6rem; padding: .8rem 1rem; display: grid; }
.tile b { font-size: 1.7rem; line-height: 1.3; font-variant-numeric: tabular-nums; letter-spacing: -.02em; }
.tile span { font-size: .85rem; }
.tile i, dt i { color: var(--quiet); font-style: normal; font-size: .8rem; font-weight: 400; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .5rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child { text-align: left; padding-left: 0; font-weight: 500; }
thead th { color: var(--quiet); font-weight: 500; font-size: .82rem; }
tfoot th, tfoot td { font-weight: 700; border-bottom: 0; }
tfoot th:first-child { font-weight: 700; }
article { border-top: 1px solid var(--line); padding: 1.75rem 0; }
.numbers { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .25rem 0 1rem; font-size: .88rem;
  color: var(--quiet); }
.numbers b { color: var(--ink); font-variant-numeric: tabular-nums; }
.players { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); gap: .75rem 1.5rem;
  margin-bottom: 1rem; }
figure { margin: 0; }
figcaption { font-weight: 600; font-size: .88rem; margin-bottom: .25rem; }
audio { width: 100%; height: 2.6rem; display: block; }
.picture { position: relative; min-width: 38rem; cursor: crosshair; }
.picture img { display: block; width: 100%; height: auto; border-radius: .3rem; }
.head { position: absolute; top: 0; bottom: 0; width: 2px; margin-left: -1px; background: var(--accent);
  box-shadow: 0 0 3px #000a; pointer-events: none; }
dt { font-weight: 600; margin-top: .9rem; }
dd { margin: 0; color: var(--quiet); max-width: 46rem; }
footer { color: var(--quiet); font-size: .88rem; }
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="lead">How close the instrument comes to the recordings it is compared with: $count at $rate.</p>
<div class="tiles">$tiles</div>
</header>
<h2>Numbers</h2>
<div class="scroll"><table>
<thead><tr><th>Example</th>$head</tr></thead>
<tbody>$rows</tbody>
<tfoot><tr><th>Mean</th>$foot</tr></tfoot>
</table></div>
<h2>Listen and look</h2>
<p class="lead">Start one sound while the other plays and it goes on from the same place. Click a picture to jump
there. Both spectrograms have the same colours for the same levels; a stronger note is a louder one.</p>
<main>$examples</main>
<h2>What the numbers mean</h2>
<dl>$explanations</dl>
<script>
const left = $left, right = $right;
for (const article of document.querySelectorAll("article")) {
  const seconds = Number(article.dataset.seconds);
  const players = [...article.querySelectorAll("audio")];
  const picture = article.querySelector(".picture"), head = article.querySelector(".head");
  const show = player => {
    head.hidden = false;
    head.style.left = 100 * (left + (right - left) * player.currentTime / seconds) + "%";
    if (!player.paused) requestAnimationFrame(() => show(player));
  };
  for (const player of players) {
    player.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) {
        if (other === player || other.paused) continue;
        if (players.includes(other)) player.currentTime = other.currentTime;
        other.pause();
      }
      show(player);
    });
    player.addEventListener("seeked", () => { if (player.paused) show(player); });
  }
  picture.addEventListener("click", event => {
    const box = picture.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width - left) / (right - left);
    const player = players.find(one => !one.paused) ?? players[players.length - 1];
    player.currentTime = Math.min(Math.max(share, 0), 1) * seconds;
    if (player.paused) player.play();
  });
}
</script>
</body>
</html>
""")
