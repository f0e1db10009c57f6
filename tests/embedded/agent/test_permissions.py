"""A container's user may write and read what it could on a node, and nothing more, though all files here belong to one user."""

from __future__ import annotations

import json

import pytest

from mistral_on_l4.config.images import PINNED

pytestmark = pytest.mark.embedded

TRY = """
try() { if (echo x > $1/file) 2>/dev/null; then echo $1 yes; else echo $1 no; fi; }
"""
USER = {"securityContext": {"runAsUser": 1000, "runAsGroup": 1000}}


def tried(lab, name, folders, container=None, **spec):
    """What a container said of each folder: whether it could write there."""
    lab.pod(name, TRY + "\n".join(f"try {folder}" for folder in folders), container=container, **spec)
    lab.phase(name, "Succeeded")
    return dict(line.split() for line in lab.log(name).splitlines())


def test_parents_of_a_mount_below_an_empty_folder_are_roots_and_a_program_cannot_write_beside_it(lab):
    lab.create("v1", "Secret", "trust", stringData={"ca.crt": "CA"})
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "trust", "mountPath": "/tmp/.mc/certs/CAs"},
        {"name": "more", "mountPath": "/tmp/.mc/share"},
    ]
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "trust", "secret": {"secretName": "trust"}},
        {"name": "more", "emptyDir": {}},
    ]
    container = {**USER, "volumeMounts": mounts}
    folders = ["/tmp", "/tmp/.mc", "/tmp/.mc/certs", "/tmp/.mc/share"]
    said = tried(lab, "client", folders, container, volumes=volumes)
    assert said == {"/tmp": "yes", "/tmp/.mc": "no", "/tmp/.mc/certs": "no", "/tmp/.mc/share": "yes"}
    as_root = {**container, "securityContext": {"runAsUser": 0}}
    assert set(tried(lab, "root", folders, as_root, volumes=volumes).values()) == {"yes"}


def test_a_client_whose_folder_was_made_for_a_secret_below_it_cannot_save_its_configuration_there(lab):
    lab.create("v1", "Secret", "trust", stringData={"ca.crt": "CA"})
    policy = {"Statement": [{"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::models/*"]}]}
    lab.create("v1", "ConfigMap", "policies", data={"reader.json": json.dumps(policy)})
    mounts = [
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "trust", "mountPath": "/tmp/.mc/certs/CAs"},
        {"name": "policies", "mountPath": "/policies"},
    ]
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "own", "emptyDir": {}},
        {"name": "trust", "secret": {"secretName": "trust"}},
        {"name": "policies", "configMap": {"name": "policies"}},
    ]
    environment = {"MC_CONFIG_DIR": "/tmp/.mc", "MC_HOST_store": "http://key:secret-key@127.0.0.1:1"}
    container = {
        **USER,
        "image": PINNED["mc"],
        "command": ["mc", "admin", "policy", "create", "store", "reader", "/policies/reader.json"],
        "env": [{"name": name, "value": text} for name, text in environment.items()],
    }
    lab.pod("shared", container={**container, "volumeMounts": mounts}, volumes=volumes)
    lab.phase("shared", "Failed")
    assert "Unable to save new mc config. open /tmp/.mc/config.json" in lab.log("shared")
    own = [*mounts, {"name": "own", "mountPath": "/tmp/.mc"}]
    lab.pod("alone", container={**container, "volumeMounts": own}, volumes=volumes)
    lab.eventually(lambda: "terminated" in lab.container("alone").get("state", {}))
    assert "Unable to save" not in lab.log("alone")


def test_parents_stay_roots_for_the_containers_that_come_after(lab, sh):
    shared = {"name": "shared", "mountPath": "/shared"}
    inner = {"name": "inner", "mountPath": "/shared/deep/inner"}
    volumes = [{"name": "shared", "emptyDir": {}}, {"name": "inner", "emptyDir": {}}]
    inits = [{"name": "first", **sh("true"), "securityContext": {"runAsUser": 0}, "volumeMounts": [shared, inner]}]
    container = {**USER, "volumeMounts": [shared, inner]}
    said = tried(lab, "later", ["/shared", "/shared/deep"], container, volumes=volumes, initContainers=inits)
    assert said == {"/shared": "yes", "/shared/deep": "no"}


def test_what_an_image_would_hold_is_roots_and_only_folders_for_temporary_files_are_everybodys(lab):
    container = {**USER, "workingDir": "/made/for/it"}
    said = tried(lab, "plain", ["/.", "/run", "/made/for/it", "/dev", "/tmp", "/var/tmp", "/dev/shm"], container)
    assert {folder for folder, may in said.items() if may == "yes"} == {"/tmp", "/var/tmp", "/dev/shm"}
    closed = {"securityContext": {**USER["securityContext"], "readOnlyRootFilesystem": True}}
    said = tried(lab, "closed", ["/tmp", "/var/tmp", "/run", "/dev/shm"], closed)
    assert {folder for folder, may in said.items() if may == "yes"} == {"/dev/shm"}
    mounts = [{"name": "tmp", "mountPath": folder} for folder in ("/tmp", "/var/tmp")]
    volumes = [{"name": "tmp", "emptyDir": {}}]
    said = tried(lab, "volumes", ["/tmp", "/var/tmp"], {**closed, "volumeMounts": mounts}, volumes=volumes)
    assert set(said.values()) == {"yes"}


def test_a_claim_is_a_disk_of_roots_until_kubelet_gives_it_to_the_pods_group(lab):
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-path", "resources": {"requests": {"storage": "1Gi"}}}
    lab.create("v1", "PersistentVolumeClaim", "disk", spec=claim)
    container = {**USER, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "disk"}}]
    assert tried(lab, "stranger", ["/data"], container, volumes=volumes) == {"/data": "no"}
    group = {"securityContext": {"fsGroup": 1000}}
    assert tried(lab, "member", ["/data"], container, volumes=volumes, **group) == {"/data": "yes"}


def test_a_secrets_mode_keeps_out_a_user_that_is_not_in_its_group(lab):
    lab.create("v1", "Secret", "keys", stringData={"password": "p4ss"})
    container = {**USER, "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}
    volumes = [{"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}}]
    lab.pod("stranger", "cat /keys/password 2>&1", container=container, volumes=volumes)
    lab.phase("stranger", "Failed")
    assert "Permission denied" in lab.log("stranger")
    lab.pod("member", "cat /keys/password", container=container, volumes=volumes, securityContext={"fsGroup": 7})
    lab.phase("member", "Succeeded")
    assert lab.log("member") == "p4ss\n"
