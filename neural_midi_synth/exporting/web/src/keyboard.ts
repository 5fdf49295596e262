// The keyboard on screen: fingers, several at once, and where a key is pressed is how hard; and the computer's keys.

const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const IS_BLACK = [false, true, false, true, false, false, true, false, true, false, true, false];
// By their place, whatever is printed on them: two rows, a piano from C on.
const COMPUTER_KEYS = "KeyA KeyW KeyS KeyE KeyD KeyF KeyT KeyG KeyY KeyH KeyU KeyJ KeyK KeyO KeyL KeyP Semicolon".split(
  " ",
);
const NARROWEST = 38; // A white key, pixels.
const COMPUTER_HARDNESS = 0.7;

export const nameOf = (pitch: number): string => `${NAMES[pitch % 12]}${Math.floor(pitch / 12) - 1}`;

interface Range {
  lowest: number;
  highest: number;
}

export class Keyboard {
  onPress: (pitch: number, hardness: number) => void = () => {};
  onRelease: (pitch: number) => void = () => {};
  private readonly keys = new Map<number, HTMLButtonElement>();
  private readonly fingers = new Map<number, number>();
  private readonly held = new Map<string, number>();
  private first = 36;
  private nWhite = 0;

  /**
   * @param element Gets the keys.
   * @param learnt The keys that the instrument has learnt; others are drawn so.
   */
  constructor(
    private readonly element: HTMLElement,
    private learnt: Range,
  ) {
    this.showFrom(learnt);
    new ResizeObserver(() => this.fit()).observe(element);
    element.addEventListener("pointerdown", (event) => this.press(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"] as const) {
      window.addEventListener(end, (event) => this.release(event.pointerId));
    }
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    window.addEventListener("keydown", (event) => this.keyDown(event));
    window.addEventListener("keyup", (event) => this.keyUp(event.code));
    window.addEventListener("blur", () => this.releaseAll());
  }

  setLearnt(learnt: Range): void {
    this.learnt = learnt;
    this.showFrom(learnt);
    this.draw();
  }

  /** Moves the keyboard by octaves. */
  move12(octaves: number): void {
    this.releaseAll();
    this.first = Math.min(Math.max(this.first + 12 * octaves, 12), 96);
    this.draw();
  }

  /** The key of the computer's keyboard that plays C. */
  get computerC(): number {
    return this.first;
  }

  /** Marks the keys that sound. */
  show(pitches: (number | null)[]): void {
    const sounding = new Set(pitches.map((pitch) => (pitch === null ? null : Math.round(pitch))));
    for (const [pitch, key] of this.keys) key.classList.toggle("sounds", sounding.has(pitch));
  }

  releaseAll(): void {
    for (const pointer of [...this.fingers.keys()]) this.release(pointer);
    for (const code of [...this.held.keys()]) this.keyUp(code);
  }

  private showFrom({ lowest }: Range): void {
    this.first = Math.min(Math.max(12 * Math.floor(lowest / 12), 12), 96);
  }

  private fit(): void {
    const nWhite = Math.max(Math.min(Math.floor(this.element.clientWidth / NARROWEST), 29), 8);
    if (nWhite !== this.nWhite) {
      this.nWhite = nWhite;
      this.draw();
    }
  }

  private draw(): void {
    const focused = document.activeElement instanceof HTMLElement ? Number(document.activeElement.dataset.pitch) : NaN;
    this.keys.clear();
    const all: HTMLButtonElement[] = [];
    let white = 0;
    for (let pitch = this.first; pitch <= 127 && white < this.nWhite; pitch++) {
      const isBlack = IS_BLACK[pitch % 12];
      const key = document.createElement("button");
      const isLearnt = pitch >= this.learnt.lowest && pitch <= this.learnt.highest;
      key.type = "button";
      key.dataset.pitch = String(pitch);
      key.className = `key ${isBlack ? "black" : "white"}${isLearnt ? "" : " unlearnt"}`;
      key.setAttribute("aria-label", `${nameOf(pitch)}${isLearnt ? "" : ", not learnt"}`);
      key.tabIndex = pitch === this.first ? 0 : -1;
      key.style.left = `${((white - (isBlack ? 0.3 : 0)) / this.nWhite) * 100}%`;
      key.style.width = `${((isBlack ? 0.6 : 1) / this.nWhite) * 100}%`;
      if (pitch % 12 === 0) key.textContent = nameOf(pitch);
      if (!isBlack) white++;
      this.keys.set(pitch, key);
      all.push(key);
    }
    this.element.replaceChildren(...all);
    this.keys.get(focused)?.focus();
  }

  private at(x: number, y: number): HTMLButtonElement | null {
    const key = document.elementFromPoint(x, y)?.closest<HTMLButtonElement>(".key");
    return key && this.element.contains(key) ? key : null;
  }

  private press(event: PointerEvent): void {
    const key = this.at(event.clientX, event.clientY);
    if (!key || event.button > 0) return;
    // The finger may slide to other keys.
    if (event.target instanceof Element && event.target.hasPointerCapture?.(event.pointerId)) {
      event.target.releasePointerCapture(event.pointerId);
    }
    this.touch(event.pointerId, key, event.clientY);
  }

  private move(event: PointerEvent): void {
    if (!this.fingers.has(event.pointerId)) return;
    const key = this.at(event.clientX, event.clientY);
    if (key && Number(key.dataset.pitch) !== this.fingers.get(event.pointerId)) {
      this.release(event.pointerId);
      this.touch(event.pointerId, key, event.clientY);
    }
  }

  private touch(pointer: number, key: HTMLButtonElement, y: number): void {
    const pitch = Number(key.dataset.pitch);
    const { top, height } = key.getBoundingClientRect();
    this.fingers.set(pointer, pitch);
    key.classList.add("pressed");
    this.onPress(pitch, Math.min(Math.max((y - top) / height, 0), 1));
  }

  private release(pointer: number): void {
    const pitch = this.fingers.get(pointer);
    if (pitch === undefined) return;
    this.fingers.delete(pointer);
    this.up(pitch);
  }

  private up(pitch: number): void {
    this.keys.get(pitch)?.classList.remove("pressed");
    this.onRelease(pitch);
  }

  private keyDown(event: KeyboardEvent): void {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as HTMLElement;
    const focused = target.closest?.<HTMLElement>(".key");
    if (focused && this.element.contains(focused)) {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.hold(event.code, Number(focused.dataset.pitch));
        return;
      }
      const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (by) {
        event.preventDefault();
        const next = this.keys.get(Number(focused.dataset.pitch) + by);
        if (next) {
          focused.tabIndex = -1;
          next.tabIndex = 0;
          next.focus();
        }
        return;
      }
    }
    if (target.closest?.("select, input:not([type=range], [type=checkbox])")) return;
    const place = COMPUTER_KEYS.indexOf(event.code);
    if (place >= 0) this.hold(event.code, this.first + place);
    else if (event.code === "KeyZ") this.move12(-1);
    else if (event.code === "KeyX") this.move12(1);
  }

  private hold(code: string, pitch: number): void {
    if (this.held.has(code)) return;
    this.held.set(code, pitch);
    this.keys.get(pitch)?.classList.add("pressed");
    this.onPress(pitch, COMPUTER_HARDNESS);
  }

  private keyUp(code: string): void {
    const pitch = this.held.get(code);
    if (pitch === undefined) return;
    this.held.delete(code);
    this.up(pitch);
  }
}
