"""A WebSocket echo server (`serve`), or a client that talks to one and prints what it saw (`talk URL`)."""
import asyncio
import http
import ssl
import sys

import websockets


async def handler(connection):
    path = connection.request.path
    if path == "/goodbye":
        await connection.recv()
        await connection.close(4001, "as agreed")
        return
    async for message in connection:
        await connection.send(message)


def before(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not you\n")


async def serve():
    options = dict(max_size=None, subprotocols=["chat.v2"], process_request=before)
    async with websockets.serve(handler, "127.0.0.1", 0, **options) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


def connect(url, **options):
    if url.startswith("wss"):
        options["ssl"] = ssl._create_unverified_context()
    return websockets.connect(url, max_size=None, proxy=None, open_timeout=20, **options)


async def echoes(url, compression):
    async with connect(url + "/echo", subprotocols=["chat.v1", "chat.v2"], compression=compression) as connection:
        print("agreed", connection.subprotocol, [type(one).__name__ for one in connection.protocol.extensions])
        for message in ["hello", "\u00e9\u4e16" * 20_000, "x" * 70_000, b"\0\1\xff" * 300_000, "", b""]:
            await connection.send(message)
            print("echo", type(message).__name__, len(message), await asyncio.wait_for(connection.recv(), 20) == message)
        # A message in pieces arrives as one.
        await connection.send(["in ", "three ", "pieces"])
        print("pieces", await asyncio.wait_for(connection.recv(), 20))
        await asyncio.wait_for(await connection.ping(b"are you there"), 20)
        # Many at once, both ways at the same time.
        sending = asyncio.ensure_future(all_of(connection, 500))
        back = [await asyncio.wait_for(connection.recv(), 20) for _ in range(500)]
        await sending
        print("in order", back == [str(number) for number in range(500)])
    print("closed", connection.close_code)


async def all_of(connection, count):
    for number in range(count):
        await connection.send(str(number))


async def talk(url):
    await echoes(url, None)
    await echoes(url, "deflate")
    async with connect(url + "/goodbye", subprotocols=["chat.v2"]) as connection:
        await connection.send("now")
        try:
            await asyncio.wait_for(connection.recv(), 20)
        except websockets.ConnectionClosed as end:
            print("goodbye", end.rcvd.code, end.rcvd.reason)
    try:
        async with connect(url + "/refused"):
            print("not refused")
    except websockets.InvalidStatus as refused:
        print("refused", refused.response.status_code, refused.response.body)


asyncio.run(serve() if sys.argv[1] == "serve" else talk(sys.argv[2]))
