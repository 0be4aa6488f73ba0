// Serves HTTP: says hello and which path was asked for. There are no bindings for AssemblyScript: handles are numbers,
// and results are written where the last argument says, first whether they are an error.
@external("wasi:http/types@0.2.3", "[method]incoming-request.path-with-query")
declare function pathWithQuery(request: i32, result: usize): void;
@external("wasi:http/types@0.2.3", "[constructor]fields")
declare function newFields(): i32;
@external("wasi:http/types@0.2.3", "[method]fields.append")
declare function append(fields: i32, name: usize, nameLen: i32, value: usize, valueLen: i32, result: usize): void;
@external("wasi:http/types@0.2.3", "[constructor]outgoing-response")
declare function newResponse(headers: i32): i32;
@external("wasi:http/types@0.2.3", "[method]outgoing-response.body")
declare function bodyOf(response: i32, result: usize): void;
@external("wasi:http/types@0.2.3", "[method]outgoing-body.write")
declare function streamOf(body: i32, result: usize): void;
@external("wasi:http/types@0.2.3", "[static]outgoing-body.finish")
declare function finish(body: i32, hasTrailers: i32, trailers: i32, result: usize): void;
@external("wasi:http/types@0.2.3", "[static]response-outparam.set")
declare function setResponse(
  out: i32, isErr: i32, response: i32, e1: i32, e2: i64, e3: i32, e4: i32, e5: i32, e6: i32
): void;
@external("wasi:io/streams@0.2.3", "[method]output-stream.blocking-write-and-flush")
declare function write(stream: i32, bytes: usize, len: i32, result: usize): void;
@external("wasi:io/streams@0.2.3", "[resource-drop]output-stream")
declare function dropStream(stream: i32): void;

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  return heap.alloc(size);
}

// Large enough for any result here.
const result = memory.data(64, 8);

function print(stream: i32, bytes: usize, len: i32): void {
  write(stream, bytes, len, result);
  if (load<u8>(result)) unreachable();
}

function plainText(): i32 {
  const name = String.UTF8.encode("content-type"), value = String.UTF8.encode("text/plain");
  const fields = newFields();
  append(fields, changetype<usize>(name), name.byteLength, changetype<usize>(value), value.byteLength, result);
  return fields;
}

export function handle(request: i32, out: i32): void {
  const response = newResponse(plainText());
  bodyOf(response, result);
  const body = load<i32>(result, 4);
  streamOf(body, result);
  const stream = load<i32>(result, 4);
  setResponse(out, 0, response, 0, 0, 0, 0, 0, 0);

  const hello = String.UTF8.encode("hello from "), end = String.UTF8.encode("\n");
  print(stream, changetype<usize>(hello), hello.byteLength);
  pathWithQuery(request, result);
  if (load<u8>(result)) print(stream, load<usize>(result, 4), load<i32>(result, 8));
  print(stream, changetype<usize>(end), end.byteLength);
  // The stream has to go before its body, and the body has to be finished: else the response breaks off.
  dropStream(stream);
  finish(body, 0, 0, result);
}
