// Upper-cases ASCII letters and leaves every other byte as it is.
@external("host", "set_output") declare function setOutput(bytes: usize, len: i32): void;

// Wess puts the input here. AssemblyScript owns its memory, so it is asked for the room.
export function alloc(len: i32): usize {
  return heap.alloc(len);
}

export function process(input: usize, len: i32): i32 {
  for (let i = 0; i < len; i++) {
    const byte = load<u8>(input + i);
    if (byte >= 0x61 && byte <= 0x7a) store<u8>(input + i, byte - 0x20);
  }
  setOutput(input, len);
  return 0;
}
