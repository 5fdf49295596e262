// From the page to the sound card: the worker that plays, the audio thread, and how late what is played is heard.

import { clock, type FromWorker, type Instrument, RING_HEADER, RING_SAMPLES, type ToWorker } from "./messages";
import { Told } from "./midi-file";
import type { Voice } from "./pieces";
import processorUrl from "./player-processor?worker&url";
import type { ChannelEvent } from "./voices";
import PlayerWorker from "./worker?worker";

// So far ahead blocks are made, in seconds: messages wait longer than shared memory does.
const LEAD_SHARED = 0.02;
const LEAD_MESSAGES = 0.024;
const PICTURE_SECONDS = 0.128; // Of sound in a column of the spectrogram, at least.
const MOST_COSTS = 1000;

type BlockMessage = Extract<FromWorker, { type: "block" }>;

export class Sound {
  instrument: Instrument | null = null;
  analyser: AnalyserNode | null = null;
  readonly isShared = globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer !== "undefined";
  onBlock: (block: BlockMessage) => void = () => {};
  onStopped: () => void = () => {};
  onMessage: (text: string) => void = () => {};
  onDelay: () => void = () => {};
  onProgress: (share: number) => void = () => {};
  underruns = 0;
  /** What the last blocks took to be made, ms. */
  readonly costs: number[] = [];
  /** Seconds from the last key in silence to its sound, as measured. */
  measured: number | null = null;

  private readonly worker = new PlayerWorker();
  private context: AudioContext | null = null;
  private lead = this.isShared ? LEAD_SHARED : LEAD_MESSAGES;
  private loading: { resolve: () => void; reject: (error: Error) => void } | null = null;
  private readonly asked = new Map<number, (audio: Float32Array) => void>();
  private nAsked = 0;
  private pressed: number | null = null;

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.told(data);
    this.worker.onerror = () => this.fail("the player could not be started");
  }

  /** Loads an instrument; what was played before ends. */
  async load(instrument: Instrument): Promise<void> {
    await this.context?.close();
    this.context = null;
    this.instrument = instrument;
    this.costs.length = 0;
    const here = (path: string): string => new URL(path, document.baseURI).href;
    await new Promise<void>((resolve, reject) => {
      this.loading = { resolve, reject };
      this.send({ type: "load", instrument, model: here(instrument.model), runtime: here("litert/") });
    });
  }

  /** Starts the audio thread, or wakes it. Browsers allow it after a press of a key or a finger only. */
  async begin(): Promise<void> {
    if (!this.instrument) return;
    if (!this.context) {
      try {
        await this.connect(this.instrument.sample_rate);
      } catch (error) {
        this.context = null;
        throw new Told(`This browser gives no sound (${error instanceof Error ? error.message : error}).`);
      }
    }
    if (this.context!.state !== "running") await this.context!.resume();
  }

  /** Whether the audio thread runs. */
  get isRunning(): boolean {
    return this.context?.state === "running";
  }

  event(channel: string, event: ChannelEvent): void {
    if (event.what === "noteOn") this.pressed = performance.now();
    this.send({ type: "event", channel, event, when: clock() });
  }

  style(number: number, value: number | null): void {
    this.send({ type: "style", number, value });
  }

  piece(voices: Voice[]): void {
    this.send({ type: "piece", voices });
  }

  start(seconds: number): void {
    this.send({ type: "start", seconds });
  }

  stop(): void {
    this.send({ type: "stop" });
  }

  panic(): void {
    this.send({ type: "panic" });
  }

  /** Plays a piece as a whole; `nSamples` 0 is to its end and a second more. */
  render(voices: Voice[], styles: [number, number][], nSamples = 0): Promise<Float32Array> {
    return this.ask((id) => ({ type: "render", id, voices, styles, nSamples }));
  }

  heard(): Promise<Float32Array> {
    return this.ask((id) => ({ type: "heard", id }));
  }

  /** Seconds from an event to where it is heard: at most, as far as the browser tells. */
  get delay(): number {
    if (!this.instrument) return 0;
    const { block_frames, hop, latency, sample_rate } = this.instrument;
    const made = this.lead + (block_frames * hop + latency) / sample_rate;
    return made + (this.context?.baseLatency ?? 0) + (this.context?.outputLatency || 0);
  }

  private async connect(sampleRate: number): Promise<void> {
    if (typeof AudioContext === "undefined") throw new Told("it has no Web Audio");
    const context = new AudioContext({ sampleRate, latencyHint: 0 });
    this.context = context;
    await context.audioWorklet.addModule(processorUrl);
    const ring = this.isShared ? new SharedArrayBuffer(RING_HEADER * 4 + RING_SAMPLES * 4) : null;
    const node = new AudioWorkletNode(context, "player", {
      numberOfInputs: 0,
      outputChannelCount: [1],
      processorOptions: { ring, lead: this.lead, block: this.instrument!.block_frames * this.instrument!.hop },
    });
    const { port1, port2 } = new MessageChannel();
    node.port.postMessage({ worker: port1 }, [port1]);
    node.port.onmessage = ({ data }) => this.toldByAudio(data);
    this.send({ type: "begin", port: port2, ring }, [port2]);
    this.analyser = new AnalyserNode(context, {
      fftSize: 2 ** Math.ceil(Math.log2(PICTURE_SECONDS * sampleRate)),
      smoothingTimeConstant: 0,
      minDecibels: -100,
      maxDecibels: -20,
    });
    // Loud chords are limited, so that they do not clip.
    const limiter = new DynamicsCompressorNode(context, {
      threshold: -3,
      knee: 0,
      ratio: 20,
      attack: 0.002,
      release: 0.1,
    });
    node.connect(this.analyser);
    node.connect(limiter).connect(context.destination);
    context.onstatechange = () => this.onDelay();
  }

  private toldByAudio(
    data: { type: "lead"; underruns: number; lead: number } | { type: "sounds"; time: number },
  ): void {
    if (data.type === "lead") {
      this.underruns = data.underruns;
      this.lead = data.lead;
    } else if (this.pressed !== null && this.context) {
      const { contextTime = 0, performanceTime = 0 } = this.context.getOutputTimestamp();
      const elapsed = performanceTime + 1000 * (data.time - contextTime) - this.pressed;
      this.pressed = null;
      if (elapsed > 0 && elapsed < 1000) this.measured = elapsed / 1000;
    }
    this.onDelay();
  }

  private told(message: FromWorker): void {
    if (message.type === "loaded") this.loading?.resolve();
    else if (message.type === "failed") this.fail(message.message);
    else if (message.type === "block") {
      this.costs.push(...message.costs);
      this.costs.splice(0, Math.max(this.costs.length - MOST_COSTS, 0));
      this.onBlock(message);
    } else if (message.type === "stopped") this.onStopped();
    else if (message.type === "progress") this.onProgress(message.share);
    else if (message.type === "audio") {
      this.asked.get(message.id)?.(message.audio);
      this.asked.delete(message.id);
    }
  }

  private fail(reason: string): void {
    const error = new Told(`The instrument cannot be played here (${reason}).`);
    if (this.loading) this.loading.reject(error);
    this.onMessage(error.message);
  }

  private ask(message: (id: number) => ToWorker): Promise<Float32Array> {
    const id = ++this.nAsked;
    return new Promise((resolve) => {
      this.asked.set(id, resolve);
      this.send(message(id));
    });
  }

  private send(message: ToWorker, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }
}
