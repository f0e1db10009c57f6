from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from mistral_on_l4.config.settings import settings_from
from mistral_on_l4.planner import PlanError, plan_stack
from mistral_on_l4.planner.catalogue import Catalogue
from mistral_on_l4.planner.prices import instance_price, with_live_prices


def product(usd: str, unit: str = "Hrs") -> str:
    """One entry of PriceList as the API writes it: a JSON text, trimmed to what an offer of a g6.2xlarge holds."""
    dimension = {
        "unit": unit,
        "description": f"${usd} per On Demand Linux g6.2xlarge Instance Hour",
        "pricePerUnit": {"USD": usd},
        "rateCode": "5DHCRRKDMGJN2MCT.JRTCKXETXF.6YS6EN2CT7",
    }
    term = {"priceDimensions": {dimension["rateCode"]: dimension}, "sku": "5DHCRRKDMGJN2MCT", "offerTermCode": "JRTCKXETXF"}
    return json.dumps(
        {
            "product": {
                "productFamily": "Compute Instance",
                "attributes": {"instanceType": "g6.2xlarge", "regionCode": "eu-central-1"},
            },
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {"5DHCRRKDMGJN2MCT.JRTCKXETXF": term}},
        }
    )


@pytest.fixture
def client() -> Any:
    return boto3.client("pricing", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")


def test_a_price_is_asked_for_by_type_and_region_on_demand_and_shared(client: Any) -> None:
    with Stubber(client) as stub:
        stub.add_response(
            "get_products",
            {"PriceList": [product("0.0000000000"), product("1.2220000000"), product("1.5000000000", "Quantity")]},
            {"ServiceCode": "AmazonEC2", "Filters": ANY, "FormatVersion": "aws_v1", "MaxResults": 100},
        )
        assert instance_price(client, "g6.2xlarge", "eu-central-1") == 1.222
        stub.assert_no_pending_responses()


def test_the_filters_leave_one_product(client: Any) -> None:
    seen: list[dict[str, str]] = []
    client.meta.events.register("before-parameter-build.pricing.GetProducts", lambda params, **_: seen.extend(params["Filters"]))
    with Stubber(client) as stub:
        stub.add_response("get_products", {"PriceList": []})
        assert instance_price(client, "g6.xlarge", "eu-west-1") is None
    assert {each["Field"]: each["Value"] for each in seen} == {
        "instanceType": "g6.xlarge",
        "regionCode": "eu-west-1",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }


def test_live_prices_replace_one_regions_and_leave_the_others(client: Any, catalogue: Catalogue) -> None:
    with Stubber(client) as stub:
        for name in catalogue.instances:
            stub.add_response("get_products", {"PriceList": [] if name.startswith("g6e") else [product("2.0")]})
        live = with_live_prices(catalogue, "eu-central-1", client)
    assert live.instances["g6.2xlarge"].usd_per_hour == {"us-east-1": 0.9776, "eu-central-1": 2.0}
    assert "eu-central-1" not in live.instances["g6e.xlarge"].usd_per_hour
    settings = settings_from({"platform": "eks", "region": "eu-central-1"}, "x")
    assert plan_stack(settings, stack="x", catalogue=live).services[0].usd_per_hour == 2.0
    assert plan_stack(settings, stack="x").services[0].usd_per_hour is None


def test_a_refusal_is_one_line(client: Any, catalogue: Catalogue) -> None:
    with Stubber(client) as stub:
        stub.add_client_error("get_products", "AccessDeniedException", "User is not authorized to perform: pricing:GetProducts")
        with pytest.raises(PlanError, match="the Price List API refused: AccessDeniedException: User is not authorized"):
            with_live_prices(catalogue, "us-east-1", client)


def test_an_answer_that_cannot_be_read_is_one_line(client: Any, catalogue: Catalogue) -> None:
    with Stubber(client) as stub:
        stub.add_response("get_products", {"PriceList": ["{"]})
        with pytest.raises(PlanError, match=r"answer for g6\.xlarge cannot be read"):
            with_live_prices(catalogue, "us-east-1", client)


def test_without_credentials_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, catalogue: Catalogue) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(PlanError, match="cannot be asked: Unable to locate credentials"):
        with_live_prices(catalogue, "us-east-1")
