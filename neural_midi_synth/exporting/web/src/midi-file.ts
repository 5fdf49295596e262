// Reads Standard MIDI Files as the library does (`midi/tracks.py`, `midi/parts.py`); `midi-file` parses their bytes.

import { type MidiEvent, parseMidi } from "midi-file";
import { type Fact, MidiChannel, PARAMETER_CONTROLLERS } from "./midi-channel";
import { divide, inOrder, isMonophonic, newestWins, type NoteRow, type Voice } from "./pieces";

const DRUM_CHANNEL = 9;
const MAX_TICKS = 50_000_000;
const MOST_BYTES = 20_000_000;
const DEFAULT_TEMPO = 500_000;

/** An instrument of a file and what it plays. */
export interface Part {
  title: string;
  isDrums: boolean;
  program: number | undefined;
  voices: Voice[];
  nNotes: number;
}

/** An error whose message is for the reader. */
export class Told extends Error {}

type Timed = { tick: number; event: MidiEvent };

interface Track {
  number: number;
  name: string;
  endTick: number;
  events: Map<number, Timed[]>;
  withNotes: Set<number>;
  programs: Map<number, number>;
}

interface ChannelEvents {
  track: number;
  name: string;
  channel: number;
  program: number | undefined;
  notes: NoteRow[];
  keys: NoteRow[];
  changes: Voice["changes"];
  bends: Voice["bends"];
}

/**
 * Reads the instruments of a file.
 *
 * @throws Told What is wrong with it, in a sentence.
 */
export function readParts(bytes: Uint8Array, name: string): Part[] {
  if (bytes.length > MOST_BYTES) throw new Told(`${name} is larger than any piece of music in MIDI.`);
  if (String.fromCharCode(...bytes.subarray(0, 4)) !== "MThd") {
    throw new Told(`${name} is not a Standard MIDI file, whatever its name.`);
  }
  const midi = parsed(bytes, name);
  const ticksPerBeat = midi.header.ticksPerBeat;
  if (Number.isNaN(midi.header.format)) throw new Told(`${name} is cut short. Export or copy it again.`);
  if (midi.header.format !== 0 && midi.header.format !== 1) {
    throw new Told(`${name} is a MIDI file of type ${midi.header.format}; type 0 or 1 can be played.`);
  }
  if (!ticksPerBeat) throw new Told(`${name} does not count time in beats; export it with ticks per beat.`);
  const tempos: [number, number][] = [];
  const tracks = midi.tracks.map((events, i) => readTrack(events, i + 1, tempos));
  const clock = clockOf(tempos, ticksPerBeat);
  const found = tracks.flatMap((track) =>
    [...track.withNotes].sort((a, b) => a - b).map((channel) => ({ track, channel })),
  );
  if (!found.length) throw new Told(`${name} has no notes.`);
  if (found.some(({ track }) => track.endTick > MAX_TICKS))
    throw new Told(`${name} lasts for hours; it seems damaged.`);
  const channels = found.map(({ track, channel }) => play(track, channel, tracks, clock));
  const parts = groupParts(channels.filter((each) => each.notes.length));
  if (!parts.length) throw new Told(`${name} has no notes that last.`);
  return parts;
}

/** Bytes of which no more can be taken than there are: the parser would go on before the begin, and never end. */
class Checked extends Uint8Array {
  override slice(start = 0, end = this.length): Uint8Array<ArrayBuffer> {
    if (!(start >= 0 && end >= start && end <= this.length)) throw new RangeError("cut short");
    return super.slice(start, end);
  }
}

function parsed(bytes: Uint8Array, name: string): ReturnType<typeof parseMidi> {
  try {
    return parseMidi(new Checked(bytes));
  } catch {
    throw new Told(`${name} is damaged. Export or copy it again.`);
  }
}

function readTrack(events: MidiEvent[], number: number, tempos: [number, number][]): Track {
  const track: Track = {
    number,
    name: "",
    endTick: 0,
    events: new Map(),
    withNotes: new Set(),
    programs: new Map(),
  };
  for (const event of events) {
    track.endTick += Math.max(event.deltaTime || 0, 0);
    const tick = track.endTick;
    if (tick > MAX_TICKS) continue;
    if (event.type === "trackName") track.name ||= printable(event.text);
    else if (event.type === "setTempo" && event.microsecondsPerBeat > 0) tempos.push([tick, event.microsecondsPerBeat]);
    else if (event.type === "programChange" && !track.programs.has(event.channel)) {
      track.programs.set(event.channel, event.programNumber);
    } else if (isPlayed(event)) {
      if (!track.events.has(event.channel)) track.events.set(event.channel, []);
      track.events.get(event.channel)!.push({ tick, event });
      if (event.type === "noteOn") track.withNotes.add(event.channel);
    }
  }
  return track;
}

/** Whether it is a note, a control change or a bend, and none of its bytes is cut off or out of range. */
function isPlayed(event: MidiEvent): event is MidiEvent & { channel: number } {
  const isByte = (...values: number[]) => values.every((value) => value >= 0 && value <= 127);
  switch (event.type) {
    case "noteOn":
    case "noteOff":
      return isByte(event.noteNumber, event.velocity);
    case "controller":
      return isByte(event.controllerType, event.value);
    case "pitchBend":
      return event.value >= -8192 && event.value <= 8191;
    default:
      return false;
  }
}

function printable(text: string): string {
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // It is Latin-1, as the parser has read it.
  }
  return text.replace(/\p{C}/gu, " ").trim().slice(0, 60);
}

/** From ticks to seconds, by the tempo changes of all tracks. */
function clockOf(tempos: [number, number][], ticksPerBeat: number): (tick: number) => number {
  const changes: [tick: number, seconds: number, secondsPerTick: number][] = [];
  for (const [tick, tempo] of [[0, DEFAULT_TEMPO], ...tempos.sort((a, b) => a[0] - b[0])]) {
    const before = changes.at(-1) ?? [0, 0, 0];
    changes.push([tick, before[1] + (tick - before[0]) * before[2], tempo / 1e6 / ticksPerBeat]);
  }
  return (tick) => {
    let low = 0;
    let high = changes.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (changes[middle][0] <= tick) low = middle;
      else high = middle;
    }
    const [from, seconds, secondsPerTick] = changes[low];
    return Math.round((seconds + (tick - from) * secondsPerTick) * 1e11) / 1e11;
  };
}

/** Plays the events of one MIDI channel of a track: at one tick first what tracks without notes say, then parameters. */
function play(track: Track, channel: number, tracks: Track[], clock: (tick: number) => number): ChannelEvents {
  const events: [number, number, MidiEvent][] = [];
  let program = track.programs.get(channel);
  for (const other of tracks) {
    const of = other.events.get(channel) ?? [];
    if (!other.withNotes.size) {
      program ??= other.programs.get(channel);
      for (const { tick, event } of of)
        if (event.type === "controller" || event.type === "pitchBend") events.push([tick, 0, event]);
    } else if (other !== track) {
      for (const { tick, event } of of) {
        if (event.type === "controller" && PARAMETER_CONTROLLERS.includes(event.controllerType))
          events.push([tick, 1, event]);
      }
    }
  }
  for (const { tick, event } of track.events.get(channel)!) events.push([tick, 2, event]);
  events.sort((a, b) => a[0] - b[0] || a[1] - b[1]);

  const state = new MidiChannel();
  const facts: Fact[] = [];
  for (const [tick, , event] of events) {
    const time = clock(tick);
    if (event.type === "noteOn") facts.push(...state.noteOn(time, event.noteNumber, event.velocity));
    else if (event.type === "noteOff") facts.push(...state.noteOff(time, event.noteNumber));
    else if (event.type === "controller") facts.push(...state.controlChange(time, event.controllerType, event.value));
    else if (event.type === "pitchBend") facts.push(...state.pitchWheel(time, event.value));
  }
  facts.push(...state.end(clock(track.endTick)));
  return gathered(facts, track, channel, program);
}

function gathered(facts: Fact[], track: Track, channel: number, program: number | undefined): ChannelEvents {
  const notes = facts
    .flatMap((fact) => (fact.what === "began" ? [fact.note] : []))
    .filter((note) => note.end! > note.start);
  return {
    track: track.number,
    name: track.name,
    channel,
    program,
    notes: inOrder(notes.map((note) => [note.start, note.end!, note.pitch, note.velocity])),
    keys: notes
      .map((note): NoteRow => [note.start, note.keyUp!, note.pitch, note.velocity])
      .filter((row) => row[1] > row[0]),
    changes: facts.flatMap((fact) => (fact.what === "changed" ? [[fact.time, fact.number, fact.value]] : [])),
    bends: facts.flatMap((fact) => (fact.what === "bent" ? [[fact.time, fact.semitones]] : [])),
  };
}

/** Finds the instruments: strings on MIDI channels of their own are one, and what has the same program is one. */
function groupParts(channels: ChannelEvents[]): Part[] {
  if (areStrings(channels)) return [stringWise(channels)];
  const parts: Part[] = [];
  for (const track of new Set(channels.map((each) => each.track))) {
    const ofTrack = channels.filter((each) => each.track === track);
    for (const part of areStrings(ofTrack) ? [stringWise(ofTrack)] : ofTrack.map(allocated)) {
      const other = parts.find((each) => part.program !== undefined && each.program === part.program && !each.isDrums);
      if (other && !part.isDrums) {
        other.voices.push(...part.voices);
        other.nNotes += part.nNotes;
        other.title += `, ${part.title}`;
      } else {
        parts.push(part);
      }
    }
  }
  return parts;
}

function areStrings(channels: ChannelEvents[]): boolean {
  const numbers = new Set(channels.map((each) => each.channel));
  const programs = new Set(channels.flatMap((each) => each.program ?? []));
  return (
    channels.length > 1 &&
    numbers.size === channels.length &&
    programs.size <= 1 &&
    channels.every((each) => each.channel !== DRUM_CHANNEL && isMonophonic(each.keys))
  );
}

function stringWise(channels: ChannelEvents[]): Part {
  const strings = [...channels].sort((a, b) => a.channel - b.channel);
  const voices = strings.map((each) => ({ notes: newestWins(each.notes), changes: each.changes, bends: each.bends }));
  const program = strings.find((each) => each.program !== undefined)?.program;
  return part(channels[0], `${strings.length} strings`, voices, program);
}

function allocated(of: ChannelEvents): Part {
  const voices = divide(of.notes).map((notes) => ({ notes, changes: of.changes, bends: of.bends }));
  return part(of, `channel ${of.channel + 1}`, voices, of.program);
}

function part(of: ChannelEvents, channel: string, voices: Voice[], program: number | undefined): Part {
  const isDrums = of.channel === DRUM_CHANNEL;
  return {
    title: `${of.name || `Track ${of.track}`}, ${isDrums ? "drums" : channel}`,
    isDrums,
    program,
    voices,
    nNotes: voices.reduce((sum, voice) => sum + voice.notes.length, 0),
  };
}

/** The part whose notes lie best in a range of pitches; drums only where there is nothing else. */
export function bestPart(parts: Part[], lowest: number, highest: number): Part {
  const pitched = parts.filter((each) => !each.isDrums);
  const fit = (each: Part): number => {
    const pitches = each.voices.flatMap((voice) => voice.notes.map((note) => note[2]));
    return pitches.filter((pitch) => pitch >= lowest && pitch <= highest).length ** 2 / Math.max(pitches.length, 1);
  };
  return (pitched.length ? pitched : parts).reduce((best, each) => (fit(each) > fit(best) ? each : best));
}

/** The voices of several parts together, at most so many: where there are more, their notes are divided anew. */
export function together(parts: Part[], most: number): Voice[] {
  const voices = parts.flatMap((each) => each.voices);
  if (voices.length <= most) return voices;
  // Voices that notes of several parts share have the controls of the first.
  const notes = voices.flatMap((voice) => voice.notes);
  const { changes, bends } = voices[0];
  return divide(notes, most).map((of) => ({ notes: of, changes, bends }));
}
