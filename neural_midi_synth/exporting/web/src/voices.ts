// The voices of a stream and the rows that the model takes of them: what `playing/voices.py` is for live play.
// All times are frames, with their fractions.

import { type Fact, MidiChannel, type Note, SUSTAIN_PEDAL } from "./midi-channel";
import { inForce, type Voice } from "./pieces";

const NOT_YET = 1e9; // When a note ends that still lasts, s.
const PADDING = -1e9;
const BEND = -1; // The key of bends among the numbers of controllers.

/** An event of a MIDI channel: a method of `MidiChannel` and what it takes after the time. */
export type ChannelEvent =
  | { what: "noteOn"; values: [pitch: number, velocity: number] }
  | { what: "noteOff"; values: [pitch: number] }
  | { what: "controlChange"; values: [number: number, value: number] }
  | { what: "pitchWheel"; values: [value: number] };

/** What the model takes of a block, each `[voices, rows, columns]`. */
export interface Rows {
  notes: Float32Array;
  control_changes: Float32Array;
  pitch_bends: Float32Array;
}

type Held = [frame: number, value: number];

export class Voices {
  /** Of each voice, the notes that matter. */
  readonly notes: Note[][];
  private readonly held: Map<number, Held[]>[];
  private readonly channelOf: string[];
  private readonly channels = new Map<string, MidiChannel>();
  private readonly values = new Map<string, Map<number, number>>();
  /** Styles that somebody holds, by controller: what pieces and MIDI channels say of them is not heard. */
  private readonly kept = new Map<number, number>();

  constructor(
    private readonly count: number,
    private readonly controllers: number[],
    private readonly frameRate: number,
    private readonly rowsOfEach: number,
  ) {
    this.notes = Array.from({ length: count }, () => []);
    this.held = Array.from({ length: count }, () => new Map<number, Held[]>());
    this.channelOf = new Array(count).fill("");
  }

  /** Tells a MIDI channel of an event. */
  happen(frame: number, channel: string, event: ChannelEvent): void {
    let state = this.channels.get(channel);
    if (!state) {
      state = new MidiChannel();
      this.channels.set(channel, state);
      this.values.set(channel, new Map([[SUSTAIN_PEDAL, 0]]));
    }
    const method = state[event.what] as (time: number, ...values: number[]) => Fact[];
    for (const fact of method.call(state, frame, ...event.values)) {
      if (fact.what === "began") this.begin(channel, fact.note, frame);
      else if (fact.what === "bent") this.change(channel, frame, BEND, fact.semitones);
      else if (fact.what === "changed") this.change(channel, frame, fact.number, fact.value);
    }
  }

  /** Has what a voice of a piece says between two of its times, in frames of the piece, happen from `frame` on. */
  follow(voice: number, of: Voice, from: number, to: number, frame: number): void {
    const rate = this.frameRate;
    const within = <Row extends { [0]: number }>(rows: Row[]): Row[] =>
      rows.slice(inForce(rows, from / rate - 1e-9) + 1, inForce(rows, to / rate - 1e-9) + 1);
    const at = (time: number): number => frame + time * rate - from;
    for (const [start, end, pitch, velocity] of within(of.notes)) {
      this.notes[voice].push({ start: at(start), pitch, velocity, keyUp: at(end), end: at(end) });
      this.channelOf[voice] = "";
    }
    for (const [time, number, value] of within(of.changes)) this.hold(voice, at(time), number, value);
    for (const [time, semitones] of within(of.bends)) this.hold(voice, at(time), BEND, semitones);
  }

  /** Has everything that is in force at a time of a piece, in frames, be so from `frame` on; notes that last begin. */
  chase(voice: number, of: Voice, from: number, frame: number): void {
    const time = from / this.frameRate;
    for (const number of this.controllers) {
      const before = of.changes.filter((row) => row[1] === number && row[0] < time);
      if (before.length) this.hold(voice, frame, number, before.at(-1)![2]);
    }
    this.hold(voice, frame, BEND, of.bends[inForce(of.bends, time - 1e-9)]?.[1] ?? 0);
    const note = of.notes[inForce(of.notes, time - 1e-9)];
    if (note && note[1] > time + 0.05) {
      const end = frame + (note[1] - time) * this.frameRate;
      this.notes[voice].push({ start: frame, pitch: note[2], velocity: note[3], keyUp: end, end });
      this.channelOf[voice] = "";
    }
  }

  /** Ends what a piece plays. */
  leave(frame: number): void {
    for (const [voice, notes] of this.notes.entries()) {
      if (this.channelOf[voice] !== "") continue;
      this.notes[voice] = notes.filter((note) => note.start < frame);
      for (const note of this.notes[voice]) if (note.end! > frame) note.end = note.keyUp = frame;
    }
  }

  /** Holds a style at a value from a frame on, or, with null, lets pieces say it again. */
  keep(frame: number, number: number, value: number | null): void {
    if (value === null) {
      this.kept.delete(number);
      return;
    }
    this.kept.delete(number);
    for (let voice = 0; voice < this.count; voice++) this.hold(voice, frame, number, value);
    this.kept.set(number, value);
  }

  /** Lets every key and pedal go, and forgets all notes; controls stay. */
  silence(frame: number): void {
    for (const [channel, state] of this.channels) {
      state.controlChange(frame, SUSTAIN_PEDAL, 0);
      state.end(frame);
      this.values.get(channel)!.set(SUSTAIN_PEDAL, 0);
    }
    for (const notes of this.notes) notes.length = 0;
  }

  /** Forgets what cannot matter from a frame on. */
  forget(frame: number): void {
    for (const notes of this.notes) {
      // One that begins to the sample takes effect within a frame.
      const last = notes.findLastIndex((note) => note.start <= frame - 1);
      notes.splice(0, Math.max(last, 0));
    }
    for (const held of this.held) {
      for (const events of held.values()) events.splice(0, Math.max(inForce(events, frame), 0));
    }
  }

  /** Whether a note lasts at a frame, or ended less than so many frames before. */
  isBusy(frame: number, tail: number): boolean {
    return this.notes.some((notes) => notes.some((note) => (note.end ?? Infinity) > frame - tail));
  }

  /** What the first voice's controllers are at a frame, as far as anything has set them. */
  controls(frame: number): [number: number, value: number][] {
    return this.controllers.flatMap((number): [number, number][] => {
      const events = this.held[0].get(number) ?? [];
      const last = events[inForce(events, frame)];
      return last ? [[number, last[1]]] : [];
    });
  }

  /** What lasts at a frame: the pitch of each voice, or null. */
  pitches(frame: number): (number | null)[] {
    return this.notes.map((notes) => {
      const newest = notes.findLast((note) => note.start <= frame);
      return newest && (newest.end ?? Infinity) > frame ? newest.pitch : null;
    });
  }

  /** The rows of a block that begins at `first` and has as many frames less two as there are rows of each kind. */
  rows(first: number): Rows {
    const most = this.rowsOfEach;
    const nChanges = Math.max(this.controllers.length, 1) * most;
    const seconds = (frame: number): number => (frame - first) / this.frameRate;
    const notes = new Float32Array(this.count * most * 4).fill(PADDING);
    const changes = new Float32Array(this.count * nChanges * 3).fill(PADDING);
    const bends = new Float32Array(this.count * most * 2).fill(PADDING);
    for (let voice = 0; voice < this.count; voice++) {
      for (const [i, note] of few(this.notes[voice], most).entries()) {
        const end = note.end === null ? NOT_YET : seconds(Math.max(note.end, note.start + 1));
        notes.set([seconds(note.start), end, note.pitch, note.velocity], (voice * most + i) * 4);
      }
      for (const [kind, number] of this.controllers.entries()) {
        for (const [i, [frame, value]] of few(this.held[voice].get(number) ?? [], most).entries()) {
          changes.set([seconds(frame), number, value], (voice * nChanges + kind * most + i) * 3);
        }
      }
      for (const [i, [frame, semitones]] of few(this.held[voice].get(BEND) ?? [], most).entries()) {
        bends.set([seconds(frame), semitones], (voice * most + i) * 2);
      }
    }
    return { notes, control_changes: changes, pitch_bends: bends };
  }

  private begin(channel: string, note: Note, frame: number): void {
    const voice = this.voiceFor(note, frame);
    this.notes[voice].push(note);
    if (this.channelOf[voice] === channel) return;
    this.channelOf[voice] = channel;
    const values = this.values.get(channel)!;
    for (const number of [BEND, ...this.controllers]) {
      const value = values.get(number) ?? (number === BEND ? 0 : undefined);
      if (value !== undefined) this.hold(voice, frame, number, value);
    }
  }

  /** As `playing/allocation.py` says; what a piece plays counts as held keys. */
  private voiceFor(note: Note, frame: number): number {
    const rank = (newest: Note | undefined): [number, number] => {
      if (!newest) return [3, 0];
      const same = newest.pitch === note.pitch;
      if (newest.end === null || newest.end > frame) {
        return same ? [0, 0] : [newest.keyUp === null || newest.end !== null ? 5 : 4, newest.start];
      }
      return same ? [1, 0] : [2, newest.end];
    };
    const ranks = this.notes.map((notes) => rank(notes.at(-1)));
    return ranks.reduce((best, [first, second], voice) => {
      const [bestFirst, bestSecond] = ranks[best];
      return first < bestFirst || (first === bestFirst && second < bestSecond) ? voice : best;
    }, 0);
  }

  private change(channel: string, frame: number, number: number, value: number): void {
    this.values.get(channel)!.set(number, value);
    for (const [voice, of] of this.channelOf.entries()) if (of === channel) this.hold(voice, frame, number, value);
  }

  private hold(voice: number, frame: number, number: number, value: number): void {
    if (number !== BEND && (!this.controllers.includes(number) || this.kept.has(number))) return;
    const held = this.held[voice];
    if (!held.has(number)) held.set(number, []);
    held.get(number)!.push([frame, value]);
  }
}

/** The first and the last of more than there is room for: what is in force, and what comes last. */
function few<Each>(events: Each[], most: number): Each[] {
  return events.length <= most ? events : [events[0], ...events.slice(events.length - most + 1)];
}
