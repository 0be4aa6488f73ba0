//! Serves HTTP: says hello and which path was asked for.
const std = @import("std");
const c = @import("bindings/hello.zig");

// A panic that prints itself would need WASI; this one is a trap.
pub const panic = std.debug.no_panic;

export fn exports_wasi_http_incoming_handler_handle(
    request: c.exports_wasi_http_incoming_handler_own_incoming_request_t,
    out: c.exports_wasi_http_incoming_handler_own_response_outparam_t,
) void {
    var path = text("/");
    _ = c.wasi_http_types_method_incoming_request_path_with_query(c.wasi_http_types_borrow_incoming_request(request), &path);

    const response = c.wasi_http_types_constructor_outgoing_response(plainText());
    var body: c.wasi_http_types_own_outgoing_body_t = undefined;
    var stream: c.wasi_io_streams_own_output_stream_t = undefined;
    _ = c.wasi_http_types_method_outgoing_response_body(c.wasi_http_types_borrow_outgoing_response(response), &body);
    _ = c.wasi_http_types_method_outgoing_body_write(c.wasi_http_types_borrow_outgoing_body(body), &stream);
    var result: c.wasi_http_types_result_own_outgoing_response_error_code_t = .{ .is_err = false, .val = .{ .ok = response } };
    c.wasi_http_types_static_response_outparam_set(out, &result);

    print(stream, text("hello from "));
    print(stream, path);
    print(stream, text("\n"));
    // The stream has to go before its body, and the body has to be finished: else the response breaks off.
    c.wasi_io_streams_output_stream_drop_own(stream);
    var err: c.wasi_http_types_error_code_t = undefined;
    _ = c.wasi_http_types_static_outgoing_body_finish(body, null, &err);
}

fn text(literal: [*:0]const u8) c.hello_string_t {
    var made: c.hello_string_t = undefined;
    c.hello_string_set(&made, literal);
    return made;
}

fn plainText() c.wasi_http_types_own_headers_t {
    const headers = c.wasi_http_types_constructor_fields();
    var name = text("content-type");
    var value = text("text/plain");
    var err: c.wasi_http_types_header_error_t = undefined;
    if (!c.wasi_http_types_method_fields_append(c.wasi_http_types_borrow_fields(headers), &name, @ptrCast(&value), &err))
        @panic("a header was refused");
    return headers;
}

fn print(stream: c.wasi_io_streams_own_output_stream_t, words: c.hello_string_t) void {
    var bytes: c.hello_list_u8_t = .{ .ptr = words.ptr, .len = words.len };
    var err: c.wasi_io_streams_stream_error_t = undefined;
    if (!c.wasi_io_streams_method_output_stream_blocking_write_and_flush(c.wasi_io_streams_borrow_output_stream(stream), &bytes, &err))
        @panic("the client is gone");
}
