"""A responder as one writes it with nats-py: a callback that answers requests in upper case.
upper.py URL SUBJECT; prints `ready` once it answers."""

import asyncio
import signal
import sys

import nats


async def main(url, subject):
    client = await nats.connect(url)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)

    async def answer(message):
        await message.respond(message.data.upper())

    await client.subscribe(subject, queue="upper", cb=answer)
    await client.flush()
    print("ready", flush=True)
    await ended.wait()
    await client.drain()


asyncio.run(main(*sys.argv[1:]))
