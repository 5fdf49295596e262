// The instrument itself: one block of its stream after the other, by LiteRT.

import { type CompiledModel, loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import type { Rows } from "./voices";

/** A bank of oscillators at the last frame: of each voice its fundamental, Hz, and the amplitude of each harmonic. */
export interface Bank {
  f0: Float32Array;
  harmonics: Float32Array;
}

export interface Block {
  audio: Float32Array;
  banks: Bank[];
}

const BANK = /^(state_processor_group_.*)_harmonics$/;

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
  async play(rows: Rows): Promise<Block> {
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
    const read = (name: string): Float32Array => state[name].toTypedArray() as Float32Array;
    const names = Object.keys(state).flatMap((name) => BANK.exec(name)?.[1] ?? []);
    const banks = names.map((name) => ({ f0: read(`${name}_f0_hz`), harmonics: read(`${name}_harmonics`) }));
    return { audio: samples, banks };
  }

  delete(): void {
    for (const tensor of Object.values(this.state)) tensor.delete();
    this.compiled.delete();
  }
}
