from __future__ import annotations

import json
from pathlib import Path

import pytest

from mistral_on_l4.config.settings import Settings, SettingsError, Variant, load_stack_file, settings_from, settings_of_config
from mistral_on_l4.config.traits import TRAITS, PlatformName
from mistral_on_l4.jobs.weights_limits import Failure
from mistral_on_l4.jobs.weights_record import manifest_key

ROOT = Path(__file__).parents[3]


def service(**changes: object) -> dict[str, object]:
    return {"variant": "fp8", "prefix": "a/", "pool": "l4-1gpu", **changes}


def listed(**changes: object) -> dict[str, object]:
    """A service as the lists of earlier releases write it."""
    return {"name": "a", **service(**changes)}


def problems(**values: object) -> str:
    with pytest.raises(SettingsError) as caught:
        settings_from({"platform": "local", **values}, "Pulumi.x.yaml")
    return str(caught.value)


def test_a_platform_alone_is_the_demo_that_users_know() -> None:
    settings = settings_from({"platform": "local"}, "Pulumi.x.yaml")
    full, fp8 = settings.enabled_services
    assert (full.name, full.variant, full.prefix, full.tensor_parallel_size) == (
        "mistral-24b-full",
        Variant.BF16,
        "mistral-24b/",
        4,
    )
    assert (fp8.name, fp8.variant, fp8.prefix, fp8.cpu_offload) == ("mistral-24b-fp8", Variant.FP8, "mistral-24b-fp8/", "auto")
    assert [s.name for s in settings.services if not s.enabled] == ["mistral-24b-w4a16"]
    assert settings.object_store.bucket == "rhoai-artifacts"


@pytest.mark.parametrize("path", sorted(ROOT.glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_every_shipped_stack_file_is_valid(path: Path) -> None:
    assert load_stack_file(path.name.split(".")[1], ROOT).platform in PlatformName


def test_objects_may_come_as_the_json_text_that_pulumi_hands_to_programs() -> None:
    settings = settings_from({"platform": "eks", "services": json.dumps({"a": service()})}, "Pulumi.x.yaml")
    assert settings.services[-1].name == "a"


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    settings = settings_from({"platform": "local"}, "Pulumi.x.yaml")
    with pytest.raises(ValueError, match="frozen"):
        settings.region = "eu-west-1"  # type: ignore[misc]


def test_an_unknown_key_is_named_with_its_file_and_place() -> None:
    assert "Pulumi.x.yaml: budget.maxHourly: unknown key" in problems(budget={"maxHourly": 3})


def test_a_wrong_type_is_named_with_the_value_that_was_given() -> None:
    text = problems(budget={"maxHourlyUsd": "a lot"})
    assert "budget.maxHourlyUsd" in text
    assert "'a lot'" in text


def test_every_mistake_gets_a_line_of_its_own() -> None:
    lines = problems(platform="aws", registry={"name": "No_Good"}).splitlines()
    assert len(lines) == 2
    assert any("platform: input should be 'local', 'eks' or 'openshift'" in line for line in lines)


def test_a_bad_kubernetes_name_is_refused() -> None:
    assert problems(services={"Mistral_24b": service()}).startswith(
        "Pulumi.x.yaml: services.Mistral_24b: 'Mistral_24b' is not a Kubernetes name"
    )


def test_a_service_name_leaves_room_for_what_kserve_appends() -> None:
    assert "at most 53" in problems(services={"m" * 54: service()})
    assert settings_from({"platform": "local", "services": {"m" * 53: service()}}, "x")


def test_two_services_with_one_name_are_refused() -> None:
    assert "the name 'a' is used 2 times" in problems(services=[listed(), listed(prefix="b/")])


def test_a_prefix_without_a_slash_is_refused_with_the_reason_and_the_cure() -> None:
    text = problems(services={"a": service(prefix="mistral-24b")})
    assert "'mistral-24b-fp8/...'" in text
    assert "write 'mistral-24b/'" in text


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("./a/", "'./a/' must not start with '/' or hold '//', './' or '../': stores read such paths differently; write 'a/'"),
        ("../x/", "write 'x/'"),
        ("a/./b/", "write 'a/b/'"),
        ("/a/", "write 'a/'"),
        ("a//b/", "write 'a/b/'"),
        ("/", "must not start with '/'"),
        ("_manifests/", "is a name that the seed jobs use"),
        ("_manifests/a/", "is a name that the seed jobs use"),
        ("a.unfinished/", "is a name that the seed jobs use"),
        (".minio.sys/", "'.minio.sys' does not fit"),
        ("a b/", "'a b' does not fit"),
        ("a\n/", "does not fit"),
    ],
)
def test_a_prefix_that_stores_or_the_seed_jobs_read_differently_is_refused(prefix: str, says: str) -> None:
    assert says in problems(services={"a": service(prefix=prefix)})
    # The job itself, which settings of an older stack may start, refuses what the settings refuse.
    with pytest.raises(Failure):
        manifest_key(prefix)


def test_a_prefix_inside_another_is_refused() -> None:
    assert "lies inside 'a/'" in problems(services={"a": service(), "b": service(prefix="a/b/")})


def test_different_checkpoints_cannot_share_a_prefix_but_services_can_share_a_checkpoint() -> None:
    assert "different checkpoints" in problems(services={"a": service(), "b": service(variant="bf16")})
    shared = settings_from({"platform": "local", "services": {"a": service(), "b": service()}}, "x")
    assert [found.prefix for found in shared.services][-2:] == ["a/", "a/"]


def test_a_service_must_name_a_pool_that_exists() -> None:
    assert "the pools are l4-1gpu, l4-4gpu" in problems(services={"a": service(pool="l4-2gpu")})


def test_an_open_endpoint_cannot_be_exposed() -> None:
    assert "would let anybody in" in problems(access={"auth": "none", "exposure": "internal-load-balancer"})


def test_an_external_store_needs_its_endpoint_and_minio_has_none() -> None:
    assert "needs 'endpoint'" in problems(objectStore={"kind": "external"})
    assert "only for kind 'external'" in problems(objectStore={"endpoint": "https://s3.example.com"})


def test_an_existing_cluster_or_network_needs_its_names() -> None:
    assert "needs the cluster's 'name'" in problems(cluster={"existing": True})
    assert "name both or neither" in problems(network={"existingVpcId": "vpc-1"})


def test_an_ordinary_key_set_as_a_secret_is_explained() -> None:
    assert "is set as a secret" in problems(region={"secure": "v1:abc"})


def test_secrets_are_left_to_pulumi() -> None:
    settings = settings_from({"platform": "local", "apiKey": {"secure": "v1:abc"}}, "x")
    assert "abc" not in repr(settings)


def test_a_missing_stack_file_lists_the_stacks_that_exist(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text("config: {}\n")
    with pytest.raises(SettingsError, match=r"Pulumi.nope.yaml: no such stack file here; the stacks are: dev"):
        load_stack_file("nope", tmp_path)


def test_a_stack_file_that_is_not_yaml_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.x.yaml").write_text("config: [\n")
    with pytest.raises(SettingsError) as caught:
        load_stack_file("x", tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_region_of_the_aws_provider_is_the_stacks(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.x.yaml").write_text("config:\n  aws:region: eu-central-1\n  mistral-on-l4:platform: eks\n")
    assert load_stack_file("x", tmp_path).region == "eu-central-1"


def test_defaults_pass_the_checks_that_written_values_do() -> None:
    dumped = settings_from({"platform": "local"}, "x").model_dump(mode="json", by_alias=True)
    assert Settings.model_validate(dumped) == settings_from({"platform": "local"}, "x")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"- a\n- b\n", "holds no keys under 'config:', but \"['a', 'b']\""),
        (b"config:\n  - a\n", "holds no keys under 'config:'"),
        (b"just words\n", "holds no keys under 'config:'"),
        (b"config:\n  1: x\n", "'1' is no key: write it in quotes"),
        (b"\xff\xfe\x00", "cannot be read: is not text"),
    ],
)
def test_a_stack_file_of_another_shape_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "Pulumi.x.yaml").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_stack_file("x", tmp_path)
    assert str(caught.value).startswith("Pulumi.x.yaml: ")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_stack_file_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.x.yaml").mkdir()
    with pytest.raises(SettingsError, match=r"Pulumi\.x\.yaml: cannot be read: Is a directory"):
        load_stack_file("x", tmp_path)


def test_an_image_of_an_unknown_role_is_refused_since_nothing_would_be_overridden() -> None:
    text = problems(images={"overrides": {"engin": "registry.example.com/vllm:1"}})
    assert "images.overrides.engin: no image has the role 'engin': the roles are engine, minio, mc" in text
    assert settings_from({"platform": "eks", "images": {"overrides": {"engine": "registry.example.com/vllm:1"}}}, "x")


def test_a_day_that_no_calendar_has_is_refused_before_it_is_tagged() -> None:
    assert "tags.expires: '2026-02-30' is no date" in problems(tags={"expires": "2026-02-30"})
    assert "tags.expires" in problems(tags={"expires": "tomorrow"})


@pytest.mark.parametrize("cidr", ["203.0.113.7/24", "office", ""])
def test_who_may_reach_the_cluster_is_said_in_blocks_of_addresses(cidr: str) -> None:
    assert "cluster.publicAccessCidrs[0]: " in problems(cluster={"publicAccessCidrs": [cidr]})


def test_a_hub_needs_a_scheme_and_a_cluster_a_version() -> None:
    assert "hub.endpoint" in problems(hub={"endpoint": "hub.example.com"})
    assert "cluster.version" in problems(cluster={"version": "latest"})


def test_a_proxys_password_is_refused_and_not_repeated() -> None:
    said = problems(proxy={"https": "http://me:hunter2@proxy.example.com:3128"})
    assert "proxy.https: a proxy's address must hold no user and password" in said
    assert "hunter2" not in said
    assert settings_from({"platform": "eks", "proxy": {"https": "http://proxy.example.com:3128"}}, "x").proxy.https


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"services": "x"}, "services: should be a map by name, got 'x'"),
        ({"pools": {"groups": 3}}, "pools.groups: should be a map by name, got 3"),
        ({"pools": 3}, "pools: should be a section of keys, got 3"),
        ({"services": {"mistral-24b-fp8": 1}}, "services.mistral-24b-fp8: should be a section of keys, got 1"),
        ({"services": [1]}, "services[0]: should be a section of keys, got 1"),
        ({"budget": None}, "budget: should be a section of keys, got None"),
        ({"images": {"overrides": []}}, "images.overrides: should be a section of keys, got []"),
    ],
)
def test_a_value_of_the_wrong_shape_is_named_in_the_words_of_the_file(values: dict[str, object], says: str) -> None:
    assert problems(**values) == f"Pulumi.x.yaml: {says}"


@pytest.mark.parametrize("platform", sorted({name for name, traits in TRAITS.items() if traits.exposures == {"none"}}))
@pytest.mark.parametrize("exposure", ["internal-load-balancer", "route"])
def test_an_exposure_that_the_platform_lacks_is_refused_with_what_reaches_the_services(platform: str, exposure: str) -> None:
    (line,) = problems(platform=platform, access={"exposure": exposure}).splitlines()
    assert f"access.exposure '{exposure}' is not built for platform '{platform}': " in line
    assert "`demo chat`" in line


def test_a_route_is_an_exposure_where_there_are_routes() -> None:
    assert settings_from({"platform": "openshift", "access": {"exposure": "route"}}, "x").access.exposure == "route"
    assert "access.exposure: route" in problems(platform="openshift", access={"exposure": "internal-load-balancer"})


def test_pulumi_configuration_is_read_as_it_is_and_other_namespaces_are_left_alone() -> None:
    config = {
        "mistral-on-l4:platform": "eks",
        "mistral-on-l4:services": '{"mistral-24b-w4a16": {"enabled": true}}',
        "mistral-on-l4:budget": {"maxHourlyUsd": 20},
        "aws:region": "eu-west-1",
        "somebody-else:services": "x",
    }
    settings = settings_of_config(config, "x")
    assert settings.services[2].enabled
    assert (settings.region, settings.budget.max_hourly_usd) == ("eu-west-1", 20)
    assert settings_of_config({**config, "mistral-on-l4:region": "us-west-2"}, "x").region == "us-west-2"


def test_a_secret_that_stands_in_clear_is_refused_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.x.yaml"
    file.write_text("config:\n  mistral-on-l4:platform: local\n  mistral-on-l4:hubToken: hf_hunter2\n")
    with pytest.raises(SettingsError) as caught:
        load_stack_file("x", tmp_path)
    assert "hubToken: stands in clear" in str(caught.value)
    assert "pulumi config set --secret mistral-on-l4:hubToken" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    file.write_text("config:\n  mistral-on-l4:platform: local\n  mistral-on-l4:hubToken:\n    secure: v1:abc\n")
    assert load_stack_file("x", tmp_path).platform is PlatformName.LOCAL
