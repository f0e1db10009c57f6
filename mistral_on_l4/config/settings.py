"""The stack's configuration: read, merged over the defaults, checked and frozen before anything is declared.

Keys are camelCase in Pulumi.<stack>.yaml under the project's namespace (`mistral-on-l4:`), so
`pulumi config set --path 'mistral-on-l4:budget.maxHourlyUsd' 6` works. Secrets are not here: `Config.get_object` would hand
them out in clear, so they are read one by one where they are used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mistral_on_l4.config.local_engine import with_engine
from mistral_on_l4.config.merging import Merged, merged
from mistral_on_l4.config.names import PROJECT
from mistral_on_l4.config.problems import MAPS, Location, SettingsError, problems_of
from mistral_on_l4.config.sections import (
    AccessSettings,
    BudgetSettings,
    ClusterSettings,
    HubSettings,
    ImagesSettings,
    LocalSettings,
    NamespaceSettings,
    NetworkSettings,
    Notices,
    ObjectStoreSettings,
    OpenshiftSettings,
    OperatorSettings,
    PoolSettings,
    PoolsSettings,
    ProxySettings,
    RegistrySettings,
    ServiceSettings,
    Settings,
    TagSettings,
    Variant,
)
from mistral_on_l4.config.stack_file import read_stack_file

# The model's classes are part of this module's face: most of the program reads settings and does not care how they are checked.
__all__ = [
    "SECRET_KEYS",
    "AccessSettings",
    "BudgetSettings",
    "ClusterSettings",
    "HubSettings",
    "ImagesSettings",
    "LocalSettings",
    "NamespaceSettings",
    "NetworkSettings",
    "ObjectStoreSettings",
    "OpenshiftSettings",
    "OperatorSettings",
    "PoolSettings",
    "PoolsSettings",
    "ProxySettings",
    "RegistrySettings",
    "ServiceSettings",
    "Settings",
    "SettingsError",
    "TagSettings",
    "Variant",
    "load_stack_file",
    "settings_as_checked",
    "settings_from",
    "settings_of_config",
]

# Read one by one as Pulumi secrets, never as part of the settings.
SECRET_KEYS = frozenset(
    {"apiKey", "hubToken", "storeAccessKeyId", "storeSecretAccessKey", "storeReaderAccessKeyId", "storeReaderSecretAccessKey"}
)


def settings_from(values: Mapping[str, Any], source: str) -> Settings:
    """Builds settings from config keys without their namespace, such as {"platform": "local", "services": {...}}.

    A value may be the decoded object or, as Pulumi hands it to a program, its JSON text. `source` names the file in errors.
    Raises SettingsError.
    """
    plain = {key: _decoded(value) for key, value in values.items() if key not in SECRET_KEYS}
    if hidden := [key for key, value in plain.items() if _is_encrypted(value)]:
        raise SettingsError(source, [f"{key}: is set as a secret, but only {', '.join(sorted(SECRET_KEYS))} are" for key in hidden])
    maps: dict[Location, Merged] = {}
    for location, defaults in MAPS.items():
        section, key = _section_of(plain, location)
        if section is not None:
            maps[location] = merged(".".join(map(str, location)), section.get(key, {}), defaults)
            section[key] = maps[location].entries
    problems = [problem for found in maps.values() for problem in found.problems]
    names = {location: found.names for location, found in maps.items() if found.names is not None}
    deprecations = tuple(text for found in maps.values() for text in found.deprecations)
    try:
        settings = Settings.model_validate(with_engine(plain), context=Notices(deprecations))
    except ValidationError as error:
        # An entry that could not be merged is missing from the whole, so what is said about the whole may be wrong.
        raise SettingsError(source, [*problems, *problems_of(error, names, whole=not problems)]) from None
    if problems:
        raise SettingsError(source, problems)
    return settings


def settings_of_config(config: Mapping[str, Any], source: str, encrypted: Collection[str] | None = None) -> Settings:
    """Settings from Pulumi configuration as it is: keys with their namespaces, JSON text or decoded values.

    encrypted: the keys whose values Pulumi keeps encrypted, where that is known; a secret that is not among them is refused.
    Raises SettingsError.
    """
    values = {str(key).partition(":")[2]: value for key, value in config.items() if str(key).startswith(f"{PROJECT}:")}
    if "region" not in values and "aws:region" in config:
        values["region"] = config["aws:region"]
    if encrypted is not None:
        in_clear = sorted(key for key in SECRET_KEYS & set(values) if f"{PROJECT}:{key}" not in encrypted)
        if in_clear:
            raise SettingsError(source, [_said_in_clear(key) for key in in_clear])
    return settings_from(values, source)


def settings_as_checked(values: Mapping[str, Any], source: str) -> Settings:
    """Settings from values as the model holds them: services and pools as lists, nothing merged. Raises SettingsError."""
    names = {
        location: [str(entry.get("name")) for entry in section.get(key, ())]
        for location in MAPS
        for section, key in [_section_of(dict(values), location)]
        if section is not None
    }
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(source, problems_of(error, names)) from None


def load_stack_file(stack: str, directory: Path | None = None) -> Settings:
    """Reads Pulumi.<stack>.yaml without Pulumi. Raises SettingsError, also when there is no such file."""
    folder = directory or Path.cwd()
    name = f"Pulumi.{stack}.yaml"
    try:
        config = read_stack_file(folder / name).config
    except FileNotFoundError:
        known = sorted(path.name.split(".")[1] for path in folder.glob("Pulumi.*.yaml"))
        raise SettingsError(name, [f"no such stack file here; the stacks are: {', '.join(known) or 'none'}"]) from None
    except OSError as error:
        raise SettingsError(name, [f"cannot be read: {error.strerror}"]) from None
    return settings_of_config(config, name, encrypted=set(_encrypted_keys(config)))


def _encrypted_keys(config: Mapping[Any, Any]) -> Iterator[str]:
    return (str(key) for key, value in config.items() if _is_encrypted(value))


def _is_encrypted(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"secure"}


def _said_in_clear(key: str) -> str:
    """Without the value: the line ends up in logs."""
    return (
        f"{key}: stands in clear, where everybody who reads the file has it: `pulumi config set --secret {PROJECT}:{key}` encrypts "
        "it; if the file was ever shared, replace the key as well"
    )


def _section_of(plain: dict[str, Any], location: Location) -> tuple[dict[str, Any] | None, str]:
    """The section that holds the map of a location, copied, with the map's key; None where it is no section."""
    section = plain
    for part in map(str, location[:-1]):
        inner = section.get(part, {})
        if not isinstance(inner, Mapping):
            return None, ""
        section[part] = dict(inner)
        section = section[part]
    return section, str(location[-1])


def _decoded(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
