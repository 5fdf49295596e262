// A slider or a switch for each style, which a knob can be taught.

import type { Instrument } from "./messages";

interface Style {
  number: number;
  input: HTMLInputElement;
  output: HTMLOutputElement;
  teach: HTMLButtonElement;
  follow: HTMLButtonElement;
  isSwitch: boolean;
  isKept: boolean;
}

export class Styles {
  private all: Style[] = [];
  private knobs = new Map<number, Style>();
  private taught: Style | null = null;

  /**
   * @param element Gets the sliders.
   * @param onChange Is told a style's controller and its value, 0 to 127; null where a piece is to say it.
   */
  constructor(
    private readonly element: HTMLElement,
    private readonly onChange: (number: number, value: number | null) => void,
  ) {}

  /** Shows the styles of an instrument; the modulation wheel moves the first until it is taught another. */
  show(instrument: Instrument, wheel: number): void {
    this.element.replaceChildren();
    this.all = Object.entries(instrument.styles)
      .filter(([, number]) => instrument.controllers.includes(number))
      .map(([name, number]) => this.make(name, number, instrument));
    this.knobs = new Map(this.all.map((style) => [style.number, style]));
    if (this.all.length && !this.knobs.has(wheel)) this.knobs.set(wheel, this.all[0]);
    this.taught = null;
  }

  /** Tells the values of all styles that are kept. */
  send(): void {
    for (const style of this.all) if (style.isKept) this.onChange(style.number, value(style));
  }

  /** The styles that are kept, and their values. */
  kept(): [number, number][] {
    return this.all.filter((style) => style.isKept).map((style) => [style.number, value(style)]);
  }

  /** Shows what a piece says of the styles that are not kept. */
  follow(controls: [number: number, value: number][]): void {
    for (const [number, to] of controls) {
      const style = this.all.find((each) => each.number === number);
      if (!style || style.isKept) continue;
      if (style.isSwitch) style.input.checked = to >= 64;
      else style.input.value = String(Math.round(to));
      style.output.textContent = shown(style);
    }
  }

  /** What a knob does; false where it is for none of the styles. */
  turn(knob: number, to: number): boolean {
    if (this.taught) {
      this.knobs.set(knob, this.taught);
      this.taught.teach.setAttribute("aria-pressed", "false");
      this.taught.teach.textContent = `Knob ${knob}`;
      this.taught = null;
    }
    const style = this.knobs.get(knob);
    if (!style) return false;
    if (style.isSwitch) style.input.checked = to >= 64;
    else style.input.value = String(to);
    this.changed(style);
    return true;
  }

  private make(name: string, number: number, { defaults, trained_on: trainedOn }: Instrument): Style {
    const title = name.replaceAll("_", " ");
    const isSwitch = trainedOn?.styles?.[name]?.values?.length === 2;
    const row = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const output = document.createElement("output");
    const teach = button("Teach a knob", `Teach a knob ${title}`);
    const follow = button("Follow the piece", `Let the piece say ${title}`);
    const of: Style = { number, input, output, teach, follow, isSwitch, isKept: false };
    row.className = "style";
    label.textContent = title[0].toUpperCase() + title.slice(1);
    input.type = isSwitch ? "checkbox" : "range";
    input.id = `style-${number}`;
    label.htmlFor = input.id;
    if (isSwitch) {
      input.setAttribute("role", "switch");
      input.checked = (defaults[name] ?? 0) >= 64;
    } else {
      input.max = "127";
      input.value = String(defaults[name] ?? 0);
    }
    input.oninput = () => this.changed(of);
    teach.setAttribute("aria-pressed", "false");
    teach.onclick = () => {
      if (this.taught) this.taught.teach.setAttribute("aria-pressed", "false");
      this.taught = this.taught === of ? null : of;
      teach.setAttribute("aria-pressed", String(this.taught === of));
      teach.textContent = this.taught === of ? "Turn the knob …" : "Teach a knob";
    };
    follow.hidden = true;
    follow.onclick = () => {
      of.isKept = false;
      follow.hidden = true;
      this.onChange(number, null);
    };
    output.textContent = shown(of);
    row.append(label, input, output, teach, follow);
    this.element.append(row);
    return of;
  }

  private changed(style: Style): void {
    style.isKept = true;
    style.follow.hidden = false;
    style.output.textContent = shown(style);
    this.onChange(style.number, value(style));
  }
}

function value({ input, isSwitch }: Style): number {
  return isSwitch ? (input.checked ? 127 : 0) : Number(input.value);
}

function shown(style: Style): string {
  return style.isSwitch ? (style.input.checked ? "on" : "off") : String(value(style));
}

function button(text: string, label: string): HTMLButtonElement {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "small";
  made.textContent = text;
  made.setAttribute("aria-label", label);
  return made;
}
