"""Serves HTTP: says hello and which path was asked for."""
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        # The stream has to go before its body, and the body has to be finished: else the response breaks off.
        with body.write() as stream:
            stream.blocking_write_and_flush(f"hello from {request.path_with_query()}\n".encode())
        OutgoingBody.finish(body, None)
