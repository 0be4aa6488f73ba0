// Greets a person by name. There are no bindings for AssemblyScript: this is how WIT's types lie in memory.
export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  return heap.alloc(size);
}

// A result: whether it is an error, a string (address, length), and the option of a bool.
const answer = memory.data(16, 4);

function put(isErr: bool, text: string): usize {
  const bytes = String.UTF8.encode(text);
  store<u8>(answer, isErr);
  store<usize>(answer, changetype<usize>(bytes), 4);
  store<i32>(answer, bytes.byteLength, 8);
  return answer;
}

export function greet(name: usize, len: usize, hasAge: bool, age: u32, tone: u32): usize {
  if (len == 0) return put(true, "nobody to greet");
  const word = tone == 1 ? "Welcome" : "Hello";
  store<u8>(answer, hasAge, 12);
  store<u8>(answer, age >= 18, 13);
  return put(false, `${word}, ${String.UTF8.decodeUnsafe(name, len)}!`);
}
