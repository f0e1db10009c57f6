"""Pods on simulated nodes behave as pods do: against a real API server, scheduler and controllers."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from mistral_on_l4.cluster.client import ApiError

pytestmark = pytest.mark.embedded

SERVER = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = socket.gethostname().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture
def web(lab, sh):
    """Two replicas that listen on the same port, behind a Service; the Service's address."""
    lab.create("v1", "ConfigMap", "code", data={"server.py": SERVER})
    container = {
        "name": "web",
        "image": sh("")["image"],
        "command": ["python", "/srv/code/server.py"],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1},
        "volumeMounts": [{"name": "code", "mountPath": "/srv/code"}, {"name": "models", "mountPath": "/mnt/models"}],
    }
    pod = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "code", "configMap": {"name": "code"}}, {"name": "models", "emptyDir": {}}],
        },
    }
    selector = {"matchLabels": {"app": "web"}}
    lab.create("apps/v1", "Deployment", "web", spec={"replicas": 2, "selector": selector, "template": pod})
    service = lab.create("v1", "Service", "web", spec={"selector": {"app": "web"}, "ports": [{"port": 8080, "targetPort": "http"}]})
    lab.eventually(lambda: (lab.get("Deployment", "web", "apps/v1") or {}).get("status", {}).get("readyReplicas") == 2)
    return service["spec"]["clusterIP"]


def ask(address, port=8080, path="/"):
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def test_two_pods_on_one_port_are_reached_by_their_service_from_the_host_and_from_pods(lab, web):
    names = {each["metadata"]["name"] for each in lab.client.list("v1", "Pod", lab.namespace)["items"]}
    lab.eventually(lambda: {ask(web) for _ in range(4)} == names)
    script = (
        "for name in web web.$NS web.$NS.svc web.$NS.svc.cluster.local; do "
        "python -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())' http://$name:8080/; done"
    )
    env = [{"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]
    lab.pod("client", script, container={"env": env})
    lab.phase("client", "Succeeded")
    answers = lab.log("client").split()
    assert len(answers) == 4
    assert set(answers) <= names
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", 8080), timeout=2):
        pass  # the pods' own port is not the host's


def test_a_container_that_listens_on_a_port_still_reaches_services_with_that_port(lab, web, cluster):
    script = """
import socket, urllib.request
own = socket.create_server(("", 8080))
print(urllib.request.urlopen("http://web:8080/", timeout=5).read().decode())
socket.create_connection(("127.0.0.1", 8080), timeout=5)
print("own", own.accept()[1][0])
"""
    lab.create("v1", "ConfigMap", "both", data={"both.py": script})
    mounts = {"volumeMounts": [{"name": "code", "mountPath": "/code"}], "ports": [{"containerPort": 8080}]}
    lab.pod("both", "python /code/both.py", container=mounts, volumes=[{"name": "code", "configMap": {"name": "both"}}])
    lab.phase("both", "Succeeded")
    answered, own = lab.log("both").splitlines()
    assert answered.startswith("web-")
    assert own == "own 127.0.0.1"


def test_a_service_whose_last_pod_is_gone_refuses_connections(lab, web):
    ask(web)
    lab.client.patch("apps/v1", "Deployment", "web", lab.namespace, {"spec": {"replicas": 0}})

    def refused():
        try:
            socket.create_connection((web, 8080), timeout=2).close()
        except ConnectionRefusedError:
            return True
        return False

    lab.eventually(refused)


def test_a_service_made_later_is_known_to_a_pod_that_already_runs(lab, web):
    script = "until python -c 'import urllib.request as u; u.urlopen(\"http://late:9000/\", timeout=2)' 2>/dev/null; do sleep 0.2; done; grep late /etc/hosts"
    lab.pod("early", script)
    lab.phase("early", "Running")
    late = lab.create("v1", "Service", "late", spec={"selector": {"app": "web"}, "ports": [{"port": 9000, "targetPort": 8080}]})
    lab.phase("early", "Succeeded")
    assert late["spec"]["clusterIP"] in lab.log("early")


def test_the_api_server_answers_inside_a_pod_to_its_own_token(lab):
    script = """
cd /var/run/secrets/kubernetes.io/serviceaccount
cat > /tmp/who.py <<'X'
import json, os, ssl, urllib.request
base = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
context = ssl.create_default_context(cafile="ca.crt")
body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
headers = {"Authorization": "Bearer " + open("token").read(), "Content-Type": "application/json"}
request = urllib.request.Request(base + "/apis/authentication.k8s.io/v1/selfsubjectreviews", body, headers)
print(json.load(urllib.request.urlopen(request, context=context, timeout=10))["status"]["userInfo"]["username"])
X
python /tmp/who.py; cat namespace
"""
    lab.pod("who", script)
    lab.phase("who", "Succeeded")
    assert lab.log("who") == f"system:serviceaccount:{lab.namespace}:default\n{lab.namespace}\n"


def test_init_containers_run_one_after_the_other_before_the_rest_and_share_volumes(lab, sh):
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/mnt/models"}]}
    inits = [
        {"name": "first", **sh("sleep 0.3; echo first >> /mnt/models/order"), **mounts},
        {"name": "second", **sh("echo second >> /mnt/models/order"), **mounts},
    ]
    lab.pod(
        "ordered", "cat /mnt/models/order", container=mounts, initContainers=inits, volumes=[{"name": "shared", "emptyDir": {}}]
    )
    pod = lab.phase("ordered", "Succeeded")
    assert lab.log("ordered") == "first\nsecond\n"
    assert [each["ready"] for each in pod["status"]["initContainerStatuses"]] == [True, True]


def test_a_failing_init_container_holds_the_pod_back_and_says_why(lab, sh):
    inits = [{"name": "first", **sh("echo no weights there >&2; exit 4"), "terminationMessagePolicy": "FallbackToLogsOnError"}]
    lab.pod("held", "true", initContainers=inits)
    lab.phase("held", "Failed")
    ended = lab.container("held", "first")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (4, "Error", "no weights there\n")
    assert lab.container("held")["state"]["waiting"]["reason"] == "PodInitializing"


def test_paths_of_the_manifest_hold_whatever_they_are_and_the_user_is_the_declared_one(lab):
    lab.create("v1", "Secret", "keys", stringData={"password": "p4ss"})
    lab.create("v1", "ConfigMap", "settings", data={"mode": "fast"})
    mounts = {
        "/mnt/models": ("data", False),
        "/data": ("data", False),
        "/home/vllm": ("data", False),
        "/tmp": ("tmp", False),
        "/dev/shm": ("shm", False),
        "/etc/keys": ("keys", True),
        "/usr/share/deep/settings": ("settings", True),
    }
    script = """
id -u
for folder in /mnt/models /data /home/vllm /tmp /dev/shm; do echo x > $folder/file || exit 1; done
cat /etc/keys/password; echo; cat /usr/share/deep/settings/mode; echo
echo y 2>/dev/null > /etc/keys/new || echo keys are read-only
echo y 2>/dev/null > /usr/new || echo the root is read-only
df -k /dev/shm | tail -1 | awk '{print $2}'
stat -c %u /data/file
"""
    container = {
        "securityContext": {"runAsUser": 2000, "readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": name, "mountPath": path, "readOnly": flag} for path, (name, flag) in mounts.items()],
    }
    volumes = [
        {"name": "data", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "settings", "configMap": {"name": "settings"}},
    ]
    # Of the group that kubelet gives the keys to, for else they would be root's alone.
    lab.pod("paths", script, container=container, volumes=volumes, securityContext={"fsGroup": 2000})
    lab.phase("paths", "Succeeded")
    said = lab.log("paths").split("\n")
    assert said == ["2000", "p4ss", "fast", "keys are read-only", "the root is read-only", str(2**20), "2000", ""]


def test_a_pod_sees_neither_the_clusters_keys_nor_processes_outside_it(lab, cluster):
    lab.pod("curious", f"ls -A {cluster.home.root} 2>/dev/null; ls /proc | grep -c '^[0-9]*$'")
    lab.phase("curious", "Succeeded")
    assert int(lab.log("curious")) < 8


def test_exit_codes_and_signals_are_reported_as_kubelet_does(lab):
    lab.pod("code", "echo lost the way > /dev/termination-log; exit 3")
    # As everywhere in a container's arguments, $$ is one dollar sign.
    lab.pod("signalled", "kill -SEGV $$$$")
    lab.phase("code", "Failed")
    lab.phase("signalled", "Failed")
    code, signalled = (lab.container(name)["state"]["terminated"] for name in ("code", "signalled"))
    assert (code["exitCode"], code["reason"], code["message"]) == (3, "Error", "lost the way\n")
    assert (signalled["exitCode"], signalled["signal"]) == (139, 11)


def test_a_container_above_its_memory_limit_is_killed_and_one_below_it_is_not(lab, sh):
    def limited(text):
        return {"resources": {"limits": {"memory": text}}}

    hold = 'exec python -c "import time; held = bytearray(96 << 20); time.sleep(3600)"'
    side = {"name": "side", **sh(hold), **limited("256Mi")}
    greedy = {"name": "greedy", **sh("sleep 0.2; " + hold.removeprefix("exec ")), **limited("64Mi")}
    spec = {"containers": [side, greedy], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    lab.eventually(lambda: lab.exists("ServiceAccount", "default"))
    lab.create("v1", "Pod", "hungry", spec=spec)
    ended = lab.eventually(lambda: lab.container("hungry", "greedy").get("state", {}).get("terminated"))
    assert (ended["reason"], ended["exitCode"], ended["signal"]) == ("OOMKilled", 137, 9)
    time.sleep(2)  # two more looks at the one that has as much and may
    assert "running" in lab.container("hungry", "side")["state"]


def test_a_crashing_container_is_restarted_and_then_backs_off_and_its_previous_log_stays(lab):
    lab.pod("crash", "date +%N; exit 1", restartPolicy="Always")
    waiting = lab.waiting("crash", "CrashLoopBackOff")
    assert waiting["message"].startswith("back-off 10s restarting failed container=main")
    found = lab.container("crash")
    assert found["restartCount"] == 1
    assert found["lastState"]["terminated"]["exitCode"] == 1
    assert lab.log("crash") != lab.log("crash", previous="true")
    assert any(reason == "BackOff" for reason, _ in lab.events("crash"))


def test_a_missing_secret_is_named_and_the_container_starts_once_it_is_there(lab):
    reference = {"secretKeyRef": {"name": "later", "key": "word"}}
    lab.pod("patient", "echo $WORD", container={"env": [{"name": "WORD", "valueFrom": reference}]})
    assert lab.waiting("patient", "CreateContainerConfigError")["message"] == 'secret "later" not found'
    lab.create("v1", "Secret", "later", stringData={"word": "here"})
    lab.phase("patient", "Succeeded")
    assert lab.log("patient") == "here\n"


def test_an_image_without_a_local_program_waits_with_a_warning_and_never_pretends(lab):
    lab.pod("foreign", container={"image": "docker.io/library/nginx:1.29", "command": None})
    assert "nginx" in lab.waiting("foreign", "NoLocalProgram")["message"]
    lab.eventually(lambda: any(reason == "NoLocalProgram" for reason, _ in lab.events("foreign")))


def test_a_volume_of_a_kind_that_is_not_supported_is_an_event_and_no_container(lab):
    lab.pod("remote", "true", volumes=[{"name": "share", "nfs": {"server": "files", "path": "/x"}}])
    lab.eventually(lambda: any(reason == "FailedMount" and "nfs" in text for reason, text in lab.events("remote")))
    assert lab.container("remote")["state"]["waiting"]["reason"] == "ContainerCreating"


def test_a_program_that_is_not_there_is_a_start_error(lab):
    lab.pod("typo", container={"command": ["pyhton3"]})
    lab.phase("typo", "Failed")
    ended = lab.container("typo")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert '"pyhton3": executable file not found in $PATH' in ended["message"]


def test_readiness_waits_for_the_startup_probe_and_liveness_restarts_a_hung_container(lab):
    touch = "echo begun; sleep 0.5; touch /tmp/started; sleep 1; touch /tmp/ready; sleep 2; rm /tmp/started; sleep 600"
    probes = {
        "startupProbe": {"exec": {"command": ["cat", "/tmp/started"]}, "periodSeconds": 1, "failureThreshold": 10},
        "readinessProbe": {"exec": {"command": ["cat", "/tmp/ready"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["cat", "/tmp/started"]}, "periodSeconds": 1, "failureThreshold": 2},
    }
    lab.pod("hung", touch, container=probes, restartPolicy="Always", terminationGracePeriodSeconds=1)
    lab.eventually(lambda: lab.container("hung").get("started") and not lab.container("hung")["ready"])
    lab.eventually(lambda: lab.container("hung")["ready"])
    lab.eventually(lambda: lab.container("hung")["restartCount"] == 1)
    assert any("failed liveness probe, will be restarted" in text for _, text in lab.events("hung"))


def test_deleting_asks_the_container_to_end_and_kills_it_after_its_grace(lab):
    lab.pod("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done", terminationGracePeriodSeconds=20)
    lab.pod("stubborn", "trap '' TERM; echo up; while :; do sleep 0.1; done", terminationGracePeriodSeconds=2)
    for name in ("polite", "stubborn"):
        lab.eventually(lambda name=name: lab.log(name) if lab.container(name).get("started") else "")
    begun = time.monotonic()
    for name in ("polite", "stubborn"):
        lab.client.delete("v1", "Pod", name, lab.namespace, "Background")
    lab.eventually(lambda: not lab.exists("Pod", "polite"))
    polite = time.monotonic() - begun
    lab.eventually(lambda: not lab.exists("Pod", "stubborn"))
    assert polite < 1.9 < time.monotonic() - begun < 10


def test_whatever_a_container_left_running_ends_with_it(lab, cluster):
    lab.pod("parent", "setsid sleep 4321 & sleep 0.2; exit 0")
    lab.phase("parent", "Succeeded")

    def sleeping():
        commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
        return any(b"sleep\x004321" in command for command in commands)

    assert not sleeping()


def test_a_pod_that_is_active_for_too_long_fails(lab):
    lab.pod("slow", "sleep 600", activeDeadlineSeconds=1, terminationGracePeriodSeconds=1)
    assert lab.phase("slow", "Failed")["status"]["reason"] == "DeadlineExceeded"


def test_a_sidecar_is_up_before_the_rest_and_does_not_keep_a_finished_pod_alive(lab, sh):
    side = {
        "name": "side",
        **sh("sleep 0.5; touch /shared/up; sleep 600"),
        "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["cat", "/shared/up"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
    }
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    lab.pod(
        "accompanied",
        "cat /shared/up && echo the sidecar was first",
        container=mounts,
        initContainers=[side],
        volumes=[{"name": "shared", "emptyDir": {}}],
        terminationGracePeriodSeconds=1,
    )
    lab.phase("accompanied", "Succeeded")
    assert lab.log("accompanied", container="main") == "the sidecar was first\n"


def test_a_pod_that_somebody_calls_unready_is_called_ready_again(lab):
    def ready():
        found = (lab.get("Pod", "steady") or {}).get("status", {}).get("conditions", [])
        return next((each for each in found if each["type"] == "Ready" and each["status"] == "True"), None)

    lab.pod("steady", "sleep 600", terminationGracePeriodSeconds=0)
    lab.eventually(ready)
    pod = lab.get("Pod", "steady")
    conditions = [{**each, "status": "False"} if each["type"] == "Ready" else each for each in pod["status"]["conditions"]]
    said = {"status": {"conditions": conditions}}
    answer = lab.client.patch("v1", "Pod", "steady", lab.namespace, said, subresource="status")
    assert "False" in {each["status"] for each in answer["status"]["conditions"]}
    lab.eventually(ready)


def test_hooks_run_in_the_container_after_its_start_and_before_its_end(lab):
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo greeted > /tmp/greeting"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo farewell > /tmp/farewell"]}},
    }
    script = "trap 'cat /tmp/farewell; sleep 1; exit 0' TERM; until cat /tmp/greeting 2>/dev/null; do sleep 0.1; done; while :; do sleep 0.1; done"
    lab.pod("hooked", script, container={"lifecycle": hooks}, terminationGracePeriodSeconds=20)
    lab.eventually(lambda: lab.container("hooked").get("started") and lab.log("hooked") == "greeted\n")
    lab.client.delete("v1", "Pod", "hooked", lab.namespace, "Background")
    lab.eventually(lambda: "farewell" in lab.log("hooked"), 10)
    lab.eventually(lambda: not lab.exists("Pod", "hooked"))


def test_a_job_counts_its_tries_and_ends_when_one_succeeds(lab):
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}
    lab.create("v1", "PersistentVolumeClaim", "memory", spec=claim)
    script = "echo x >> /data/tries; test $(wc -l < /data/tries) -ge 2"
    container = {"name": "main", "image": "docker.io/kserve/storage-initializer:v0.20.0", "command": ["sh", "-c", script]}
    pod = {
        "restartPolicy": "OnFailure",
        "containers": [{**container, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "memory"}}],
    }
    lab.create("batch/v1", "Job", "stubborn", spec={"backoffLimit": 3, "template": {"spec": pod}})

    def complete():
        conditions = (lab.get("Job", "stubborn", "batch/v1") or {}).get("status", {}).get("conditions", [])
        return any(each["type"] == "Complete" and each["status"] == "True" for each in conditions)

    lab.eventually(complete, 60)


def test_a_claims_folder_lives_as_long_as_the_claim(lab, cluster):
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}
    lab.create("v1", "PersistentVolumeClaim", "disk", spec=claim)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    lab.pod("writer", "echo kept > /data/file; chmod 000 /data/file", container=mounts, volumes=volumes)
    lab.phase("writer", "Succeeded", 60)
    uid = lab.get("PersistentVolumeClaim", "disk")["metadata"]["uid"]
    folder = cluster.home.volumes / f"pvc-{uid}"
    assert (folder / "file").exists()
    for name in ("writer",):
        lab.client.delete("v1", "Pod", name, lab.namespace, "Background")
    lab.client.delete("v1", "PersistentVolumeClaim", "disk", lab.namespace, "Background")
    lab.eventually(lambda: not folder.exists(), 60)
    lab.eventually(lambda: f"pvc-{uid}" not in str(lab.client.list("v1", "PersistentVolume")), 30)


def test_logs_are_followed_until_the_container_ends(lab):
    lab.pod("speaker", "for i in 1 2 3 4; do echo $i; sleep 0.3; done")
    lab.eventually(lambda: lab.container("speaker").get("started") or lab.container("speaker").get("state", {}).get("terminated"))
    heard = []
    reader = threading.Thread(target=lambda: heard.append(lab.log("speaker", follow="true")))
    reader.start()
    reader.join(20)
    assert heard == ["1\n2\n3\n4\n"]
    assert lab.log("speaker", tailLines=1) == "4\n"


def test_a_container_that_never_started_has_a_reason_instead_of_a_log(lab):
    lab.pod("silent", container={"image": "docker.io/library/nginx:1.29", "command": None})
    lab.waiting("silent", "NoLocalProgram")
    with pytest.raises(ApiError, match="waiting to start"):
        lab.log("silent")
