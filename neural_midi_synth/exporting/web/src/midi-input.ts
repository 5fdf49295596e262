// Keyboards that are plugged in, by Web MIDI.

import { WebMidi } from "webmidi";
import { Told } from "./midi-file";
import type { ChannelEvent } from "./voices";

export type Listener = (channel: string, event: ChannelEvent) => void;

/**
 * Listens to every keyboard there is and will be.
 *
 * @param listener Is told of each event, with the name of its keyboard and MIDI channel.
 * @param onDevices Is told the names of all keyboards whenever there are others.
 * @throws Told Why there is no Web MIDI, in a sentence.
 */
export async function listen(listener: Listener, onDevices: (names: string[]) => void): Promise<void> {
  if (!navigator.requestMIDIAccess) throw new Told("This browser has no Web MIDI; Chrome, Edge and Firefox have it.");
  try {
    await WebMidi.enable();
  } catch {
    throw new Told("The browser does not allow MIDI keyboards on this page.");
  }
  const known = new Set<string>();
  const update = (): void => {
    for (const input of WebMidi.inputs) {
      if (known.has(input.id)) continue;
      known.add(input.id);
      input.addListener("midimessage", ({ message }) => {
        const event = read(message.data);
        if (event) listener(`${input.id} ${message.data[0] & 15}`, event);
      });
    }
    onDevices(WebMidi.inputs.map((input) => input.name));
  };
  WebMidi.addListener("connected", update);
  WebMidi.addListener("disconnected", (event) => {
    known.delete(event.port.id);
    update();
  });
  update();
}

function read([status, first = 0, second = 0]: number[]): ChannelEvent | null {
  switch (status >> 4) {
    case 0x8:
      return { what: "noteOff", values: [first] };
    case 0x9:
      return { what: "noteOn", values: [first, second] };
    case 0xb:
      return { what: "controlChange", values: [first, second] };
    case 0xe:
      return { what: "pitchWheel", values: [first + 128 * second - 8192] };
    default:
      return null;
  }
}
