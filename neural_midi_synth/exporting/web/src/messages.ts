// What the page, the worker that plays, and the audio thread tell each other.

import type { Bank } from "./model";
import type { Voice } from "./pieces";
import type { ChannelEvent } from "./voices";

/** Of an instrument, as `nms_export --web` wrote it into `instruments.json`. */
export interface Instrument {
  name: string;
  title: string;
  model: string;
  sample_rate: number;
  hop: number;
  frame_rate: number;
  latency: number;
  live: boolean;
  block_frames: number;
  voices: number;
  banks: Record<keyof Bank, [begin: number, end: number]>[];
  styles: Record<string, number>;
  defaults: Record<string, number>;
  controllers: number[];
  pitch_range: [number, number];
  trained_on?: {
    pitch?: { minimum: number; maximum: number };
    velocity?: { minimum: number; maximum: number };
    styles?: Record<string, { minimum: number; maximum: number; values?: number[] }>;
  };
  verdict?: { message: string; verdict: string };
}

export type ToWorker =
  | { type: "load"; instrument: Instrument; model: string; runtime: string }
  | { type: "begin"; port: MessagePort; ring: SharedArrayBuffer | null }
  | { type: "event"; channel: string; event: ChannelEvent; when: number }
  | { type: "style"; number: number; value: number | null }
  | { type: "piece"; voices: Voice[] }
  | { type: "start"; seconds: number }
  | { type: "stop" }
  | { type: "panic" }
  | { type: "render"; id: number; voices: Voice[]; styles: [number, number][]; nSamples: number }
  | { type: "heard"; id: number };

export type FromWorker =
  | { type: "loaded" }
  | { type: "failed"; message: string }
  | {
      type: "block";
      seconds: number | null;
      pitches: (number | null)[];
      controls: [number: number, value: number][];
      banks: Bank[];
      /** What the blocks since some were last told took to be made, ms; where nothing sounds, nothing is made. */
      costs: number[];
    }
  | { type: "stopped" }
  | { type: "sounds"; time: number }
  | { type: "progress"; id: number; share: number }
  | { type: "audio"; id: number; audio: Float32Array };

/** Milliseconds, the same on the page and in the worker. */
export const clock = (): number => performance.timeOrigin + performance.now();

/** From the audio thread to the worker: so many samples are missing. */
export type FromAudio = { type: "pull" };

/** The ring's first numbers: samples written and read so far, modulo 2³²; the rest of it is sound. */
export const [WRITTEN, READ] = [0, 1];
export const RING_HEADER = 2;
export const RING_SAMPLES = 32768;
