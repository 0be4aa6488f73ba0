"""Invoking modules and reading what comes back."""

import json
import time

from behave import given, then, when

# What PROTOCOL's table promises for each code that a scenario names.
STATUS = {
    "invalid_request": 400,
    "invalid_arguments": 422,
    "module_not_found": 404,
    "function_not_found": 404,
    "job_not_found": 404,
    "binding_not_found": 404,
    "conflict": 409,
    "payload_too_large": 413,
    "invalid_module": 422,
    "unsupported_module": 422,
    "guest_trapped": 502,
    "memory_exceeded": 502,
    "output_too_large": 502,
    "deadline_exceeded": 504,
    "out_of_fuel": 504,
    "unsupported": 501,
}


@when('I call "{reference}" with "{text}" over {door}')
@given('I called "{reference}" with "{text}" over {door}')
def call_with_text(context, reference, text, door):
    context.answer = context.wess.call(door, reference, text.encode())


@when('I call the function "{function}" of "{reference}" with "{text}" over {door}')
def call_function(context, function, reference, text, door):
    context.answer = context.wess.call(door, reference, text.encode(), function=function)


@when('I call "{reference}" with nothing over {door}')
def call_with_nothing(context, reference, door):
    context.answer = context.wess.call(door, reference, b"")


@when('I call "{reference}" with {size:d} bytes over {door}')
def call_with_bytes(context, reference, size, door):
    context.answer = context.wess.call(door, reference, b"x" * size)


@when('I call "{reference}" over {door} with the header {name}: {value}')
def call_with_header(context, reference, door, name, value):
    context.answer = context.wess.call(door, reference, b"", {name: value})


@when('I send an HTTP request for "{path}" to "{reference}" over {door}')
def serve(context, path, reference, door):
    context.answer = context.wess.serve(door, reference, path, b"")


@when('I post "{text}" for "{path}" to "{reference}" over {door}')
def serve_text(context, text, path, reference, door):
    context.answer = context.wess.serve(door, reference, path, text.encode())


@when("I send this {endpoint:w} over {door}")
def send_document(context, endpoint, door):
    started = time.monotonic()
    context.answer = context.wess.send(door, endpoint, context.text.encode())
    context.took_s = time.monotonic() - started


@when('{count:d} callers call "{reference}" at once')
def many_at_once(context, count, reference):
    payloads = [f"caller {number}".encode() for number in range(count)]
    context.asked = payloads
    context.answers = context.wess.requests(f"wess.invoke.{reference}", payloads)


@then("every caller gets its own words in upper case")
def every_caller_gets_its_own(context):
    assert context.answers == [payload.upper() for payload in context.asked]


@then('the answer is "{text}"')
def answer_is(context, text):
    assert not context.answer.failed, context.answer.text
    assert context.answer.text.rstrip("\n") == text, context.answer.text


@then("the answer has {size:d} bytes")
def answer_has_size(context, size):
    assert not context.answer.failed, context.answer.text
    assert len(context.answer.body) == size, len(context.answer.body)


@then('its header {name} is "{value}"')
def header_is(context, name, value):
    assert context.answer.headers.get(name.lower()) == value, context.answer.headers


@then('the output is "{text}"')
def output_is(context, text):
    assert not context.answer.failed, context.answer.text
    assert context.answer.json["output"].rstrip("\n") == text.replace("\\n", "\n"), context.answer.text


@then("the results are {results}")
def results_are(context, results):
    assert not context.answer.failed, context.answer.text
    assert context.answer.json["results"] == json.loads(results), context.answer.text


@then("the exit code is {code:d}")
def exit_code_is(context, code):
    assert not context.answer.failed, context.answer.text
    assert context.answer.json["exit_code"] == code, context.answer.text


@then("the chain has {count:d} steps")
def chain_has_steps(context, count):
    assert not context.answer.failed, context.answer.text
    assert len(context.answer.json["steps"]) == count, context.answer.text


@then('it is refused as "{code}"')
def refused_as(context, code):
    assert context.answer.failed, f"it went through: {context.answer.body[:200]}"
    assert context.answer.error["code"] == code, context.answer.text
    if context.answer.door == "CLI":
        return
    assert context.answer.status == STATUS[code], context.answer.status
    if context.answer.door == "HTTP":
        assert context.answer.headers["content-type"].startswith("application/problem+json")
    else:
        assert context.answer.headers["nats-service-error"], context.answer.headers


@then('the refusal names "{word}"')
def refusal_names(context, word):
    assert word in context.answer.text, context.answer.text


@then("it took less than {seconds:d} seconds")
def took_less_than(context, seconds):
    assert context.took_s < seconds, context.took_s


@then('"{reference}" still answers "{text}" to "{payload}" over {door}')
def still_answers(context, reference, text, payload, door):
    context.answer = context.wess.call(door, reference, payload.encode())
    answer_is(context, text)
