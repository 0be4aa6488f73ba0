// Counts lines, words and bytes, as wc does.
import { getStdin } from "wasi:cli/stdin@0.2.3";
import { getStdout } from "wasi:cli/stdout@0.2.3";

function* bytesOf(stream) {
  for (;;) {
    try {
      yield* stream.blockingRead(4096);
    } catch (end) {
      if (end.payload?.tag === "closed") return;
      throw end;
    }
  }
}

export const run = {
  run() {
    let lines = 0, words = 0, bytes = 0, inWord = false;
    for (const byte of bytesOf(getStdin())) {
      const space = byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
      if (byte === 0x0a) lines++;
      if (!space && !inWord) words++;
      inWord = !space;
      bytes++;
    }
    getStdout().blockingWriteAndFlush(Uint8Array.from(`${lines} ${words} ${bytes}\n`, (char) => char.charCodeAt(0)));
  },
};
