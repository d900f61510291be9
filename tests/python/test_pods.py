"""Containers that share namespaces.

tests/run: tier=machine
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import subprocess
import threading
import warnings
from typing import Any

import pytest

import ringfence
from ringfence import aio


def out(container: ringfence.Container, script: str) -> str:
    done = container.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert isinstance(done.stdout, str)
    return done.stdout


def test_client_and_server_share_localhost_and_more() -> None:
    with ringfence.Pod(hostname="shop") as pod:
        server = pod.container(["sh", "-c", "echo ready; exec sleep 1000"], stdout="pipe")
        client = pod.container()
        listener = server.listen(("127.0.0.1", 80))
        with listener, client.connect(("127.0.0.1", 80)) as one, listener.accept()[0] as other:
            one.sendall(b"hello")
            one.shutdown(socket.SHUT_WR)
            assert other.recv(100) == b"hello"
        assert out(client, "hostname") == out(server, "hostname") == "shop\n"
        out(server, "echo posix >/dev/shm/x; echo >/tmp/own")
        assert out(client, "cat /dev/shm/x; ls /tmp") == "posix\n"
        assert (client.pod, server.pod, pod.share) == (pod, pod, ("net", "ipc", "uts"))
        # The same objects, with their streams.
        assert pod.containers == [server, client]
        assert server.main is not None and server.main.stdout is not None
        with server.main.stdout as stream:
            assert stream.readline() == b"ready\n"
        assert (client.info["pod"], client.info["idmap"]) == (pod.id, pod.info["idmap"])
        assert [info["id"] for info in pod.info["containers"]] == [server.id, client.id]
        assert os.path.exists(f"/proc/{pod.pid}") and pod.running and pod.name is None
        assert repr(pod) == f"<Pod {pod.id} shares net,ipc,uts>"
    assert not pod.running and not client.running
    assert pod.containers == []
    pod.close()
    with pytest.raises(ringfence.Error) as caught:
        pod.container()
    assert caught.value.kind == "closed"


def test_process_ids_on_request() -> None:
    try:
        pod = ringfence.Pod(share="net,pid")
    except ringfence.Error as error:
        assert (error.kind, error.field) == ("unsupported", "share")
        pytest.skip(str(error))
    with pod:
        one, two = pod.container(), pod.container()
        with one.popen(["sh", "-c", "echo $$; exec sleep 1000"], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            number = int(process.stdout.readline())
            assert out(two, f"test -d /proc/{number} && kill -TERM {number} && echo seen") == "seen\n"
            assert process.wait(30) == -signal.SIGTERM
        assert out(one, "hostname") != "", "its own host name"


def test_whose_end_ends_what() -> None:
    pod = ringfence.Pod()
    with pod.container(["sh", "-c", "exit 7"]) as ended:
        assert ended.wait(30) == 7
        assert pod.containers == [ended]
    assert pod.containers == []
    forgotten = pod.container(["sleep", "1000"])
    identity = forgotten.id
    del forgotten
    gc.collect()
    assert [(c.id, c.running) for c in pod.containers] == [(identity, True)]
    # Somebody's SIGKILL.
    signal.pidfd_send_signal(pod.pidfd, signal.SIGKILL)
    pod.wait(30)
    assert [c.running for c in pod.containers] == [False]
    with pytest.raises(ringfence.Error) as caught:
        pod.container()
    assert caught.value.kind == "closed"
    pod.close()


def test_a_container_keeps_its_pod_and_a_forgotten_pod_is_told() -> None:
    container = ringfence.Pod(hostname="kept").container()
    gc.collect()
    assert out(container, "hostname") == "kept\n"
    ended = os.dup(container.pidfd)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pod_id = container.pod.id if container.pod else ""
        del container
        gc.collect()
    assert [w.category for w in seen if pod_id in str(w.message)] == [ResourceWarning]
    assert select.select([ended], [], [], 30)[0] == [ended]
    os.close(ended)


def test_stop_asks_first() -> None:
    pod = ringfence.Pod()
    asked = pod.container(["sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"])
    while asked.logs() != "ready\n":
        pass
    pod.stop(30)
    assert asked.main is not None and asked.main.returncode is None and asked.main.poll() == 3


@pytest.mark.needs("memory", "pids")
def test_limits_of_all_together() -> None:
    with ringfence.Pod(memory="48M", swap=0, pids=50) as pod:
        one, two = pod.container(memory="20M", swap=0), pod.container()
        done = one.run(["tail", "/dev/zero"])
        assert (done.returncode, done.reason) == (-9, "out_of_memory")
        out(two, "exec head -c 30M /dev/zero >/tmp/x")
        assert pod.usage().memory_max == 48 << 20
        assert 30 << 20 < (pod.usage().memory_current or 0) <= 48 << 20
        assert two.run(["tail", "/dev/zero"]).returncode == -9
        assert (pod.usage().memory_oom_kills or 0) >= 2
        pod.update(memory="512M")
        assert pod.spec["memory"] == 512 << 20
        with pytest.raises(ringfence.SpecError) as caught:
            pod.update(disk="5M")
        assert caught.value.field == "disk"
        pod.freeze()
        with pytest.raises(ringfence.Error) as refused:
            pod.container()
        assert refused.value.kind == "frozen"
        pod.thaw()
        with pod.events() as events:
            pod.kill()
            assert [event.kind for event in events][-1] == "ended"


def test_many_threads() -> None:
    failed: list[BaseException] = []

    def work(pod: ringfence.Pod) -> None:
        try:
            with pod.container() as container:
                assert out(container, "hostname") == "many\n"
        except BaseException as error:
            failed.append(error)

    with ringfence.Pod(hostname="many") as pod:
        threads = [threading.Thread(target=work, args=(pod,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert pod.containers == []


def test_found_by_name_and_joined_by_others() -> None:
    name = f"pod-{os.getpid()}"
    with ringfence.Pod(name=name, hostname="shared") as pod:
        inner = pod.container(name=f"{name}-inner")
        assert pod.find_container(f"{name}-inner") is inner
        with pytest.raises(ringfence.Error) as caught:
            pod.find_container("nobody")
        assert (caught.value.kind, caught.value.field) == ("not_found", "name")
        with ringfence.Container(namespaces={"uts": f"container:{name}"}) as other:
            assert out(other, "hostname") == "shared\n"
        assert set(pod.namespaces) == {"net", "ipc", "uts", "user"}
        try:
            net = pod.namespaces["net"]
        except ringfence.Error as error:
            # An ordinary user may not trace what its keeper made.
            assert error.kind == "permission_denied" and os.geteuid() != 0
        else:
            assert net == inner.namespaces["net"]
        with pytest.raises(KeyError):
            pod.namespaces["mnt"]


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"rootfs": "/srv"}, "rootfs"),
        ({"mounts": ["/tmp"]}, "mounts"),
        ({"share": "mnt"}, "share"),
        ({"share": ["net", "nets"]}, "share"),
        ({"share": ()}, "share"),
        ({"share": "net", "hostname": "x"}, "hostname"),
        ({"net": "nets"}, "net"),
        ({"hostnam": "x"}, "hostnam"),
    ],
)
def test_bad_pods(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(ringfence.Error) as caught:
        ringfence.Pod(**fields)
    assert caught.value.field == field


def test_fields_of_a_container_that_are_the_pods() -> None:
    with ringfence.Pod() as pod:
        for fields, field in [
            ({"hostname": "own"}, "hostname"),
            ({"net": "host"}, "net"),
            ({"idmap": "host"}, "idmap"),
            ({"shm_size": "1M"}, "shm_size"),
            ({"namespaces": {"ipc": "new"}}, "namespaces.ipc"),
            ({"detach": True, "name": "x"}, "detach"),
        ]:
            with pytest.raises(ringfence.SpecError) as caught:
                pod.container(**fields)
            assert caught.value.field == field
        with pytest.raises(FileNotFoundError):
            pod.container(["/nowhere"])
        assert pod.containers == []


def test_in_a_forked_child() -> None:
    with ringfence.Pod() as pod:
        container = pod.container()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for call in (pod.container, pod.kill, pod.usage):
                    try:
                        call()
                    except ringfence.Error as error:
                        assert error.kind == "forked_child", error
                pod.close if repr(pod) == "<Pod: of the parent process>" else os._exit(2)
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pod.running and container.running


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Pod(hostname="loop") as pod:
            async with pod.container(["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done"]) as one:
                two = await pod.container()
                server = await two.listen(("127.0.0.1", 81))
                with server, await one.connect(("127.0.0.1", 81)):
                    pass
                done = await two.run(["hostname"], capture_output=True, text=True)
                assert done.stdout == "loop\n"
                assert [container.id for container in pod.containers] == [one.id, two.id]
                assert one.pod is not None and one.pod.id == pod.id
                with pytest.raises(ringfence.SpecError):
                    await pod.container(hostname="own")
            assert [container.id for container in pod.containers] == [two.id]
            await pod.kill()
            await pod.wait(30)
            assert not two.running and not pod.running
        await pod.close()
        stopped = await aio.Pod()
        await stopped.container(["sleep", "1000"])
        await stopped.stop(30)
        assert not stopped.running

    asyncio.run(asyncio.wait_for(main(), 60), debug=True)
