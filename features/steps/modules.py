"""Storing, listing, tagging and deleting modules."""

import json

from behave import given, then, when

from client import guest_file

BAD_FILES = {
    "text": b"hello, I am not WebAssembly",
    "nothing": b"",
    "gzip": bytes.fromhex("1f8b0800000000000003") + bytes(64),
    "half a module": guest_file,
    "another magic": b"\x00asn\x01\x00\x00\x00",
}


@given('the module "{name}"')
def store_guest_under_its_name(context, name):
    context.wess.store_guest(name, name)


@given('the chain "{name}" of "{first}" and "{second}"')
def store_chain(context, name, first, second):
    chain = json.dumps({"steps": [first, second]}).encode()
    stored = context.wess.store("HTTP", name, chain)
    assert not stored.failed, stored.text


@given('the guest "{guest}" is stored as "{name}"')
@when('I store the guest "{guest}" as "{name}"')
def store_guest_as(context, guest, name):
    context.wess.store_guest(guest, name)


@when('I store the guest "{guest}" as "{name}" over {door}')
def store_guest_over(context, guest, name, door):
    context.answer = context.wess.store(door, name, guest_file(guest).read_bytes())


@when('I store {what} as "{name}" over {door}')
def store_bad_file(context, what, name, door):
    content = BAD_FILES[what]
    if callable(content):
        whole = content("upper").read_bytes()
        content = whole[: len(whole) // 2]
    context.answer = context.wess.store(door, name, content)


@when('I tag version {version:d} of "{name}" as "{tag}"')
def tag_version(context, version, name, tag):
    body = json.dumps({"tag": tag, "version": version}).encode()
    context.answer = context.wess.request(f"wess.modules.tag.{name}", body)


@when('I delete "{reference}"')
def delete(context, reference):
    context.answer = context.wess.request(f"wess.modules.delete.{reference}", b"{}")


@when('I describe "{reference}" over NATS')
def describe_by_nats(context, reference):
    context.answer = context.wess.request(f"wess.modules.get.{reference}", b"{}")


@when('I describe "{reference}" over HTTP')
def describe_by_http(context, reference):
    context.answer = context.wess.http("GET", f"/v1/modules/{reference}")


@when("I list the modules over NATS")
def list_by_nats(context):
    context.answer = context.wess.request("wess.modules.list", b"{}")


@when("I list the modules over HTTP")
def list_by_http(context):
    context.answer = context.wess.http("GET", "/v1/modules")


@when('I download "{reference}"')
def download(context, reference):
    context.answer = context.wess.http("GET", f"/v1/modules/{reference}/wasm")


@then('the bytes are those of the guest "{guest}"')
def bytes_are_those_of(context, guest):
    assert context.answer.body == guest_file(guest).read_bytes()


@then('the list has "{name}"')
def list_has(context, name):
    names = [module["name"] for module in context.answer.json["modules"]]
    assert name in names, names


@then("it has version {version:d}")
def has_version(context, version):
    assert not context.answer.failed, context.answer.text
    assert context.answer.json["version"] == version, context.answer.text


@then('its tag "{tag}" is version {version:d}')
def tag_is_version(context, tag, version):
    assert context.answer.json["tags"].get(tag) == version, context.answer.text


@then('its ABI is "{abi}"')
def abi_is(context, abi):
    assert context.answer.json["abi"] == abi, context.answer.text


@then('it exports "{function}" with {params} giving {results}')
def exports_function(context, function, params, results):
    wanted = {"name": function, "params": json.loads(params), "results": json.loads(results)}
    told = [{key: export[key] for key in wanted} for export in context.answer.json["exports"]]
    assert wanted in told, context.answer.text


@then('its WIT has "{text}"')
def wit_has(context, text):
    assert text in context.answer.json["wit"], context.answer.text
