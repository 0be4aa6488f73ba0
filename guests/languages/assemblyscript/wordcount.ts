// Counts lines, words and bytes, as wc does. AssemblyScript has no standard library for WASI: these are its own functions.
@external("wasi_snapshot_preview1", "fd_read")
declare function fdRead(fd: i32, pieces: usize, count: i32, read: usize): i32;
@external("wasi_snapshot_preview1", "fd_write")
declare function fdWrite(fd: i32, pieces: usize, count: i32, written: usize): i32;

const SIZE = 4096;
const buffer = memory.data(SIZE);
// A piece is an address and a length; the number of bytes that were read or written comes after it.
const piece = memory.data(12, 4);

function read(): i32 {
  store<usize>(piece, buffer);
  store<i32>(piece, SIZE, 4);
  return fdRead(0, piece, 1, piece + 8) == 0 ? load<i32>(piece, 8) : 0;
}

function print(text: string): void {
  const bytes = String.UTF8.encode(text);
  store<usize>(piece, changetype<usize>(bytes));
  store<i32>(piece, bytes.byteLength, 4);
  fdWrite(1, piece, 1, piece + 8);
}

export function _start(): void {
  let lines = 0, words = 0, bytes = 0, inWord = false;
  for (let got = read(); got > 0; got = read()) {
    for (let i = 0; i < got; i++) {
      const byte = load<u8>(buffer + i);
      const space = byte == 0x20 || (byte >= 0x09 && byte <= 0x0d);
      if (byte == 0x0a) lines++;
      if (!space && !inWord) words++;
      inWord = !space;
    }
    bytes += got;
  }
  print(`${lines} ${words} ${bytes}\n`);
}
