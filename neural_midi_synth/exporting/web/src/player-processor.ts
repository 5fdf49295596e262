// The audio thread: plays what the worker writes into the ring, or, without shared memory, sends in messages.

import { READ, RING_HEADER, RING_SAMPLES, WRITTEN } from "./messages";

declare const sampleRate: number;
declare const currentTime: number;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}
declare function registerProcessor(name: string, processor: unknown): void;

const STEP_SECONDS = 0.008; // By so much blocks are made further ahead after one that came late.
const MOST_SECONDS = 0.128;
const PATIENCE_SECONDS = 8;
const FIRST_PATIENCE_SECONDS = 2; // At the very beginning blocks come late most easily.

interface Options {
  processorOptions: { ring: SharedArrayBuffer | null; lead: number; block: number };
}

class Player extends AudioWorkletProcessor {
  private readonly counts: Int32Array | null;
  private readonly ring: Float32Array | null;
  private readonly waiting: Float32Array[] = [];
  private nWaiting = 0;
  private offset = 0;
  private lead = 0; // Samples that blocks are made ahead.
  private readonly leastLead: number;
  private readonly step = Math.round(STEP_SECONDS * sampleRate);
  private calm = 0; // Samples since a block came late, or since it was tried with less of a lead.
  private patience = FIRST_PATIENCE_SECONDS * sampleRate; // So many have to be calm before less is tried.
  private hasTriedLess = false;
  private readonly block: number;
  private asked = 0; // Samples, modulo 2³²; so are those that came.
  private came = 0;
  private worker: MessagePort | null = null;
  private underruns = 0;
  private hasBegun = false;

  constructor({ processorOptions: { ring, lead, block } }: Options) {
    super();
    this.counts = ring && new Int32Array(ring, 0, RING_HEADER);
    this.ring = ring && new Float32Array(ring, RING_HEADER * 4, RING_SAMPLES);
    this.leastLead = Math.round(lead * sampleRate);
    this.block = block;
    this.setLead(this.leastLead + this.step);
    this.port.onmessage = ({ data }) => {
      this.worker = data.worker as MessagePort;
      this.worker.onmessage = ({ data: block }) => {
        this.waiting.push(block as Float32Array);
        this.nWaiting += (block as Float32Array).length;
        this.came = (this.came + (block as Float32Array).length) | 0;
      };
    };
  }

  process(_: unknown, [[output]]: Float32Array[][]): boolean {
    if (!this.worker) return true;
    const available = this.available();
    if (available >= output.length) {
      this.take(output);
      this.hasBegun = true;
      this.tell(output);
      this.calm += output.length;
      if (this.calm > this.patience && this.lead > this.leastLead) {
        this.hasTriedLess = true;
        this.setLead(this.lead - this.step);
      }
    } else if (this.hasBegun) {
      // A block came late: from now on they are made a little further ahead, until it has been calm for long.
      this.hasBegun = false;
      this.underruns++;
      this.patience = Math.max(this.patience * (this.hasTriedLess ? 2 : 1), PATIENCE_SECONDS * sampleRate);
      this.hasTriedLess = false;
      this.setLead(Math.min(this.lead + this.step, MOST_SECONDS * sampleRate));
    }
    // Whoever asks again for what is being made gets more than is needed, ever later.
    const came = this.counts ? Atomics.load(this.counts, WRITTEN) : this.came;
    while (this.available() + ((this.asked - came) | 0) < this.lead) {
      this.worker.postMessage({ type: "pull" });
      this.asked = (this.asked + this.block) | 0;
    }
    return true;
  }

  private setLead(lead: number): void {
    this.lead = lead;
    this.calm = 0;
    this.port.postMessage({ type: "lead", underruns: this.underruns, lead: lead / sampleRate });
  }

  private available(): number {
    if (!this.counts) return this.nWaiting;
    return (Atomics.load(this.counts, WRITTEN) - Atomics.load(this.counts, READ)) | 0;
  }

  private take(output: Float32Array): void {
    if (this.counts && this.ring) {
      const read = Atomics.load(this.counts, READ);
      for (let i = 0; i < output.length; i++) output[i] = this.ring[((read + i) >>> 0) % RING_SAMPLES];
      Atomics.store(this.counts, READ, (read + output.length) | 0);
      return;
    }
    this.nWaiting -= output.length;
    for (let i = 0; i < output.length;) {
      const block = this.waiting[0];
      const part = block.subarray(this.offset, this.offset + output.length - i);
      output.set(part, i);
      i += part.length;
      this.offset += part.length;
      if (this.offset === block.length) {
        this.waiting.shift();
        this.offset = 0;
      }
    }
  }

  private wasSilent = true;

  /** Tells when silence ends, by which the page measures how long a key takes to be heard. */
  private tell(output: Float32Array): void {
    const first = output.findIndex((sample) => Math.abs(sample) > 1e-3);
    if (first >= 0 && this.wasSilent) this.port.postMessage({ type: "sounds", time: currentTime + first / sampleRate });
    this.wasSilent = first < 0;
  }
}

registerProcessor("player", Player);
