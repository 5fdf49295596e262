// The page: what its controls do.

import "./style.css";
import { Keyboard, nameOf } from "./keyboard";
import { Picture } from "./look";
import type { Instrument } from "./messages";
import { MODULATION, PARAMETER_CONTROLLERS, SUSTAIN_PEDAL } from "./midi-channel";
import { bestPart, type Part, readParts, Told, together } from "./midi-file";
import { listen } from "./midi-input";
import { duration } from "./pieces";
import { Sound } from "./sound";
import { Styles } from "./styles";
import type { ChannelEvent } from "./voices";
import { wav } from "./wav";

interface Site {
  instruments: Instrument[];
  pieces: { title: string; file: string }[];
}

const TAIL_SECONDS = 1;
const PICTURE_MILLISECONDS = 25; // From one to the next, at least: every second frame of most screens.
const WORDS_MILLISECONDS = 100; // Likewise of what is shown in words and by sliders.
const SCREEN = "screen"; // The MIDI channel of the keyboard on screen.
const NO_KNOBS = [SUSTAIN_PEDAL, ...PARAMETER_CONTROLLERS];

const element = <Of extends HTMLElement>(id: string): Of => document.getElementById(id) as Of;
const message = element("message");
const say = (text: string, isError = false): void => {
  message.textContent = text;
  message.classList.toggle("error", isError);
};
const sayError = (error: unknown): void => say(error instanceof Error ? error.message : String(error), true);

const sound = new Sound();
const picture = new Picture(
  element<HTMLCanvasElement>("picture"),
  () => sound.analyser,
  () => sound.instrument?.sample_rate ?? 16000,
);
const keyboard = new Keyboard(element("keyboard"), { lowest: 36, highest: 84 });
const styles = new Styles(element("styles"), (number, value) => sound.style(number, value));
let site: Site = { instruments: [], pieces: [] };
let instrument: Instrument;

// ---- Play --------------------------------------------------------------------------------------------------------

/** Everything that sounds goes through here, so that the first touch starts the sound. */
async function play(channel: string, event: ChannelEvent): Promise<void> {
  if (!instrument?.live && event.what === "noteOn") {
    say("This instrument must know when a note will end, so it plays files only.", true);
    return;
  }
  if (!sound.isRunning) {
    try {
      await sound.begin();
    } catch (error) {
      sayError(error);
      return;
    }
  }
  sound.event(channel, event);
}

keyboard.onPress = (pitch, hardness) => {
  const { minimum, maximum } = instrument?.trained_on?.velocity ?? { minimum: 30, maximum: 127 };
  void play(SCREEN, { what: "noteOn", values: [pitch, Math.round(minimum + hardness * (maximum - minimum))] });
};
keyboard.onRelease = (pitch) => void play(SCREEN, { what: "noteOff", values: [pitch] });

function moveKeyboard(octaves: number): void {
  keyboard.move12(octaves);
  tellKeys();
}

function tellKeys(): void {
  element("computer-c").textContent = nameOf(keyboard.computerC);
}

element("lower").onclick = () => moveKeyboard(-1);
element("higher").onclick = () => moveKeyboard(1);
element("panic").onclick = () => {
  keyboard.releaseAll();
  sustain(false);
  sound.panic();
};

function sustain(isDown: boolean): void {
  element("sustain").setAttribute("aria-pressed", String(isDown));
  void play(SCREEN, { what: "controlChange", values: [SUSTAIN_PEDAL, isDown ? 127 : 0] });
}
element("sustain").onclick = () => sustain(element("sustain").getAttribute("aria-pressed") !== "true");

const midiButton = element<HTMLButtonElement>("midi");
midiButton.onclick = async () => {
  midiButton.disabled = true;
  try {
    await sound.begin();
    await listen(fromKeyboard, (names) => {
      midiButton.textContent = names.length ? `MIDI: ${names.join(", ")}` : "No MIDI keyboard yet";
    });
  } catch (error) {
    sayError(error);
    midiButton.disabled = false;
  }
};

/** A knob that is taught, the modulation wheel or a style's own controller moves a style; all else is played. */
function fromKeyboard(channel: string, event: ChannelEvent): void {
  if (event.what === "controlChange") {
    const [number, value] = event.values;
    if (!NO_KNOBS.includes(number) && styles.turn(number, value)) return;
  }
  void play(channel, event);
}

// ---- Listen ------------------------------------------------------------------------------------------------------

const start = element<HTMLButtonElement>("start");
const seek = element<HTMLInputElement>("seek");
const pieces = element<HTMLSelectElement>("pieces");
const tracks = element<HTMLFieldSetElement>("tracks");
let parts: Part[] = [];
let isPlaying = false;
let isSeeking = false;
let pieceName = "";

const chosen = (): ReturnType<typeof together> => {
  const boxes = [...tracks.querySelectorAll<HTMLInputElement>("input")];
  return together(
    parts.filter((_, i) => boxes[i]?.checked),
    instrument.voices,
  );
};

function showTime(seconds: number): void {
  const clock = (time: number): string => `${Math.floor(time / 60)}:${String(Math.floor(time % 60)).padStart(2, "0")}`;
  element("time").textContent = `${clock(seconds)} / ${clock(Number(seek.max))}`;
  if (!isSeeking) seek.value = String(seconds);
}

/** Makes a file the piece that is played. */
function openPiece(bytes: Uint8Array, name: string): void {
  parts = readParts(bytes, name);
  pieceName = name.replace(/\.midi?$/i, "");
  const best = bestPart(parts, ...instrument.pitch_range);
  tracks.replaceChildren(tracks.querySelector("legend")!);
  for (const part of parts) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = part === best;
    box.onchange = setPiece;
    label.append(box, ` ${part.title} (${part.nNotes} notes)`);
    tracks.append(label);
  }
  tracks.hidden = parts.length < 2;
  setPiece();
  sound.stop();
  showTime(0);
}

function setPiece(): void {
  const voices = chosen();
  seek.max = String(Math.ceil(duration(parts.flatMap((part) => part.voices)) + TAIL_SECONDS));
  sound.piece(voices);
}

function setPlaying(now: boolean): void {
  isPlaying = now;
  start.textContent = now ? "Stop" : "Play";
}

start.onclick = async () => {
  if (isPlaying) {
    sound.stop();
    return;
  }
  try {
    await sound.begin();
    const at = Number(seek.value);
    sound.start(at >= Number(seek.max) - 0.5 ? 0 : at);
    setPlaying(true);
    say("");
  } catch (error) {
    sayError(error);
  }
};
seek.oninput = () => {
  isSeeking = true;
  showTime(Number(seek.value));
};
seek.onchange = () => {
  isSeeking = false;
  if (isPlaying) sound.start(Number(seek.value));
};

async function openExample(): Promise<void> {
  const example = site.pieces[Number(pieces.value)];
  if (!example) return;
  const answer = await fetch(example.file);
  if (!answer.ok) throw new Told(`${example.title} is missing on this server.`);
  openPiece(new Uint8Array(await answer.arrayBuffer()), example.title);
}
pieces.onchange = () => void openExample().catch(sayError);

async function openFile(file: File | undefined): Promise<void> {
  if (!file) return;
  try {
    openPiece(new Uint8Array(await file.arrayBuffer()), file.name);
    say(`${file.name} is ready to play.`);
    let option = pieces.querySelector<HTMLOptionElement>("option[value=own]");
    if (!option) {
      option = new Option("", "own");
      pieces.append(option);
    }
    option.textContent = file.name;
    pieces.value = "own";
  } catch (error) {
    sayError(error instanceof Told ? error : new Told(`${file.name} cannot be read.`));
  }
}
element<HTMLInputElement>("file").onchange = (event) => void openFile((event.target as HTMLInputElement).files?.[0]);
window.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("drop");
});
window.addEventListener("dragleave", () => document.body.classList.remove("drop"));
window.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("drop");
  void openFile(event.dataTransfer?.files[0]);
});

async function download(audio: Promise<Float32Array>, name: string): Promise<void> {
  const progress = element<HTMLProgressElement>("progress");
  progress.hidden = false;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(wav(await audio, instrument.sample_rate));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  progress.hidden = true;
}
sound.onProgress = (share) => (element<HTMLProgressElement>("progress").value = share);
element("save").onclick = () =>
  void download(sound.render(chosen(), styles.kept()), `${pieceName}.wav`).catch(sayError);
element("save-heard").onclick = () => void download(sound.heard(), `${instrument.name}.wav`).catch(sayError);

// ---- Look --------------------------------------------------------------------------------------------------------

// Blocks come sixty times a second, and drawing takes time that the next block needs where there are few processors.
let latest: Parameters<typeof sound.onBlock>[0] | null = null;
let drawn = 0;
let told = 0;
sound.onBlock = (block) => (latest = block);

function look(time: number): void {
  requestAnimationFrame(look);
  if (time - drawn < PICTURE_MILLISECONDS) return;
  drawn = time;
  picture.draw(time, latest ?? undefined);
  if (!latest) return;
  keyboard.show(latest.pitches);
  if (latest.seconds === null || time - told < WORDS_MILLISECONDS) return;
  told = time;
  styles.follow(latest.controls);
  showTime(Math.min(latest.seconds, Number(seek.max)));
}
requestAnimationFrame(look);
sound.onStopped = () => setPlaying(false);
sound.onMessage = (text) => say(text, true);
sound.onDelay = () => tellFacts();
setInterval(() => {
  if (sound.isRunning && !document.hidden) tellFacts();
}, 2000);

// ---- The instrument ----------------------------------------------------------------------------------------------

/** How much of the time that a block lasts is taken by making it. */
function work(): string {
  const { block_frames: frames, frame_rate: rate } = instrument;
  const block = `a block of ${Math.round((1000 * frames) / rate)} ms`;
  if (!sound.costs.length) return `${block}; how long it takes is told once something has sounded`;
  const costs = [...sound.costs].sort((a, b) => a - b);
  const at = (share: number): string => costs[Math.floor(share * (costs.length - 1))].toFixed(1);
  return `${block} takes ${at(0.5)} ms, one in a hundred ${at(0.99)} ms or more`;
}

function tellFacts(): void {
  const { trained_on: trainedOn, sample_rate: rate, voices, live } = instrument;
  const range = trainedOn?.pitch
    ? `${nameOf(Math.round(trainedOn.pitch.minimum))} to ${nameOf(Math.round(trainedOn.pitch.maximum))}`
    : "not told";
  const way = sound.isShared ? "through shared memory" : "in messages, since the server does not allow shared memory";
  const measured = sound.measured === null ? "" : `; ${Math.round(1000 * sound.measured)} ms measured at the last key`;
  const blocks = sound.underruns === 1 ? "block" : "blocks";
  const late = sound.underruns ? ` ${sound.underruns} ${blocks} came late.` : "";
  const facts: [string, string][] = [
    ["Learnt keys", range],
    ["Voices", `${voices}${live ? "" : "; plays files only"}`],
    ["Sample rate", `${rate / 1000} kHz`],
    ["Work", work()],
    [
      "From a key to its sound",
      sound.isRunning ? `up to ${Math.round(1000 * sound.delay)} ms ${way}${measured}.${late}` : `told once something sounds; ${way}`,
    ],
  ];
  if (trainedOn?.velocity)
    facts.splice(1, 0, [
      "Learnt velocities",
      `${Math.round(trainedOn.velocity.minimum)} to ${Math.round(trainedOn.velocity.maximum)}`,
    ]);
  element("facts").replaceChildren(
    ...facts.flatMap(([term, text]) => {
      const nodes = [document.createElement("dt"), document.createElement("dd")];
      nodes[0].textContent = term;
      nodes[1].textContent = text;
      return nodes;
    }),
  );
}

async function choose(next: Instrument): Promise<void> {
  document.body.classList.remove("ready");
  say(`${next.title} is loading …`);
  keyboard.releaseAll();
  setPlaying(false);
  instrument = next;
  document.title = next.title;
  element("title").textContent = next.title;
  element("verdict").textContent = next.verdict?.message ?? "";
  const pitch = next.trained_on?.pitch;
  keyboard.setLearnt({ lowest: pitch?.minimum ?? next.pitch_range[0], highest: pitch?.maximum ?? next.pitch_range[1] });
  styles.show(next, MODULATION);
  tellKeys();
  tellFacts();
  const choice = element<HTMLSelectElement>("instruments");
  choice.disabled = true; // Another one, chosen meanwhile, would take away what is being loaded.
  try {
    await sound.load(next);
  } finally {
    choice.disabled = false;
  }
  styles.send();
  if (parts.length) setPiece();
  else await openExample();
  document.body.classList.add("ready");
  say("");
}

async function begin(): Promise<void> {
  if (typeof WebAssembly === "undefined")
    throw new Told("This browser has no WebAssembly, which plays the instrument.");
  const answer = await fetch("instruments.json");
  if (!answer.ok) throw new Told("The list of instruments is missing on this server.");
  site = (await answer.json()) as Site;
  const choice = element<HTMLSelectElement>("instruments");
  choice.replaceChildren(...site.instruments.map(({ title }, i) => new Option(title, String(i))));
  choice.onchange = () => void choose(site.instruments[Number(choice.value)]).catch(sayError);
  element("choose").hidden = site.instruments.length < 2;
  pieces.replaceChildren(...site.pieces.map(({ title }, i) => new Option(title, String(i))));
  await choose(site.instruments[0]);
}

void begin().catch(sayError);
