"""Submitting durable jobs, and asking what became of them."""

import base64
import json
from datetime import datetime

from behave import then, when

from client import guest_file


def keep(context, answer):
    """The answer, and the id of the job that it is about."""
    context.answer = answer
    if not answer.failed and "job_id" in answer.json:
        context.job_id = answer.json["job_id"]


def record(context):
    assert not context.answer.failed, context.answer.text
    return context.answer.json


@when("I submit this job over {door}")
def submit(context, door):
    keep(context, context.wess.submit(door, context.text.encode()))


@when('I submit this job under the key "{key}" over {door}')
def submit_under_key(context, key, door):
    keep(context, context.wess.submit(door, context.text.encode(), key))


@when('I submit a job over {door} that stores the guest "{guest}" as "{name}"')
def submit_store(context, door, guest, name):
    wasm = base64.b64encode(guest_file(guest).read_bytes()).decode()
    job = {"store": {"name": name, "wasm_base64": wasm}}
    keep(context, context.wess.submit(door, json.dumps(job).encode()))


@when('I submit a job over {door} for "{module}" with {size:d} bytes')
def submit_large(context, door, module, size):
    job = {"invoke": {"module": module, "input": "x" * size}}
    keep(context, context.wess.submit(door, json.dumps(job).encode()))


@when('I submit {count:d} jobs for "{module}" over {door}')
def submit_many(context, count, module, door):
    context.job_ids = []
    for number in range(count):
        job = {"job_id": f"{module}-{number}", "invoke": {"module": module, "input": "hello"}}
        keep(context, context.wess.submit(door, json.dumps(job).encode()))
        context.job_ids.append(record(context)["job_id"])


@when("I wait for the job over {door}")
def wait(context, door):
    keep(context, context.wess.job("wait", door, context.job_id))


@when("I wait for each of them")
def wait_for_each(context):
    for job_id in context.job_ids:
        keep(context, context.wess.job("wait", "NATS", job_id))
        job_is(context, "succeeded")


@when("I ask for the job over {door}")
def ask(context, door):
    keep(context, context.wess.job("get", door, context.job_id))


@when('I ask for the job "{job_id}" over {door}')
def ask_for(context, job_id, door):
    context.job_id = job_id
    context.answer = context.wess.job("get", door, job_id)


@when("I cancel the job over {door}")
def cancel(context, door):
    context.answer = context.wess.job("cancel", door, context.job_id)


@when('I list {limit:d} jobs for "{module}" over {door}')
def list_jobs(context, limit, module, door):
    context.answer = context.wess.list_jobs(door, module, limit)


@when('I list the next jobs for "{module}" over {door}')
def list_next(context, module, door):
    context.answer = context.wess.list_jobs(door, module, 2, after=record(context)["next"])


@when("I ask for its dead letter over {door}")
def ask_for_letter(context, door):
    context.answer = context.wess.dead("get", door, context.job_id)


@when("I list the dead letters over {door}")
def list_letters(context, door):
    context.answer = context.wess.list_dead(door)


@when("I redrive the job over {door}")
def redrive(context, door):
    keep(context, context.wess.dead("redrive", door, context.job_id))
    assert record(context)["state"] == "queued", context.answer.text


@when("I purge its dead letter over {door}")
def purge(context, door):
    context.answer = context.wess.dead("purge", door, context.job_id)
    assert record(context) == {"purged": 1}, context.answer.text


@then("the job is accepted")
def is_accepted(context):
    job_id = record(context)["job_id"]
    if context.answer.door == "HTTP":
        assert context.answer.status == 202, context.answer.status
        assert context.answer.headers["location"] == f"/v1/jobs/{job_id}", context.answer.headers


@then('its id is "{job_id}"')
def id_is(context, job_id):
    assert record(context)["job_id"] == job_id, context.answer.text


def job_is(context, state):
    assert record(context)["state"] == state, context.answer.text


@then("the job has succeeded")
def has_succeeded(context):
    job_is(context, "succeeded")


@then("the job has been cancelled")
def was_cancelled(context):
    job_is(context, "cancelled")


@then('the job has failed with "{code}"')
def has_failed_with(context, code):
    job_is(context, "failed")
    assert context.answer.json["error"]["code"] == code, context.answer.text


@then('the job is dead with "{code}"')
def is_dead_with(context, code):
    job_is(context, "dead")
    assert context.answer.json["error"]["code"] == code, context.answer.text


@then("its guest has ended {attempts:d} time")
@then("its guest has ended {attempts:d} times")
def has_ended(context, attempts):
    assert record(context)["attempts"] == attempts, context.answer.text


@then('its output is "{text}"')
def output_is(context, text):
    assert record(context)["outcome"]["output"] == text, context.answer.text


@then("its output has {size:d} bytes")
def output_has(context, size):
    assert len(record(context)["outcome"]["output"]) == size, len(context.answer.body)


@then('the letter\'s reason is "{reason}"')
def reason_is(context, reason):
    assert record(context)["reason"] == reason, context.answer.text


@then("the dead letters have the job")
def letters_have(context):
    ids = [letter["job_id"] for letter in record(context)["letters"]]
    assert context.job_id in ids, ids


@then("the list has the first {count:d} of them and goes on")
def list_goes_on(context, count):
    ids = [job["job_id"] for job in record(context)["jobs"]]
    assert ids == context.job_ids[:count], ids
    assert context.answer.json["next"], context.answer.text


@then("the list has the last of them and ends")
def list_ends(context):
    ids = [job["job_id"] for job in record(context)["jobs"]]
    assert ids == context.job_ids[-1:], ids
    assert not context.answer.json.get("next"), context.answer.text


def instant(text):
    return datetime.fromisoformat(text)


@then("the job is queued and has a time")
def has_a_time(context):
    job_is(context, "queued")
    context.due = instant(context.answer.json["due"])
    assert context.due > instant(context.answer.json["submitted"]), context.answer.text


@then("it did not start before its time")
def started_in_time(context):
    assert instant(record(context)["started"]) >= context.due, context.answer.text


def next_record(context):
    message = context.wess.wait(context.tail.next_msg(timeout=20))
    return json.loads(message.data)


@then('the tail shows {count:d} jobs of the schedule "{schedule}" that have succeeded')
def schedule_makes_jobs(context, count, schedule):
    found = set()
    while len(found) < count:
        told = next_record(context)
        if told["job_id"].startswith(f"{schedule}-"):
            assert told["state"] == "succeeded", told
            assert told["outcome"]["output"] == "TICK", told
            found.add(told["job_id"])


@then("the tail shows that the job has succeeded")
def tail_shows_the_job(context):
    told = next_record(context)
    assert (told["job_id"], told["state"]) == (context.job_id, "succeeded"), told
