// The picture: a spectrogram that passes by with the notes as lines, and the harmonics that the network makes of them.

import type { Bank } from "./model";

const LOWEST_HZ = 50;
const PIXELS_A_SECOND = 80;
const PANEL = 0.2; // Share of the picture for the harmonics.
const MARKS = [100, 200, 500, 1000, 2000, 5000, 10000];
const QUIETEST_DB = -70;
const COLOURS = 64;
const VOICE_COLOURS = ["#1fb5a6", "#5b8def", "#c05bd6", "#4fae3d", "#e0559a", "#2e9fd4", "#8a6cf0", "#7f9a1c"];

export interface Sounding {
  pitches: (number | null)[];
  banks: Bank[];
}

export class Picture {
  private readonly context: CanvasRenderingContext2D;
  private readonly passing = document.createElement("canvas");
  private sounding: Sounding = { pitches: [], banks: [] };
  private spectrum = new Float32Array(0);
  private colours: string[] = [];
  private last = 0;
  private rest = 0;
  private readonly isStill = matchMedia("(prefers-reduced-motion: reduce)");
  private readonly isDark = matchMedia("(prefers-color-scheme: dark)");

  /**
   * @param canvas Where it is drawn.
   * @param analyser Of the sound, once there is one.
   * @param sampleRate Of the instrument.
   */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly analyser: () => AnalyserNode | null,
    private readonly sampleRate: () => number,
  ) {
    this.context = canvas.getContext("2d")!;
    new ResizeObserver(() => this.fit()).observe(canvas);
    this.isDark.addEventListener("change", () => this.fit());
  }

  private fit(): void {
    const scale = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = Math.max(Math.round(this.canvas.clientWidth * scale), 1);
    this.canvas.height = Math.max(Math.round(this.canvas.clientHeight * scale), 1);
    this.passing.width = Math.max(Math.round(this.canvas.width * (1 - PANEL)), 1);
    this.passing.height = this.canvas.height;
    const passing = this.passing.getContext("2d")!;
    this.colours = Array.from({ length: COLOURS }, (_, i) => colour(i / (COLOURS - 1), this.isDark.matches));
    passing.fillStyle = this.colours[0];
    passing.fillRect(0, 0, this.passing.width, this.passing.height);
  }

  /**
   * Draws the next picture.
   *
   * @param time As requestAnimationFrame tells it, ms.
   * @param sounding What sounds; nothing unless given.
   */
  draw(time: number, sounding?: Sounding): void {
    if (sounding) this.sounding = sounding;
    const seconds = Math.min((time - this.last) / 1000, 0.1);
    this.last = time;
    const scale = this.canvas.height / Math.max(this.canvas.clientHeight, 1);
    this.rest += seconds * PIXELS_A_SECOND * scale;
    const step = Math.floor(this.rest);
    this.rest -= step;
    const analyser = this.analyser();
    if (analyser && step && !this.isStill.matches && analyser.context.state === "running") this.pass(analyser, step);
    const { width, height } = this.canvas;
    this.context.drawImage(this.passing, 0, 0);
    this.panel(this.passing.width, width, height, scale);
    this.marks(width, height, scale);
  }

  private yOf(hz: number): number {
    const highest = this.sampleRate() / 2;
    return this.canvas.height * (1 - Math.log(hz / LOWEST_HZ) / Math.log(highest / LOWEST_HZ));
  }

  /** Moves the spectrogram on, and draws what has come. */
  private pass(analyser: AnalyserNode, step: number): void {
    const { width, height } = this.passing;
    const passing = this.passing.getContext("2d")!;
    if (this.spectrum.length !== analyser.frequencyBinCount)
      this.spectrum = new Float32Array(analyser.frequencyBinCount);
    analyser.getFloatFrequencyData(this.spectrum as Float32Array<ArrayBuffer>);
    passing.drawImage(this.passing, -step, 0);
    const highest = this.sampleRate() / 2;
    for (let y = 0; y < height; y += 2) {
      const hz = LOWEST_HZ * (highest / LOWEST_HZ) ** (1 - y / height);
      const upper = LOWEST_HZ * (highest / LOWEST_HZ) ** (1 - (y - 2) / height);
      const first = Math.floor((hz / highest) * this.spectrum.length);
      const end = Math.max(Math.ceil((upper / highest) * this.spectrum.length), first + 1);
      let level = -Infinity;
      for (let bin = first; bin < Math.min(end, this.spectrum.length); bin++)
        level = Math.max(level, this.spectrum[bin]);
      const share = Math.min(Math.max((level + 95) / 70, 0), 1);
      passing.fillStyle = this.colours[Math.round(share * (COLOURS - 1))];
      passing.fillRect(width - step, y, step, 2);
    }
    for (const [voice, pitch] of this.sounding.pitches.entries()) {
      // The lowest of its banks: others play a fifth above it, say.
      const hz = Math.min(...this.sounding.banks.map(({ f0_hz }) => f0_hz[voice]));
      if (pitch === null || !(hz > LOWEST_HZ && hz < highest)) continue;
      passing.fillStyle = VOICE_COLOURS[voice % VOICE_COLOURS.length];
      passing.fillRect(width - step, this.yOf(hz) - 1.5, step, 3);
    }
  }

  private panel(left: number, width: number, height: number, scale: number): void {
    this.context.fillStyle = getComputedStyle(this.canvas).getPropertyValue("--panel");
    this.context.fillRect(left, 0, width - left, height);
    const room = width - left - 4 * scale;
    for (const { f0_hz, harmonics } of this.sounding.banks) this.bank(f0_hz, harmonics, left, room, scale);
    this.context.globalAlpha = 1;
  }

  private bank(f0: Float32Array, harmonics: Float32Array, left: number, room: number, scale: number): void {
    const count = harmonics.length / f0.length;
    this.context.globalAlpha = 0.9;
    for (let voice = 0; voice < f0.length; voice++) {
      this.context.fillStyle = VOICE_COLOURS[voice % VOICE_COLOURS.length];
      this.context.beginPath();
      for (let k = 1; k <= count; k++) {
        const hz = k * f0[voice];
        const amplitude = harmonics[voice * count + k - 1];
        const level = 20 * Math.log10(Math.max(amplitude, 1e-6));
        if (hz < LOWEST_HZ || hz > this.sampleRate() / 2 || level < QUIETEST_DB) continue;
        this.context.rect(left + 2 * scale, this.yOf(hz) - scale, room * (1 - level / QUIETEST_DB), 2 * scale);
      }
      this.context.fill();
    }
  }

  private marks(width: number, height: number, scale: number): void {
    this.context.font = `${11 * scale}px system-ui, sans-serif`;
    this.context.textBaseline = "bottom";
    this.context.fillStyle = getComputedStyle(this.canvas).getPropertyValue("--mark");
    for (const hz of MARKS) {
      const y = this.yOf(hz);
      if (y < 12 * scale || y > height - 2) continue;
      this.context.globalAlpha = 0.25;
      this.context.fillRect(0, y, width, 1);
      this.context.globalAlpha = 0.9;
      this.context.fillText(hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`, 6 * scale, y - scale);
    }
    this.context.globalAlpha = 1;
  }
}

/** From silence, 0, to the loudest, 1. */
function colour(level: number, isDark: boolean): string {
  if (isDark) return `hsl(${16 + 34 * level} ${70 + 20 * level}% ${5 + 70 * level ** 2}%)`;
  return `hsl(${36 - 20 * level} ${60 + 25 * level}% ${97 - 62 * level ** 1.3}%)`;
}
