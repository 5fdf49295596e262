// The state of one MIDI channel, told of one event after the other: what `midi/events.py` is for files and live play.

export const MODULATION = 1;
export const SUSTAIN_PEDAL = 64;
export const PARAMETER_CONTROLLERS = [101, 100, 99, 98, 6, 38, 96, 97];
const [RPN_MSB, RPN_LSB, NRPN_MSB, NRPN_LSB, DATA_MSB, DATA_LSB, DATA_INCREMENT] = PARAMETER_CONTROLLERS;
const PEDAL_DOWN = 64;
const WHEEL_STEPS = 8192;
const ALL_SOUND_OFF = 120;
const RESET_ALL_CONTROLLERS = 121;
const ALL_NOTES_OFF = 123;
// What "reset all controllers" sets, by the MIDI recommended practice RP-015.
const RESET_VALUES: [number, number][] = [
  [1, 0],
  [11, 127],
  [64, 0],
  [65, 0],
  [66, 0],
  [67, 0],
];
const MOST_OF_A_PITCH = 64;
const LONGEST_RANGE = 127;

/** A note, which lasts until `end` is known. Times are in whatever unit the events have. */
export interface Note {
  start: number;
  pitch: number;
  velocity: number;
  keyUp: number | null;
  end: number | null;
}

export type Fact =
  | { what: "began" | "ended"; note: Note }
  | { what: "changed"; time: number; number: number; value: number }
  | { what: "bent"; time: number; semitones: number };

/** Pairs notes first in, first out; knows the pedal, bend ranges (RPN 0), resets and channel mode messages. */
export class MidiChannel {
  private readonly notes = new Map<number, Note[]>();
  private pedalDown = false;
  private wheel = 0;
  private semitones = 0;
  private rangeSemitones = 2;
  private rangeCents = 0;
  private parameter: [number, number] = [127, 127];
  private isRegistered = true;

  noteOn(time: number, pitch: number, velocity: number): Fact[] {
    if (velocity <= 0) return this.noteOff(time, pitch);
    const notes = this.notes.get(pitch) ?? [];
    this.notes.set(pitch, notes);
    const facts = end(notes, time, true);
    if (notes.length >= MOST_OF_A_PITCH) facts.push(...end(notes.splice(0, 1), time, false));
    const note: Note = { start: time, pitch, velocity, keyUp: null, end: null };
    notes.push(note);
    facts.push({ what: "began", note });
    return facts;
  }

  noteOff(time: number, pitch: number): Fact[] {
    const note = this.notes.get(pitch)?.find((each) => each.keyUp === null);
    if (!note) return [];
    note.keyUp = Math.max(time, note.start);
    return this.pedalDown ? [] : this.endAll(time, true, [pitch]);
  }

  controlChange(time: number, number: number, value: number): Fact[] {
    const facts: Fact[] = [{ what: "changed", time, number, value }];
    if (number === SUSTAIN_PEDAL) facts.push(...this.movePedal(time, value >= PEDAL_DOWN));
    else if (PARAMETER_CONTROLLERS.includes(number)) facts.push(...this.changeParameter(time, number, value));
    else if (number === RESET_ALL_CONTROLLERS) facts.push(...this.resetControllers(time));
    else if (number === ALL_SOUND_OFF) facts.push(...this.end(time));
    else if (number >= ALL_NOTES_OFF && number <= 127) facts.push(...this.releaseKeys(time));
    return facts;
  }

  /** @param value From -8192 to 8191. */
  pitchWheel(time: number, value: number): Fact[] {
    this.wheel = value / WHEEL_STEPS;
    return this.bend(time, this.wheel * this.range);
  }

  end(time: number): Fact[] {
    return this.endAll(time, false, [...this.notes.keys()]);
  }

  private get range(): number {
    return this.rangeSemitones + this.rangeCents / 100;
  }

  private bend(time: number, semitones: number): Fact[] {
    this.semitones = semitones;
    return [{ what: "bent", time, semitones }];
  }

  private endAll(time: number, heldByPedalOnly: boolean, pitches: number[]): Fact[] {
    const facts: Fact[] = [];
    for (const pitch of pitches) {
      const notes = this.notes.get(pitch)!;
      facts.push(...end(notes, time, heldByPedalOnly));
      if (!notes.length) this.notes.delete(pitch);
    }
    return facts;
  }

  private movePedal(time: number, down: boolean): Fact[] {
    this.pedalDown = down;
    return down ? [] : this.endAll(time, true, [...this.notes.keys()]);
  }

  private releaseKeys(time: number): Fact[] {
    for (const notes of this.notes.values()) {
      for (const note of notes) note.keyUp ??= Math.max(time, note.start);
    }
    return this.movePedal(time, this.pedalDown);
  }

  private changeParameter(time: number, number: number, value: number): Fact[] {
    if (number === RPN_MSB || number === RPN_LSB) {
      this.parameter[number === RPN_MSB ? 0 : 1] = value;
      this.isRegistered = true;
    } else if (number === NRPN_MSB || number === NRPN_LSB) {
      this.isRegistered = false;
    } else if (this.isRegistered && this.parameter[0] === 0 && this.parameter[1] === 0) {
      this.changeRange(number, value);
      if (this.wheel) return this.bend(time, this.wheel * this.range);
    }
    return [];
  }

  private changeRange(number: number, value: number): void {
    if (number === DATA_MSB) this.rangeSemitones = value;
    else if (number === DATA_LSB) this.rangeCents = value;
    else {
      const step = number === DATA_INCREMENT ? 1 : -1; // One cent, by the MIDI recommended practice RP-018.
      const wanted = this.rangeSemitones * 100 + this.rangeCents + step;
      const cents = Math.min(Math.max(wanted, 0), LONGEST_RANGE * 100);
      this.rangeSemitones = Math.floor(cents / 100);
      this.rangeCents = cents % 100;
    }
  }

  private resetControllers(time: number): Fact[] {
    this.parameter = [127, 127];
    this.isRegistered = true;
    const facts: Fact[] = RESET_VALUES.map(([number, value]) => ({ what: "changed", time, number, value }));
    facts.push(...this.movePedal(time, false));
    this.wheel = 0;
    if (this.semitones) facts.push(...this.bend(time, 0));
    return facts;
  }
}

/** Ends notes of a list and takes them out of it: all, or those whose key is up. */
function end(notes: Note[], time: number, heldByPedalOnly: boolean): Fact[] {
  const ended = notes.filter((note) => !(heldByPedalOnly && note.keyUp === null));
  const left = notes.filter((note) => !ended.includes(note));
  notes.splice(0, notes.length, ...left);
  return ended.map((note) => {
    note.end = Math.max(time, note.start);
    note.keyUp ??= note.end;
    return { what: "ended", note };
  });
}
