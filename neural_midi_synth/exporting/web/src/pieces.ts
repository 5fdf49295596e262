// What is played, and how its notes are divided into voices: what `midi/pieces.py` and `midi/allocation.py` are.

/** Start s, end s, MIDI note number, velocity. */
export type NoteRow = [start: number, end: number, pitch: number, velocity: number];

/** A line of notes, none overlapping, with its controls; times are seconds, all lists by time. */
export interface Voice {
  notes: NoteRow[];
  /** Time s, controller number, value. */
  changes: [time: number, number: number, value: number][];
  /** Time s, semitones. */
  bends: [time: number, semitones: number][];
}

// Notes of one voice may overlap by this many seconds, as fingers do in legato, and by this share of the shorter note.
const LEGATO_OVERLAP = 0.1;
const LEGATO_SHARE = 0.5;

/** The index of the last of several rows, by time, that is not after a time; -1 where all are. */
export function inForce(rows: { [0]: number }[], time: number): number {
  let low = 0;
  let high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle][0] <= time) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Divides notes into at most `most` voices, by the rules of `midi/allocation.py`. */
export function divide(notes: NoteRow[], most = Infinity): NoteRow[][] {
  const last: NoteRow[] = [];
  const voices: NoteRow[][] = [];
  for (const note of inOrder(notes)) {
    let voice = suits(last, note);
    if (voice === undefined) {
      voice = last.length < most ? last.length : last.reduce((best, of, i) => (of[0] < last[best][0] ? i : best), 0);
    }
    last[voice] = note;
    (voices[voice] ??= []).push(note);
  }
  return voices.map(newestWins);
}

function suits(last: NoteRow[], [start, end, pitch]: NoteRow): number | undefined {
  let legato: number | undefined;
  let samePitch: number | undefined;
  let ended: number | undefined;
  for (const [i, [lastStart, lastEnd, lastPitch]] of last.entries()) {
    if (lastEnd <= start) {
      if (lastPitch === pitch) samePitch ??= i;
      if (ended === undefined || lastEnd < last[ended][1]) ended = i;
    } else if (lastPitch === pitch) {
      return i;
    } else {
      const overlap = Math.min(lastEnd, end) - start;
      const share = LEGATO_SHARE * Math.min(lastEnd - lastStart, end - start);
      const isLegato = overlap <= LEGATO_OVERLAP && overlap <= share;
      if (isLegato && (legato === undefined || lastStart > last[legato][0])) legato = i;
    }
  }
  return legato ?? samePitch ?? ended;
}

/** Ends each note where the next one begins, and drops those which that leaves without length. */
export function newestWins(notes: NoteRow[]): NoteRow[] {
  return inOrder(notes)
    .map(([start, end, pitch, velocity], i, all): NoteRow => {
      return [start, Math.min(end, all[i + 1]?.[0] ?? Infinity), pitch, velocity];
    })
    .filter(([start, end]) => end > start);
}

export function isMonophonic(notes: NoteRow[]): boolean {
  return divide(notes).length <= 1;
}

/** By start, those of one start from low to high. */
export function inOrder(notes: NoteRow[]): NoteRow[] {
  return [...notes].sort((a, b) => a[0] - b[0] || a[2] - b[2]);
}

/** Seconds to the end of the last note. */
export function duration(voices: Voice[]): number {
  return voices.reduce((longest, voice) => voice.notes.reduce((end, note) => Math.max(end, note[1]), longest), 0);
}
