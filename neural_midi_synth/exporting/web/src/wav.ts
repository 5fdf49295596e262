/** Sound as a wav file of 16 bits; what is louder than full scale is clipped. */
export function wav(audio: Float32Array, sampleRate: number): Blob {
  const header = new DataView(new ArrayBuffer(44));
  const text = (at: number, letters: string): void => {
    for (let i = 0; i < letters.length; i++) header.setUint8(at + i, letters.charCodeAt(i));
  };
  text(0, "RIFF");
  header.setUint32(4, 36 + 2 * audio.length, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true);
  header.setUint16(22, 1, true);
  header.setUint32(24, sampleRate, true);
  header.setUint32(28, 2 * sampleRate, true);
  header.setUint16(32, 2, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, 2 * audio.length, true);
  const samples = Int16Array.from(audio, (sample) => Math.round(32767 * Math.min(Math.max(sample, -1), 1)));
  return new Blob([header, samples], { type: "audio/wav" });
}
