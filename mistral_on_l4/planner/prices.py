"""On-demand prices from the AWS Price List API, in place of the shipped table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mistral_on_l4.planner.catalogue.schema import Catalogue
from mistral_on_l4.planner.plan import PlanError

# The API exists in these regions only; each answers for all.
ENDPOINT_REGION = "us-east-1"


def with_live_prices(catalogue: Catalogue, region: str, client: Any = None) -> Catalogue:
    """The catalogue with today's instance prices of a region; a type that is not sold there has none. Raises PlanError.

    client: boto3's `pricing`, made here if None. The fixed parts (EKS, NAT, volumes) stay those of the shipped table.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if client is None:
            limits = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3, "mode": "standard"})
            client = boto3.client("pricing", region_name=ENDPOINT_REGION, config=limits)
        found = {name: instance_price(client, name, region) for name in catalogue.instances}
    except ClientError as error:
        detail = error.response.get("Error", {})
        raise PlanError(f"the Price List API refused: {detail.get('Code')}: {detail.get('Message')}") from None
    except BotoCoreError as error:
        raise PlanError(f"the Price List API cannot be asked: {str(error).splitlines()[0]}") from None
    instances = {}
    for name, instance in catalogue.instances.items():
        prices = {other: price for other, price in instance.usd_per_hour.items() if other != region}
        price = found[name]
        if price is not None:
            prices[region] = price
        instances[name] = instance.model_copy(update={"usd_per_hour": prices})
    return catalogue.model_copy(update={"instances": instances})


def instance_price(client: Any, instance_type: str, region: str) -> float | None:
    """US dollars per hour of a Linux instance, shared tenancy, on demand; None if the region does not sell it."""
    terms = {
        "instanceType": instance_type,
        "regionCode": region,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    }
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in terms.items()]
    answer = client.get_products(ServiceCode="AmazonEC2", Filters=filters, FormatVersion="aws_v1", MaxResults=100)
    return min(_hourly(answer["PriceList"], instance_type), default=None)


def _hourly(products: Iterable[str], instance_type: str) -> list[float]:
    """Prices per hour of the products, each a JSON text; a price of zero is a reservation's, not one that is paid."""
    prices = []
    for text in products:
        try:
            offers = json.loads(text)["terms"].get("OnDemand", {})
            for offer in offers.values():
                for dimension in offer["priceDimensions"].values():
                    price = float(dimension["pricePerUnit"]["USD"])
                    if dimension.get("unit") == "Hrs" and price > 0:
                        prices.append(price)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(
                f"the Price List API's answer for {instance_type} cannot be read: {type(error).__name__}: {error}"
            ) from None
    return prices
