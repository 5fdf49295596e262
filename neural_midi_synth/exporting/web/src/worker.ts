// Plays: from events and pieces to blocks of sound, live for the audio thread, or as a whole.

import { clock, type FromWorker, type Instrument, RING_HEADER, RING_SAMPLES, type ToWorker, WRITTEN } from "./messages";
import { Model } from "./model";
import { duration, type Voice } from "./pieces";
import { type ChannelEvent, Voices } from "./voices";

const SILENT = 1e-4;
const TAIL_SECONDS = 1;
const MOST_HEARD_SECONDS = 20 * 60;
const WARM_UP_BLOCKS = 100; // Until then browsers run WebAssembly more slowly, and blocks would come late.

const TOLD_EVERY = 2; // Blocks: as often as the page draws.

const tell = (message: FromWorker, transfer: Transferable[] = []): void => self.postMessage(message, { transfer });

class Player {
  private voices: Voices;
  private frame = 0;
  private readonly waiting: { channel: string; event: ChannelEvent; when: number }[] = [];
  private piece: Voice[] = [];
  private pieceEnd = 0; // Frames, its tail included.
  private place: number | null = null; // In the piece, frames; null while it does not play.
  private isMaking = false;
  private wanted = 0; // Blocks.
  private isRendering = false;
  private quietFrames = 0;
  private port: MessagePort | null = null;
  private counts: Int32Array | null = null;
  private ring: Float32Array | null = null;
  private heard: Float32Array[] = [];
  private nHeard = 0;
  private costs: number[] = []; // Of the blocks since some were last told, ms.

  constructor(
    private readonly of: Instrument,
    private readonly model: Model,
  ) {
    this.voices = this.silence();
  }

  begin(port: MessagePort, ring: SharedArrayBuffer | null): void {
    this.port = port;
    this.counts = ring && new Int32Array(ring, 0, RING_HEADER);
    this.ring = ring && new Float32Array(ring, RING_HEADER * 4, RING_SAMPLES);
    port.onmessage = () => {
      this.wanted++;
      void this.make();
    };
  }

  /** Plays silence that nobody hears, before anybody can play. */
  async warmUp(): Promise<void> {
    for (let i = 0; i < WARM_UP_BLOCKS; i++) await this.model.play(this.voices.rows(0));
    this.model.reset();
  }

  hear(channel: string, event: ChannelEvent, when: number): void {
    this.waiting.push({ channel, event, when });
  }

  keep(number: number, value: number | null): void {
    this.voices.keep(this.frame, number, value);
    if (value === null && this.place !== null) this.chase(this.place);
  }

  setPiece(voices: Voice[]): void {
    const place = this.place;
    if (place !== null) this.voices.leave(this.frame);
    this.piece = voices;
    this.pieceEnd = (duration(voices) + TAIL_SECONDS) * this.of.frame_rate;
    if (place !== null) this.chase(place);
  }

  start(seconds: number): void {
    if (this.place !== null) this.voices.leave(this.frame);
    this.heard = [];
    this.nHeard = 0;
    this.place = seconds * this.of.frame_rate;
    this.chase(this.place);
  }

  stop(): void {
    this.voices.leave(this.frame);
    this.place = null;
    tell({ type: "stopped" });
  }

  panic(): void {
    this.waiting.length = 0;
    if (this.place !== null) this.stop();
    this.voices.silence(this.frame);
    this.model.reset();
    this.quietFrames = Infinity;
  }

  /** All that was played since the piece began, or the page was opened. */
  wasHeard(): Float32Array {
    const audio = new Float32Array(this.nHeard);
    let offset = 0;
    for (const block of this.heard) {
      audio.set(block, offset);
      offset += block.length;
    }
    return audio;
  }

  /** Plays a piece as a whole, from silence, while the audio thread hears nothing. */
  async render(id: number, piece: Voice[], styles: [number, number][], nSamples: number): Promise<void> {
    while (this.isMaking) await new Promise((resolve) => setTimeout(resolve, 1));
    this.isRendering = true;
    try {
      if (this.place !== null) this.stop();
      const { hop, block_frames, latency, frame_rate } = this.of;
      const voices = this.silence();
      this.model.reset();
      for (const [number, value] of styles) voices.keep(0, number, value);
      const wanted = nSamples || Math.round((duration(piece) + TAIL_SECONDS) * frame_rate) * hop;
      const audio = new Float32Array(wanted);
      const nBlocks = Math.ceil((wanted + latency) / (hop * block_frames));
      for (let i = 0; i < nBlocks; i++) {
        const first = i * block_frames;
        voices.forget(first);
        for (const [voice, of] of piece.entries()) voices.follow(voice, of, first, first + block_frames, first);
        const block = await this.model.play(voices.rows(first));
        const begin = first * hop - latency;
        const from = Math.max(-begin, 0);
        const part = block.subarray(from, Math.min(from + wanted - Math.max(begin, 0), block.length));
        audio.set(part, Math.max(begin, 0));
        if (i % 16 === 0) {
          tell({ type: "progress", id, share: i / nBlocks });
          await new Promise((resolve) => setTimeout(resolve, 0)); // Messages are read meanwhile.
        }
      }
      tell({ type: "audio", id, audio }, [audio.buffer]);
    } finally {
      this.voices.silence(this.frame);
      this.model.reset();
      this.isRendering = false;
      void this.make();
    }
  }

  private silence(): Voices {
    const { voices, controllers, frame_rate, block_frames } = this.of;
    return new Voices(voices, controllers, frame_rate, block_frames + 2);
  }

  private chase(place: number): void {
    for (const [voice, of] of this.piece.entries()) this.voices.chase(voice, of, place, this.frame);
  }

  /** Makes the blocks that are wanted, unless that goes on already; where one can't be made, silence. */
  private async make(): Promise<void> {
    if (this.isMaking) return;
    this.isMaking = true;
    while (this.wanted > 0 && !this.isRendering) {
      this.wanted--;
      try {
        this.hand(await this.block());
      } catch (error) {
        this.hand(new Float32Array(this.of.block_frames * this.of.hop));
        tell({ type: "failed", message: String(error) });
      }
    }
    this.isMaking = false;
  }

  private hand(audio: Float32Array): void {
    if (this.nHeard < MOST_HEARD_SECONDS * this.of.sample_rate) {
      this.heard.push(audio.slice());
      this.nHeard += audio.length;
    }
    if (this.counts && this.ring) {
      const written = Atomics.load(this.counts, WRITTEN);
      for (let i = 0; i < audio.length; i++) this.ring[((written + i) >>> 0) % RING_SAMPLES] = audio[i];
      Atomics.store(this.counts, WRITTEN, (written + audio.length) | 0);
    } else {
      this.port!.postMessage(audio, [audio.buffer]);
    }
  }

  private async block(): Promise<Float32Array> {
    const { block_frames, hop, frame_rate } = this.of;
    const first = this.frame;
    this.voices.forget(first);
    // Each event happens the length of a block after it came, so that the rhythm stays what it was.
    let place = 0;
    for (const { channel, event, when } of this.waiting.splice(0)) {
      const ago = ((clock() - when) / 1000) * frame_rate;
      place = Math.min(Math.max(block_frames - ago, place), block_frames);
      this.voices.happen(first + place, channel, event);
    }
    if (this.place !== null) {
      for (const [voice, of] of this.piece.entries()) {
        this.voices.follow(voice, of, this.place, this.place + block_frames, first);
      }
      this.place += block_frames;
      if (this.place > this.pieceEnd) this.stop();
    }
    this.frame += block_frames;
    const isQuiet = this.quietFrames > frame_rate && !this.voices.isBusy(first, 0);
    let block: Float32Array | null = null;
    if (!isQuiet) {
      const begin = performance.now();
      block = await this.model.play(this.voices.rows(first));
      this.costs.push(performance.now() - begin);
      const isSilent = block.every((sample) => Math.abs(sample) < SILENT);
      this.quietFrames = isSilent && !this.voices.isBusy(first, 0) ? this.quietFrames + block_frames : 0;
    }
    if ((first / block_frames) % TOLD_EVERY === 0) {
      tell({
        type: "block",
        seconds: this.place === null ? null : this.place / frame_rate,
        pitches: this.voices.pitches(first),
        controls: this.voices.controls(first),
        banks: block ? this.model.banks(this.of.banks) : [],
        costs: this.costs.splice(0),
      });
    }
    return block ?? new Float32Array(block_frames * hop);
  }
}

let player: Player | null = null;
let loaded: Model | null = null;

async function load(instrument: Instrument, model: string, runtime: string): Promise<void> {
  const next = await Model.load(runtime, model);
  player = null;
  loaded?.delete();
  loaded = next;
  const fresh = new Player(instrument, next);
  await fresh.warmUp();
  player = fresh;
  tell({ type: "loaded" });
}

self.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
  try {
    if (data.type === "load") await load(data.instrument, data.model, data.runtime);
    else if (data.type === "begin") player?.begin(data.port, data.ring);
    else if (data.type === "event") player?.hear(data.channel, data.event, data.when);
    else if (data.type === "style") player?.keep(data.number, data.value);
    else if (data.type === "piece") player?.setPiece(data.voices);
    else if (data.type === "start") player?.start(data.seconds);
    else if (data.type === "stop") player?.stop();
    else if (data.type === "panic") player?.panic();
    else if (data.type === "render") await player?.render(data.id, data.voices, data.styles, data.nSamples);
    else if (data.type === "heard" && player) {
      const audio = player.wasHeard();
      tell({ type: "audio", id: data.id, audio }, [audio.buffer]);
    }
  } catch (error) {
    tell({ type: "failed", message: error instanceof Error ? error.message : String(error) });
  }
};
