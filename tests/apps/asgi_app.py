"""An ASGI app on uvicorn: bodies, downloads, events, WebSockets, and a page that tries them from a browser."""
import asyncio
import hashlib
import json
import socket
from urllib.parse import parse_qs

import uvicorn

PAGE = b"""<!doctype html><title>page</title><link rel=icon href=data:,><body><script src=/script.js></script></body>"""

SCRIPT = b"""
const socket = () => new Promise((resolve, reject) => {
  const seen = [], ws = new WebSocket(location.origin.replace('http', 'ws') + '/ws', 'echo');
  ws.binaryType = 'arraybuffer';
  ws.onerror = () => reject('WebSocket failed');
  ws.onopen = () => ws.send('hello');
  ws.onmessage = (message) => {
    if (typeof message.data === 'string') {
      seen.push(message.data, ws.protocol);
      ws.send(new Uint8Array(100000).fill(7));
    } else {
      seen.push(new Uint8Array(message.data).reduce((sum, byte) => sum + byte, 0));
      ws.close(1000);
    }
  };
  ws.onclose = (end) => resolve([...seen, end.code, end.wasClean]);
});
// The next event is only asked for when the one before has come.
const events = () => new Promise((resolve, reject) => {
  const seen = [], source = new EventSource('/events');
  source.onerror = () => reject('EventSource failed');
  source.onmessage = (event) => {
    seen.push([event.lastEventId, event.data]);
    if (seen.length === 4) { source.close(); resolve(seen); } else fetch('/next');
  };
});
const text = async (path, options) => (await fetch(path, options)).text();
const all = async () => ({
  title: document.title,
  echo: await text('/echo', { method: 'POST', body: 'hello' }),
  upload: await text('/digest', { method: 'PUT', body: new Uint8Array(1000000).fill(9) }),
  download: (await (await fetch('/download?bytes=1000000')).arrayBuffer()).byteLength,
  many: (await Promise.all([...Array(50).keys()].map((n) => text('/echo', { method: 'POST', body: String(n) })))).join(),
  events: await events(),
  socket: await socket(),
  protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol,
});
all().catch((problem) => ({ failed: String(problem) }))
  .then((seen) => fetch('/report', { method: 'POST', body: JSON.stringify(seen) }))
  // On to the pages that the fragment names, one after the other.
  .then(() => {
    const [next, ...rest] = location.hash.slice(1).split(',');
    if (next) location = next + '/page#' + rest.join();
  });
"""

waiting = set()
number = 0


def pieces(length):
    """A body that is different at every place."""
    block = b"".join(n.to_bytes(4, "big") for n in range(4096))
    while length > 0:
        yield block[:length]
        length -= len(block[:length])


async def events(receive, send):
    global number
    await send(start([(b"content-type", b"text/event-stream")]))
    queue = asyncio.Queue()
    waiting.add(queue)
    queue.put_nowait(None)
    gone = asyncio.ensure_future(receive())
    while not gone.done():
        take = asyncio.ensure_future(queue.get())
        await asyncio.wait([take, gone], return_when=asyncio.FIRST_COMPLETED)
        if take.done():
            body = b"id: %d\ndata: event %d\n\n" % (number, number)
            number += 1
            await send({"type": "http.response.body", "body": body, "more_body": True})
    waiting.discard(queue)
    print("app: events closed", flush=True)


def start(headers, status=200):
    return {"type": "http.response.start", "status": status, "headers": headers}


async def http(scope, receive, send):
    path, method = scope["path"], scope["method"]
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    kind = {"/page": b"text/html", "/script.js": b"text/javascript"}.get(path, b"text/plain")
    status, parts = 200, [b"%s %s" % (method.encode(), path.encode())]
    if path == "/events":
        return await events(receive, send)
    if path == "/next":
        for queue in waiting:
            queue.put_nowait(None)
    elif path == "/page":
        parts = [PAGE]
    elif path == "/script.js":
        parts = [SCRIPT]
    elif path == "/echo":
        parts = [body]
    elif path == "/digest":
        parts = [b"%s %d" % (hashlib.sha256(body).hexdigest().encode(), len(body))]
    elif path == "/download":
        parts = pieces(int(parse_qs(scope["query_string"].decode())["bytes"][0]))
    elif path == "/missing":
        status = 404
    elif path == "/report":
        print("report " + json.dumps(json.loads(body)), flush=True)
    elif path == "/raise":
        raise RuntimeError("as asked")
    await send(start([(b"content-type", kind)], status))
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def websocket(scope, receive, send):
    await receive()
    offered = scope.get("subprotocols") or [None]
    await send({"type": "websocket.accept", "subprotocol": offered[0]})
    while (message := await receive())["type"] == "websocket.receive":
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})


async def app(scope, receive, send):
    if scope["type"] in ("http", "websocket"):
        await (http if scope["type"] == "http" else websocket)(scope, receive, send)


# asyncio turns Nagle's algorithm off only for a socket that is TCP by name.
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print("port", listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off")).run(sockets=[listener])
