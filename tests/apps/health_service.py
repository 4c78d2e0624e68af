"""A gRPC server with a health service, by grpcio alone: says "port N", and whether it serves is its argument."""

import asyncio
import sys

import grpc

STATUS = 2 if sys.argv[1:] == ["not-serving"] else 1


async def check(request, context):
    if request not in (b"", b"\x0a\x09shop.Cart"):
        await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, STATUS])


async def main():
    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"port {port}", flush=True)
    await server.wait_for_termination()


asyncio.run(main())
