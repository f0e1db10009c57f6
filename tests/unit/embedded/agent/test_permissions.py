"""Who a container's user is, and which files and folders of its volumes are closed to it."""

from __future__ import annotations

import pytest

from embedded.agent import permissions, volumes
from embedded.agent.environment import ConfigProblem
from embedded.agent.permissions import Ownership, User
from embedded.agent.volumes import Prepared


@pytest.mark.parametrize(
    ("pod_wide", "own", "expected"),
    [
        ({}, {}, (0, 0)),
        ({"runAsUser": 1000, "runAsGroup": 7}, {}, (1000, 7)),
        ({"runAsUser": 1000}, {"runAsUser": 2000}, (2000, 0)),
        ({"runAsNonRoot": True}, {}, (1000, 0)),
        ({"runAsUser": 1000}, {"runAsUser": 0}, (0, 0)),
    ],
)
def test_a_container_runs_as_the_user_that_it_or_its_pod_declares(pod, pod_wide, own, expected):
    pod["spec"]["securityContext"] = pod_wide
    user = permissions.user_of(pod, {"name": "main", "securityContext": own})
    assert (user.uid, user.gid) == expected


def test_a_container_that_must_not_be_root_and_would_be_is_refused(pod):
    pod["spec"]["securityContext"] = {"runAsNonRoot": True, "runAsUser": 0}
    with pytest.raises(ConfigProblem, match="non-root"):
        permissions.user_of(pod, {"name": "main"})


@pytest.mark.parametrize(
    ("uid", "groups", "owned", "expected"),
    [
        (0, {0}, Ownership(0, 0, 0o000), True),
        (1000, {0}, Ownership(0, 0, 0o755), False),
        (1000, {0}, Ownership(0, 0, 0o775), True),
        (1000, {7}, Ownership(0, 0, 0o775), False),
        (1000, {7}, Ownership(0, 7, 0o2775), True),
        (1000, {7}, Ownership(1000, 7, 0o575), False),
        (1000, {7}, Ownership(0, 0, 0o777), True),
    ],
)
def test_the_first_class_that_a_user_is_in_decides(uid, groups, owned, expected):
    assert permissions.may_write(User(uid, 0, frozenset(groups)), owned) is expected


def test_a_new_disk_is_roots_until_the_pod_has_a_group(pod):
    pod["spec"]["securityContext"] = {"runAsUser": 1000}
    user = permissions.user_of(pod, {"name": "main"})
    assert not permissions.may_write(user, permissions.disk(pod))
    pod["spec"]["securityContext"] = {"runAsUser": 1000, "fsGroup": 7}
    user = permissions.user_of(pod, {"name": "main"})
    assert permissions.may_write(user, permissions.disk(pod))


@pytest.mark.parametrize(
    ("security", "mode", "expected"),
    [
        ({}, 0o400, 0o400),
        ({"runAsUser": 1000}, 0o400, 0o000),
        ({"runAsUser": 1000}, 0o440, 0o440),  # a user without a group of its own is in root's
        ({"runAsUser": 1000, "runAsGroup": 1000}, 0o440, 0o040),
        ({"runAsUser": 1000, "runAsGroup": 1000}, 0o644, 0o644),
        ({"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 7}, 0o400, 0o440),
        ({"runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [0]}, 0o440, 0o440),
    ],
)
def test_a_file_of_a_secret_keeps_out_whom_it_would_keep_out_on_a_node(pod, security, mode, expected):
    pod["spec"]["securityContext"] = security
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    assert permissions.content_mode(mode, pod, "v") == expected


def test_a_container_that_does_not_mount_a_volume_closes_none_of_its_files(pod):
    pod["spec"]["containers"].append({"name": "side", "securityContext": {"runAsUser": 1000}})
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    assert permissions.content_mode(0o400, pod, "v") == 0o400


def test_a_volume_that_a_user_could_not_write_to_is_mounted_read_only(tmp_path):
    prepared = {"disk": Prepared(tmp_path, owned=Ownership(0, 0, 0o755)), "empty": Prepared(tmp_path)}
    container = {"volumeMounts": [{"name": "disk", "mountPath": "/d"}, {"name": "empty", "mountPath": "/e"}]}
    for uid, expected in ((0, [False, False]), (1000, [True, False])):
        found = volumes.mounts(container, prepared, {}, User(uid, 0, frozenset({0})))
        assert [each["readOnly"] for each in found] == expected
