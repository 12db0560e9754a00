"""Typed stubs of the messages of Envoy and etcd, made from the descriptors inside the installed modules.

    python tools/stubs.py OUTDIR

xds-protos and aetcd ship no types. mypy-protobuf makes them from file descriptors, and the installed modules carry
those, so that no .proto file is needed and the stubs always agree with what is imported at run time.
"""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor import FileDescriptor

ROOTS = (
    "aetcd.rpc.rpc_pb2",
    "envoy.config.accesslog.v3.accesslog_pb2",
    "envoy.config.bootstrap.v3.bootstrap_pb2",
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.core.v3.extension_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.overload.v3.overload_pb2",
    "envoy.config.rbac.v3.rbac_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.extensions.access_loggers.file.v3.file_pb2",
    "envoy.extensions.access_loggers.filters.cel.v3.cel_pb2",
    "envoy.extensions.access_loggers.stream.v3.stream_pb2",
    "envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2",
    "envoy.extensions.common.matching.v3.extension_matcher_pb2",
    "envoy.extensions.filters.common.matcher.action.v3.skip_action_pb2",
    "envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2",
    "envoy.extensions.filters.http.ext_proc.v3.ext_proc_pb2",
    "envoy.extensions.filters.http.jwt_authn.v3.config_pb2",
    "envoy.extensions.filters.http.lua.v3.lua_pb2",
    "envoy.extensions.filters.http.rbac.v3.rbac_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2",
    "envoy.extensions.formatter.req_without_query.v3.req_without_query_pb2",
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2",
    "envoy.extensions.http.injected_credentials.generic.v3.generic_pb2",
    "envoy.extensions.network.dns_resolver.cares.v3.cares_dns_resolver_pb2",
    "envoy.extensions.rbac.matchers.upstream_ip_port.v3.upstream_ip_port_matcher_pb2",
    "envoy.extensions.resource_monitors.downstream_connections.v3.downstream_connections_pb2",
    "envoy.extensions.resource_monitors.fixed_heap.v3.fixed_heap_pb2",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
    "envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
    "envoy.service.discovery.v3.ads_pb2",
    "envoy.service.discovery.v3.discovery_pb2",
    "envoy.service.ext_proc.v3.external_processor_pb2",
    "envoy.type.matcher.v3.http_inputs_pb2",
    "envoy.type.matcher.v3.status_code_input_pb2",
)

# Messages whose module is not where the name of their .proto file says: that name, and the folder they are in.
ELSEWHERE = {"auth.proto": "aetcd/rpc", "kv.proto": "aetcd/rpc", "rpc.proto": "aetcd/rpc"}


def dependencies_first(roots: Iterator[FileDescriptor]) -> Iterator[FileDescriptor]:
    """Every file that the roots need, once, each after the files it imports, as protoc hands them to a plugin."""
    seen: set[str] = set()

    def visit(file: FileDescriptor) -> Iterator[FileDescriptor]:
        if file.name in seen:
            return
        seen.add(file.name)
        for needed in file.dependencies:
            yield from visit(needed)
        yield file

    for root in roots:
        yield from visit(root)


def placed(name: str) -> str:
    return f"{ELSEWHERE[name]}/{name}" if name in ELSEWHERE else name


def main(out: Path) -> None:
    """Write one .pyi file a message file under `out`, which is emptied first."""
    request = plugin_pb2.CodeGeneratorRequest(parameter="quiet")
    for file in dependencies_first(importlib.import_module(root).DESCRIPTOR for root in ROOTS):
        told = request.proto_file.add()
        file.CopyToProto(told)
        told.name = placed(told.name)
        told.dependency[:] = map(placed, told.dependency)
        if not file.name.startswith("google/protobuf/"):  # types-protobuf has those
            request.file_to_generate.append(told.name)

    plugin = Path(sys.executable).with_name("protoc-gen-mypy")
    answer = subprocess.run([plugin], input=request.SerializeToString(), stdout=subprocess.PIPE, check=True)
    response = plugin_pb2.CodeGeneratorResponse.FromString(answer.stdout)
    if response.error:
        sys.exit(response.error)

    shutil.rmtree(out, ignore_errors=True)
    for stub in response.file:
        target = out / stub.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(stub.content, encoding="utf-8")
    print(f"{len(response.file)} stubs in {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
