"""The HTML page of an evaluation: one portable file with pictures, players and numbers, for phone and desk."""

from __future__ import annotations

import base64
import html
import io
import math
import string
from collections.abc import Mapping, Sequence

import numpy as np

from neural_midi_synth.evaluation import pictures
from neural_midi_synth.evaluation.results import Measure, Result, columns, mean, text_of, texts_of


def page(title: str, results: Sequence[Result], sample_rate: int) -> str:
    """Builds the page.

    Args:
        title: What the instrument is called.
        results: The examples in the order they are shown.
        sample_rate: Samples per second of their sounds.

    Returns:
        HTML with everything in it: pictures as PNG, sounds as FLAC.
    """
    measures, means = columns(results), mean(results)
    tiles = "".join(
        f'<div class="tile"><span>{measure.title}</span><b>{measure.text(means[key])}</b>'
        f"<i>{_tile_note(measure, means)}</i></div>"
        for key, measure in measures.items()
        if math.isfinite(means[key])
    )
    head = "".join(f"<th>{measure.title}</th>" for measure in measures.values())
    rows = "".join(
        f"<tr><th>{_link(result, index)}</th>"
        f"{''.join(f'<td>{text}</td>' for text in texts_of(measures, result.numbers))}</tr>"
        for index, result in enumerate(results)
    )
    foot = "".join(f"<td>{text}</td>" for text in texts_of(measures, means))
    explanations = "".join(
        f"<dt>{measure.title} <i>({measure.better})</i></dt><dd>{measure.explanation}</dd>"
        for measure in measures.values()
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


def _tile_note(measure: Measure, means: Mapping[str, float]) -> str:
    """Says below a tile's number what the recording gets, or which way is better."""
    beside = means.get(measure.of_reference or "", math.nan)
    return f"the recording: {measure.text(beside)}" if math.isfinite(beside) else measure.better


def _link(result: Result, index: int) -> str:
    name = html.escape(result.name)
    return f'<a href="#example-{index}">{name}</a>' if result.pictures else name


def _example(result: Result, index: int, sample_rate: int) -> str:
    numbers = "".join(
        f"<span>{measure.title} <b>{text_of(key, measure, result.numbers)}</b></span>"
        for key, measure in columns([result]).items()
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
