"""What lies in a pod's volumes."""

from __future__ import annotations

import stat

import pytest

from embedded.agent import volumes
from embedded.agent.environment import ConfigProblem
from embedded.agent.permissions import Ownership, User
from embedded.agent.volumes import File, Prepared, VolumeProblem, Volumes
from mistral_on_l4.cluster.client import ApiError

ROOT = User(0, 0, frozenset({0}))


class Api:
    """Answers what a test put in; counts token requests."""

    def __init__(self):
        self.objects = {}
        self.tokens = []

    def get(self, api_version, kind, name, namespace=None, subresource=None):
        try:
            return self.objects[(kind, name)]
        except KeyError:
            raise ApiError(404, "NotFound", f'{kind.lower()}s "{name}" not found') from None

    def request(self, method, path, body=None, **_):
        self.tokens.append((path, body["spec"]))
        return {"status": {"token": f"token-{len(self.tokens)}"}}


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def prepare(api, tmp_path, lookup, pod):
    def run(**volume):
        pod["spec"]["volumes"] = [{"name": "v", **volume}]
        return Volumes(api, tmp_path / "volumes", lookup, lambda: None).prepare(pod)["v"]

    return run


def test_files_appear_as_links_into_one_dated_folder_that_is_exchanged_whole(tmp_path):
    folder = tmp_path / "v"
    volumes.write_contents(folder, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o600)})
    first = (folder / "..data").readlink()
    assert (folder / "a").read_bytes() == b"1"
    assert (folder / "deep" / "b").read_bytes() == b"2"
    assert stat.S_IMODE((folder / "deep" / "b").stat().st_mode) == 0o600
    assert not volumes.write_contents(folder, {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o600)})
    assert (folder / "..data").readlink() == first
    assert volumes.write_contents(folder, {"a": File(b"3", 0o644)})
    assert (folder / "a").read_bytes() == b"3"
    assert sorted(each.name for each in folder.iterdir()) == sorted(["..data", str((folder / "..data").readlink()), "a"])


def test_a_file_that_its_owner_may_not_read_is_still_compared_and_replaced(tmp_path):
    volumes.write_contents(tmp_path / "v", {"a": File(b"1", 0o000)})
    assert not volumes.write_contents(tmp_path / "v", {"a": File(b"1", 0o000)})
    assert stat.S_IMODE((tmp_path / "v" / "a").stat().st_mode) == 0
    assert volumes.write_contents(tmp_path / "v", {"a": File(b"2", 0o000)})


def test_a_token_is_for_the_pods_user_whatever_the_volumes_mode(api, tmp_path, lookup, pod):
    pod["spec"]["securityContext"] = {"runAsUser": 1000, "runAsGroup": 1000}
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    sources = [{"serviceAccountToken": {"path": "token"}}, {"secret": {"name": "keys"}}]
    pod["spec"]["volumes"] = [{"name": "v", "projected": {"sources": sources, "defaultMode": 0o400}}]
    found = Volumes(api, tmp_path / "volumes", lookup, lambda: None).prepare(pod)["v"].path
    assert {name: stat.S_IMODE((found / name).stat().st_mode) for name in ("token", "user")} == {"token": 0o400, "user": 0o000}


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b"])
def test_a_file_never_leaves_its_volume(tmp_path, path):
    with pytest.raises(ConfigProblem, match="invalid path"):
        volumes.write_contents(tmp_path / "v", {path: File(b"", 0o644)})


def test_items_choose_keys_and_names(prepare):
    found = prepare(secret={"secretName": "keys", "items": [{"key": "user", "path": "who/is", "mode": 0o400}]})
    assert found.read_only
    assert (found.path / "who" / "is").read_text() == "ann"
    assert not (found.path / "password").exists()


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        ({"configMap": {"name": "gone"}}, 'MountVolume.SetUp failed for volume "v" : configmap "gone" not found'),
        ({"secret": {"secretName": "keys", "items": [{"key": "no", "path": "x"}]}}, "references non-existent secret key: no"),
        ({"nfs": {"server": "a", "path": "/"}}, "volumes of kind nfs are not supported"),
        ({"hostPath": {"path": "/does/not/exist"}}, "/does/not/exist does not exist"),
        ({"persistentVolumeClaim": {"claimName": "none"}}, 'persistentvolumeclaims "none" not found'),
        ({"emptyDir": {"medium": "Memory", "sizeLimit": "much"}}, "'much' is not a quantity"),
    ],
)
def test_a_volume_that_cannot_be_prepared_says_why(prepare, volume, words):
    with pytest.raises(VolumeProblem) as problem:
        prepare(**volume)
    assert words in str(problem.value)


def test_an_optional_config_map_that_is_missing_is_an_empty_folder(prepare):
    found = prepare(configMap={"name": "gone", "optional": True})
    assert [each.name for each in found.path.iterdir() if not each.name.startswith("..")] == []


def test_a_claim_is_the_folder_of_its_bound_volume(prepare, api, tmp_path):
    api.objects[("PersistentVolumeClaim", "c")] = {"status": {"phase": "Pending"}, "spec": {}}
    with pytest.raises(VolumeProblem, match="not bound yet"):
        prepare(persistentVolumeClaim={"claimName": "c"})
    api.objects[("PersistentVolumeClaim", "c")] = {"status": {"phase": "Bound"}, "spec": {"volumeName": "pv"}}
    api.objects[("PersistentVolume", "pv")] = {"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": str(tmp_path)}}}
    assert prepare(persistentVolumeClaim={"claimName": "c", "readOnly": True}) == Prepared(
        tmp_path, read_only=True, owned=Ownership(0, 0, 0o755)
    )


def test_a_projected_volume_holds_token_certificate_and_namespace_and_keeps_its_token_while_it_is_fresh(
    api, tmp_path, lookup, objects, pod
):
    objects[("ConfigMap", "kube-root-ca.crt")] = {"kind": "ConfigMap", "data": {"ca.crt": "CA"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    pod["spec"]["volumes"] = [{"name": "v", "projected": {"sources": sources, "defaultMode": 0o644}}]
    every = Volumes(api, tmp_path / "volumes", lookup, lambda: None)
    found = every.prepare(pod)["v"].path
    every.refresh(pod)
    assert {name: (found / name).read_text() for name in ("token", "ca.crt", "namespace")} == {
        "token": "token-1",
        "ca.crt": "CA",
        "namespace": "shop",
    }
    [(path, spec)] = api.tokens
    assert path == "/api/v1/namespaces/shop/serviceaccounts/clerk/token"
    assert spec["boundObjectRef"]["uid"] == pod["metadata"]["uid"]


def test_mounts_carry_sub_paths_and_read_only(tmp_path):
    prepared = {"data": Prepared(tmp_path), "keys": Prepared(tmp_path / "keys", read_only=True)}
    container = {
        "volumeMounts": [
            {"name": "data", "mountPath": "/d", "subPathExpr": "$(POD)/x"},
            {"name": "keys", "mountPath": "/k"},
            {"name": "data", "mountPath": "/r", "readOnly": True},
        ]
    }
    found = volumes.mounts(container, prepared, {"POD": "web-0"}, ROOT)
    assert [(each["source"], each["target"], each["readOnly"]) for each in found] == [
        (str(tmp_path / "web-0" / "x"), "/d", False),
        (str(tmp_path / "keys"), "/k", True),
        (str(tmp_path), "/r", True),
    ]
    assert (tmp_path / "web-0" / "x").is_dir()


@pytest.mark.parametrize("sub", ["/abs", "../up"])
def test_a_sub_path_never_leaves_its_volume(tmp_path, sub):
    container = {"volumeMounts": [{"name": "data", "mountPath": "/d", "subPath": sub}]}
    with pytest.raises(ConfigProblem, match="must stay inside"):
        volumes.mounts(container, {"data": Prepared(tmp_path)}, {}, ROOT)
