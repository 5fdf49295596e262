// The instrument itself: one block of its stream after the other, by LiteRT.

import { type CompiledModel, loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import type { Instrument } from "./messages";
import type { Rows } from "./voices";

/** A bank of oscillators at the last frame: of each voice its fundamental, Hz, and the amplitude of each harmonic. */
export interface Bank {
  f0_hz: Float32Array;
  harmonics: Float32Array;
}

let runtime: Promise<unknown> | undefined;

async function begin(url: string): Promise<void> {
  Object.assign(self, {
    Module: {
      // In a worker the runtime would look for its WebAssembly beside the worker's script.
      locateFile: (name: string) => url + name,
      // What it tells of itself is no error.
      printErr: (text: string) => (/^(INFO|WARNING|VERBOSE)/.test(text) ? console.debug(text) : console.error(text)),
    },
  });
  await loadLiteRt(url);
}

export class Model {
  private state: Record<string, Tensor> = {};

  private constructor(private readonly compiled: CompiledModel) {
    this.reset();
  }

  /** Loads the runtime, once, and a model. */
  static async load(runtimeUrl: string, modelUrl: string): Promise<Model> {
    const bytes = fetch(modelUrl).then(async (answer) => {
      if (!answer.ok) throw new Error(`${modelUrl}: ${answer.status}`);
      return new Uint8Array(await answer.arrayBuffer());
    });
    runtime ??= begin(runtimeUrl);
    await runtime;
    return new Model(await loadAndCompile(await bytes, { accelerator: "wasm" }));
  }

  /** Back to silence. */
  reset(): void {
    for (const tensor of Object.values(this.state)) tensor.delete();
    this.state = {};
    for (const { name, shape, dtype } of this.compiled.getInputDetails()) {
      if (!name.startsWith("state_")) continue;
      const size = shape.reduce((product, n) => product * n, 1);
      this.state[name] = new Tensor(dtype === "int32" ? new Int32Array(size) : new Float32Array(size), [...shape]);
    }
  }

  /** Plays a block. */
  async play(rows: Rows): Promise<Float32Array> {
    const inputs: Record<string, Tensor> = { ...this.state };
    for (const { name, shape } of this.compiled.getInputDetails()) {
      if (!name.startsWith("state_")) inputs[name] = new Tensor(rows[name as keyof Rows], [...shape]);
    }
    const outputs = await this.compiled.run(inputs);
    for (const tensor of Object.values(inputs)) tensor.delete();
    const { audio, ...state } = outputs;
    this.state = state;
    const samples = audio.toTypedArray() as Float32Array;
    audio.delete();
    return samples;
  }

  /** What the banks of oscillators play, from the places in the state where they are. */
  banks(places: Instrument["banks"]): Bank[] {
    const state = this.state.state_float32.toTypedArray() as Float32Array;
    return places.map((of) => ({ f0_hz: state.slice(...of.f0_hz), harmonics: state.slice(...of.harmonics) }));
  }

  delete(): void {
    for (const tensor of Object.values(this.state)) tensor.delete();
    this.compiled.delete();
  }
}
