"""A gRPC server with the four kinds of call (`serve`), or a client that uses them all and prints what it saw, one line
a call (`call ADDRESS [ROOT_CERTIFICATE]`). Messages are plain bytes."""
import queue
import sys
import threading
from concurrent import futures

import grpc

NAME = "/test.Echo/"
LARGE = b"z" * 3_000_000
OURS = ("x-first", "x-raw-bin", "x-last", "x-last-bin", "x-why")


def unary(request, context):
    asked = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-first", asked.get("x-asked", "nothing")), ("x-raw-bin", b"\0\1\xff")))
    context.set_trailing_metadata((("x-last", "trailer"), ("x-last-bin", b"\xfe")))
    return request + b"!"


def server_stream(request, context):
    for number in range(100):
        yield request + b" %d" % number


def client_stream(requests, context):
    parts = list(requests)
    return b"%d messages of %d bytes" % (len(parts), sum(map(len, parts)))


def both(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata((("x-why", "it is not there"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00e9 %")


def fail_late(request, context):
    yield b"first"
    yield b"second"
    context.abort(grpc.StatusCode.DATA_LOSS, "after two")


def hang(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    print("app: the call that hung has ended", flush=True)
    return b""


def serve():
    kinds = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", kinds),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("port", port, flush=True)
    server.wait_for_termination()


def pairs(metadata):
    return sorted((key, value) for key, value in metadata or () if key in OURS)


def failure(work):
    try:
        return "no failure", work()
    except grpc.RpcError as error:
        return error.code().name, error.details(), pairs(error.trailing_metadata())


def ping_pong(channel):
    """Each message is only sent when the answer to the one before has come."""
    asks = queue.Queue()
    answers = channel.stream_stream(NAME + "Both")(iter(asks.get, None), timeout=20)
    seen = []
    for number in range(20):
        asks.put(b"ping %d" % number)
        seen.append(next(answers))
    asks.put(None)
    return seen, list(answers), answers.code().name


def late(channel):
    answers = channel.unary_stream(NAME + "FailLate")(b"", timeout=20)
    seen = [next(answers), next(answers)]
    return seen, failure(lambda: next(answers))


def call(target, root):
    if root is None:
        channel = grpc.insecure_channel(target)
    else:
        credentials = grpc.ssl_channel_credentials(open(root, "rb").read())
        channel = grpc.secure_channel(target, credentials, (("grpc.ssl_target_name_override", "localhost"),))
    with channel:
        answer, told = channel.unary_unary(NAME + "Unary").with_call(
            b"hi", timeout=20, metadata=(("x-asked", "something"),))
        print("unary", answer, pairs(told.initial_metadata()), pairs(told.trailing_metadata()), told.code().name)
        print("large", channel.unary_unary(NAME + "Unary")(LARGE, timeout=20) == LARGE + b"!")
        print("server stream", list(channel.unary_stream(NAME + "ServerStream")(b"n", timeout=20)))
        parts = iter([b"x" * n for n in range(1000)])
        print("client stream", channel.stream_unary(NAME + "ClientStream")(parts, timeout=20))
        print("both", *ping_pong(channel))
        print("fail", failure(lambda: channel.unary_unary(NAME + "Fail")(b"", timeout=20)))
        print("fail late", *late(channel))
        print("unknown", failure(lambda: channel.unary_unary(NAME + "Unknown")(b"", timeout=20)))
        print("deadline", failure(lambda: channel.unary_unary(NAME + "Hang")(b"", timeout=0.3))[0])
        many = [channel.unary_unary(NAME + "Unary").future(b"%d" % n, timeout=20) for n in range(50)]
        print("many", [one.result() for one in many])


serve() if sys.argv[1] == "serve" else call(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
