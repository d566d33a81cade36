#!/usr/bin/python3
"""What a kubelet asks of a container runtime, one call at a time, as Debian packages no client of the CRI.

usage: cri.py SOCKET status
       cri.py SOCKET runp NAMESPACE/NAME CGROUP [HOSTPORT:PORT]   prints the sandbox's id
       cri.py SOCKET inspectp SANDBOX                             prints its addresses
       cri.py SOCKET run SANDBOX NAMESPACE/NAME CGROUP IMAGE COMMAND...   prints the container's id
       cri.py SOCKET exec CONTAINER COMMAND...
       cri.py SOCKET stopp | rmp SANDBOX
The module cri_pb2 is made of cri.proto by protoc.
"""
import sys

import cri_pb2 as cri
import grpc

TIMEOUT = 60


class Runtime:
    def __init__(self, socket):
        self.channel = grpc.insecure_channel(f"unix://{socket}")

    def call(self, method, request, answer=cri.Empty):
        rpc = self.channel.unary_unary(
            f"/runtime.v1.RuntimeService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return rpc(request, timeout=TIMEOUT)


def sandbox_config(pod, cgroup, ports=None):
    namespace, name = pod.split("/")
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace=namespace),
        hostname=name,
        linux=cri.LinuxPodSandboxConfig(cgroup_parent=cgroup),
    )
    if ports:
        host, container = ports.split(":")
        config.port_mappings.append(cri.PortMapping(host_port=int(host), container_port=int(container)))
    return config


def status(runtime):
    answer = runtime.call("Status", cri.Empty(), cri.StatusResponse)
    for condition in answer.status.conditions:
        print(f"{condition.type}={str(condition.status).lower()} {condition.reason} {condition.message}".rstrip())


def runp(runtime, pod, cgroup, ports=None):
    request = cri.RunPodSandboxRequest(config=sandbox_config(pod, cgroup, ports))
    print(runtime.call("RunPodSandbox", request, cri.SandboxId).pod_sandbox_id)


def inspectp(runtime, sandbox):
    answer = runtime.call("PodSandboxStatus", cri.SandboxId(pod_sandbox_id=sandbox), cri.PodSandboxStatusResponse)
    network = answer.status.network
    for address in [network.ip, *(more.ip for more in network.additional_ips)]:
        print(address)


def run(runtime, sandbox, pod, cgroup, image, *command):
    request = cri.CreateContainerRequest(
        pod_sandbox_id=sandbox,
        config=cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="main"), image=cri.ImageSpec(image=image), command=command
        ),
        sandbox_config=sandbox_config(pod, cgroup),
    )
    container = runtime.call("CreateContainer", request, cri.ContainerId)
    runtime.call("StartContainer", container)
    print(container.container_id)


def execute(runtime, container, *command):
    request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=20)
    answer = runtime.call("ExecSync", request, cri.ExecSyncResponse)
    sys.stdout.buffer.write(answer.stdout)
    sys.stderr.buffer.write(answer.stderr)
    sys.exit(answer.exit_code)


def stopp(runtime, sandbox):
    runtime.call("StopPodSandbox", cri.SandboxId(pod_sandbox_id=sandbox))


def rmp(runtime, sandbox):
    runtime.call("RemovePodSandbox", cri.SandboxId(pod_sandbox_id=sandbox))


COMMANDS = {"status": status, "runp": runp, "inspectp": inspectp, "run": run, "exec": execute, "stopp": stopp, "rmp": rmp}

if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[2] not in COMMANDS:
        sys.exit(__doc__)
    try:
        COMMANDS[sys.argv[2]](Runtime(sys.argv[1]), *sys.argv[3:])
    except grpc.RpcError as error:
        sys.exit(f"cri.py: {sys.argv[2]}: {error.details()}")
