"""Rows in one SQLite file: three tables, as the real database has, each with its own sequence of ids."""

from __future__ import annotations

import base64
import binascii
import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedded.images.model_registry.kinds import Family, Fields, Kind

_COLUMNS = {"ID": "id", "CREATE_TIME": "created", "LAST_UPDATE_TIME": "updated"}


class Duplicate(Exception):
    """A name that is taken among its siblings, or an externalId that is taken in its table."""


@dataclass(frozen=True)
class Row:
    """One resource. created, updated: milliseconds since 1970; parent: id of the owning context, or None."""

    id: int
    schema: str
    name: str
    parent: int | None
    created: int
    updated: int
    fields: Fields


@dataclass(frozen=True)
class Page:
    """Which part of a listing. size 0 is everything; token is what an earlier answer gave."""

    size: int = 0
    order_by: str = "ID"
    descending: bool = False
    token: str = ""


class Store:
    """One file, safe to share between threads: writes are serialised, every write is on disk when its call returns."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        for family in Family:
            # AUTOINCREMENT: an id is never given twice. NULL parents of artifacts never collide, as on the real server.
            self._database.execute(
                f"""CREATE TABLE IF NOT EXISTS {family} (
                    id INTEGER PRIMARY KEY AUTOINCREMENT,
                    schema TEXT NOT NULL, name TEXT NOT NULL, parent INTEGER, scope TEXT NOT NULL,
                    external_id TEXT UNIQUE, created INTEGER NOT NULL, updated INTEGER NOT NULL, fields TEXT NOT NULL,
                    UNIQUE (schema, scope, name))"""
            )

    def insert(self, kind: Kind, fields: Fields, parent: int | None, scope: str) -> Row:
        """Adds a row; its name must be unique in `scope` (any text). Raises Duplicate."""
        now = _now_ms()
        columns = "schema, name, parent, scope, external_id, created, updated, fields"
        statement = f"INSERT INTO {kind.family} ({columns}) VALUES (?,?,?,?,?,?,?,?)"
        values = (kind.schema, fields["name"], parent, scope, fields.get("externalId"), now, now, json.dumps(fields))
        with self._lock:
            try:
                row_id = self._database.execute(statement, values).lastrowid
            except sqlite3.IntegrityError as error:
                raise Duplicate(str(error)) from error
        assert row_id is not None
        return Row(row_id, kind.schema, fields["name"], parent, now, now, fields)

    def update(self, family: Family, row_id: int, changes: Mapping[str, Any]) -> Row:
        """Sets the fields given and keeps the others. Raises Duplicate, KeyError when there is no such row."""
        with self._lock:
            row = self._one(family, "id = ?", (row_id,))
            if row is None:
                raise KeyError(row_id)
            fields = {**row.fields, **changes}
            # Two updates within a millisecond still move the time on.
            updated = max(_now_ms(), row.updated + 1)
            try:
                self._database.execute(
                    f"UPDATE {family} SET fields = ?, external_id = ?, updated = ? WHERE id = ?",
                    (json.dumps(fields), fields.get("externalId"), updated, row_id),
                )
            except sqlite3.IntegrityError as error:
                raise Duplicate(str(error)) from error
        return Row(row.id, row.schema, row.name, row.parent, row.created, updated, fields)

    def get(self, family: Family, row_id: int) -> Row | None:
        with self._lock:
            return self._one(family, "id = ?", (row_id,))

    def find(
        self, family: Family, schemas: tuple[str, ...], name: str | None, parent: int | None, external_id: str | None
    ) -> list[Row]:
        """Rows of these kinds that match every criterion given, at most two: enough to tell one from several."""
        where, values = _kinds(schemas)
        for column, value in (("name", name), ("parent", parent), ("external_id", external_id)):
            if value is not None:
                where += f" AND {column} = ?"
                values.append(value)
        with self._lock:
            return [_row(r) for r in self._database.execute(f"{_select(family)} WHERE {where} ORDER BY id LIMIT 2", values)]

    def list(self, family: Family, schemas: tuple[str, ...], parent: int | None, page: Page) -> tuple[list[Row], str]:
        """The rows of a page, and the token of the next one ("" when there is none)."""
        column = _COLUMNS[page.order_by]
        where, values = _kinds(schemas)
        if parent is not None:
            where += " AND parent = ?"
            values.append(parent)
        if cursor := _decode_token(page.token):
            sign = "<" if page.descending else ">"
            where += f" AND ({column} {sign} ? OR ({column} = ? AND id {sign} ?))"
            row_id, value = cursor
            values += [value, value, row_id]
        direction = "DESC" if page.descending else "ASC"
        query = f"{_select(family)} WHERE {where} ORDER BY {column} {direction}, id {direction}"
        if page.size > 0:
            query += f" LIMIT {page.size + 1}"
        with self._lock:
            rows = [_row(r) for r in self._database.execute(query, values)]
        if page.size <= 0 or len(rows) <= page.size:
            return rows, ""
        last = rows[page.size - 1]
        sort_key = {"id": last.id, "created": last.created, "updated": last.updated}[column]
        return rows[: page.size], base64.b64encode(f"{last.id}:{sort_key}".encode()).decode()

    def ping(self) -> None:
        """Reads from the file. Raises sqlite3.Error when that fails."""
        with self._lock:
            self._database.execute("SELECT count(*) FROM contexts").fetchone()

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _one(self, family: Family, where: str, values: tuple[Any, ...]) -> Row | None:
        row = self._database.execute(f"{_select(family)} WHERE {where}", values).fetchone()
        return _row(row) if row else None


def _select(family: Family) -> str:
    return f"SELECT id, schema, name, parent, created, updated, fields FROM {family}"


def _kinds(schemas: tuple[str, ...]) -> tuple[str, list[Any]]:
    return f"schema IN ({','.join('?' * len(schemas))})", list(schemas)


def _row(values: tuple[Any, ...]) -> Row:
    row_id, schema, name, parent, created, updated, fields = values
    return Row(row_id, schema, name, parent, created, updated, json.loads(fields))


def _decode_token(token: str) -> tuple[int, int] | None:
    # The real server takes a token that it cannot read for none, and answers the first page.
    try:
        row_id, value = base64.b64decode(token, validate=True).decode().split(":")
        return int(row_id), int(value)
    except (ValueError, binascii.Error):
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
