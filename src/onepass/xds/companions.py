"""Beside each long-running stream that Envoy carries, a companion: a gRPC stream of Envoy's external processor.

It carries no byte of the stream: Envoy asks once, when it begins, is told to go on, and keeps the companion open
until the stream ends. A message sent on it meanwhile ends just that stream. What its metadata means is the keeper's
business. (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_proc_filter)
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from envoy.type.v3 import http_status_pb2
from google.protobuf import json_format

_Request = external_processor_pb2.ProcessingRequest
_Response = external_processor_pb2.ProcessingResponse
_Context = grpc.aio.ServicerContext[_Request, _Response]

NAMESPACE = "onepass"  # of the dynamic metadata that comes along
SOURCE = "source.address"  # the attribute that comes along
_WRITE_SECONDS = 5.0
_GO_ON = _Response(request_headers=external_processor_pb2.HeadersResponse())

JSON: TypeAlias = "bool | float | str | list[JSON] | dict[str, JSON] | None"


@dataclass(slots=True, eq=False)
class Companion:
    """One open stream. `told` is the dynamic metadata of its request, `id` its request id, `source` who connects."""

    id: str
    source: str
    told: Mapping[str, JSON]
    _context: _Context = field(repr=False)

    async def end(self, details: str, body: bytes) -> None:
        """End the stream: with this 403 when it has no answer yet, else by a reset. `details` go to the access log."""
        content = base_pb2.HeaderValue(key="content-type", raw_value=b"application/json")
        answer = external_processor_pb2.ImmediateResponse(
            status=http_status_pb2.HttpStatus(code=http_status_pb2.StatusCode.Forbidden), body=body, details=details
        )
        answer.headers.set_headers.add(header=content)
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._context.write(_Response(immediate_response=answer))
        except (TimeoutError, grpc.aio.BaseError, asyncio.InvalidStateError):
            return  # the stream has ended by itself, or its Envoy is gone


class Keeper(Protocol):
    """Is told of every stream, once each; it must not wait."""

    def opened(self, companion: Companion) -> None: ...

    def closed(self, companion: Companion) -> None: ...


@dataclass(frozen=True, slots=True)
class Companions:
    """The service."""

    keeper: Keeper

    async def process(self, requests: AsyncIterator[_Request], context: _Context) -> None:
        """One companion, until its stream ends: the handler of Process."""
        companion: Companion | None = None
        try:
            async for request in requests:
                kind = request.WhichOneof("request")
                if kind == "request_headers" and companion is None:
                    companion = _read(request, context)
                    self.keeper.opened(companion)
                    await context.write(_GO_ON)
                elif kind is not None:
                    # Nothing else is asked for; an empty answer of the same kind lets it pass.
                    answer = _Response()
                    getattr(answer, kind).SetInParent()
                    await context.write(answer)
        finally:
            if companion is not None:
                self.keeper.closed(companion)

    def handler(self) -> "grpc.GenericRpcHandler[_Request, _Response]":
        """For a gRPC server."""
        process = grpc.stream_stream_rpc_method_handler(
            self.process, request_deserializer=_Request.FromString, response_serializer=_Response.SerializeToString
        )
        return grpc.method_handlers_generic_handler("envoy.service.ext_proc.v3.ExternalProcessor", {"Process": process})


def _read(request: _Request, context: _Context) -> Companion:
    headers = {
        header.key: header.raw_value.decode("utf-8", "replace") or header.value
        for header in request.request_headers.headers.headers
    }
    metadata = request.metadata_context.filter_metadata
    told = json_format.MessageToDict(metadata[NAMESPACE]) if NAMESPACE in metadata else {}
    source = ""
    for attributes in request.attributes.values():
        source = attributes.fields[SOURCE].string_value or source
    return Companion(headers.get("x-request-id", ""), source, told, context)
