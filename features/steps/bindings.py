"""Binding modules to subjects and streams."""

import json

from behave import given, then, when


@given('the stream "{name}" with "{first}" and "{second}" in it')
def stream(context, name, first, second):
    async def make():
        jetstream = context.wess.nats.jetstream()
        await jetstream.add_stream(name=name, subjects=[f"in.{name}"])
        for body in (first, second):
            await jetstream.publish(f"in.{name}", body.encode())

    context.wess.wait(make())


@when('I bind "{name}" over {door}')
def bind(context, name, door):
    context.answer = context.wess.bind(door, name, json.loads(context.text))


@when('I ask "{subject}" with "{text}"')
def ask(context, subject, text):
    assert not context.answer.failed, context.answer.text
    context.answer = context.wess.request(subject, text.encode())


@when("I list the bindings over {door}")
def list_bindings(context, door):
    context.answer = context.wess.bindings(door)
    context.names = [binding["name"] for binding in context.answer.json["bindings"]]


@when('I unbind "{name}" over {door}')
def unbind(context, name, door):
    context.answer = context.wess.unbind(door, name)
    assert context.answer.json == {"name": name}, context.answer.text


@then('"{name}" is among them')
def is_there(context, name):
    assert name in context.names, context.names


@then('"{name}" is not among them')
def is_gone(context, name):
    assert name not in context.names, context.names


@then('the tail shows "{first}" and "{second}" in any order')
def tail_shows_both(context, first, second):
    assert not context.answer.failed, context.answer.text
    seen = sorted(context.wess.wait(context.tail.next_msg(timeout=10)).data.decode() for _ in range(2))
    assert seen == sorted([first, second]), seen


@then('the stream "{name}" has no consumer')
def no_consumer(context, name):
    info = context.wess.wait(context.wess.nats.jetstream().stream_info(name))
    assert info.state.consumer_count == 0, info.state
