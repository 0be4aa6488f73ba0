// Serves HTTP: says hello and which path was asked for.
#include "bindings/hello.h"

#include <stdlib.h>

static void print(wasi_io_streams_own_output_stream_t stream, hello_string_t text) {
    hello_list_u8_t bytes = {text.ptr, text.len};
    wasi_io_streams_stream_error_t error;
    if (!wasi_io_streams_method_output_stream_blocking_write_and_flush(wasi_io_streams_borrow_output_stream(stream),
                                                                       &bytes, &error))
        abort();
}

static hello_string_t text(const char *literal) {
    hello_string_t text;
    hello_string_set(&text, literal);
    return text;
}

static wasi_http_types_own_headers_t plain_text(void) {
    wasi_http_types_own_headers_t headers = wasi_http_types_constructor_fields();
    hello_string_t name = text("content-type"), value = text("text/plain");
    wasi_http_types_header_error_t error;
    if (!wasi_http_types_method_fields_append(wasi_http_types_borrow_fields(headers), &name,
                                              (wasi_http_types_field_value_t *)&value, &error))
        abort();
    return headers;
}

void exports_wasi_http_incoming_handler_handle(exports_wasi_http_incoming_handler_own_incoming_request_t request,
                                               exports_wasi_http_incoming_handler_own_response_outparam_t out) {
    hello_string_t path = text("/");
    wasi_http_types_method_incoming_request_path_with_query(wasi_http_types_borrow_incoming_request(request), &path);

    wasi_http_types_own_outgoing_response_t response = wasi_http_types_constructor_outgoing_response(plain_text());
    wasi_http_types_own_outgoing_body_t body;
    wasi_io_streams_own_output_stream_t stream;
    wasi_http_types_method_outgoing_response_body(wasi_http_types_borrow_outgoing_response(response), &body);
    wasi_http_types_method_outgoing_body_write(wasi_http_types_borrow_outgoing_body(body), &stream);
    wasi_http_types_result_own_outgoing_response_error_code_t result = {.val.ok = response};
    wasi_http_types_static_response_outparam_set(out, &result);

    print(stream, text("hello from "));
    print(stream, path);
    print(stream, text("\n"));
    // The stream has to go before its body, and the body has to be finished: else the response breaks off.
    wasi_io_streams_output_stream_drop_own(stream);
    wasi_http_types_error_code_t error;
    wasi_http_types_static_outgoing_body_finish(body, NULL, &error);
}
