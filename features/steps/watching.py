"""Discovery by the NATS Services API, guest logs, health and metrics."""

import json
import os
import urllib.request

from behave import given, then, when


@when("I ask NATS for the services that are there")
def ask_for_services(context):
    context.info = context.wess.request("$SRV.INFO.wess").json


@then('the service "{name}" takes requests on "{subject}"')
def service_takes(context, name, subject):
    assert context.info["name"] == name, context.info
    subjects = [endpoint["subject"] for endpoint in context.info["endpoints"]]
    assert subject in subjects, subjects


@given('I tail "{subject}"')
def tail(context, subject):
    context.tail = context.wess.wait(context.wess.nats.subscribe(subject))
    context.wess.wait(context.wess.nats.flush())


@then('the tail shows "{text}" on "{subject}"')
def tail_shows(context, text, subject):
    line = context.wess.wait(context.tail.next_msg(timeout=10))
    assert (line.subject, line.data.decode().rstrip("\n")) == (subject, text), (line.subject, line.data)


def admin_page(path):
    with urllib.request.urlopen(os.environ["WESS_ADMIN"] + path, timeout=10) as page:
        return page.read().decode()


@then('its admin port answers "{path}"')
def admin_answers(context, path):
    admin_page(path)


@then("its metrics have counted {counter}")
def metrics_have_counted(context, counter):
    page = admin_page("/metrics")
    counts = [line.split(" ")[1] for line in page.splitlines() if line.startswith(counter + " ")]
    assert len(counts) == 1 and float(counts[0]) >= 1, f"{counter}: {counts}"


@then("its OpenAPI document has the path {path}")
def openapi_has(context, path):
    document = json.loads(context.wess.http("GET", "/openapi.json").body)
    assert path in document["paths"], sorted(document["paths"])
