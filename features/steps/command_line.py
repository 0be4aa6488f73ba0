"""The `wess` command as a person or a script uses it."""

import json
import shlex

from behave import then, when

from client import ROOT


def run(context, line, stdin=b""):
    """Paths are by the root; GATEWAY is where the gateway listens."""
    for name, meant in (("guests/", f"{ROOT}/guests/"), ("features/", f"{ROOT}/features/"), ("GATEWAY", context.wess.http_url.split("://")[1])):
        line = line.replace(name, meant)
    context.done = context.wess.command(*shlex.split(line), stdin=stdin)


@when("I run wess {line}")
def run_line(context, line):
    run(context, line)


@when('I pipe "{text}" into wess {line}')
def pipe_into(context, text, line):
    run(context, line, text.encode())


@when("I pipe {size:d} bytes into wess {line}")
def pipe_bytes_into(context, size, line):
    run(context, line, b"x" * size)


@then("it prints {size:d} bytes")
def prints_bytes(context, size):
    assert context.done.returncode == 0, context.done.stderr.decode()
    assert len(context.done.stdout) == size, len(context.done.stdout)


@then('it prints "{text}"')
def prints(context, text):
    assert context.done.returncode == 0, context.done.stderr.decode()
    assert context.done.stdout.decode().rstrip("\n") == text, context.done.stdout


@then('it prints something with "{text}"')
def prints_something_with(context, text):
    assert context.done.returncode == 0, context.done.stderr.decode()
    assert text in context.done.stdout.decode(), context.done.stdout


@then("it prints JSON whose {member} is {value}")
def prints_json(context, member, value):
    assert context.done.returncode == 0, context.done.stderr.decode()
    found = json.loads(context.done.stdout)
    assert found[member] == json.loads(value), found


@then('it fails and says "{text}"')
def fails_and_says(context, text):
    assert context.done.returncode != 0, context.done.stdout
    assert text in context.done.stderr.decode(), context.done.stderr
