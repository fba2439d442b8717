"""A web service, FastAPI on uvicorn, that answers requests over HTTP.

It stands for a service behind a router: it checks what it is sent against a schema, looks it up in a database (SQLite, in memory, filled
from a fixed seed), and renders a page or writes JSON. It listens on the loopback interface of its container and says {"ready": true} on
its standard output once it does:

    POST /invoice  {"customer": "...", "date": "2026-03-14", "lines": [{"sku": "A-00017", "quantity": 2}, ...]}  ->  HTML
    POST /search   {"words": "...", "limit": 10}                                                                  ->  JSON

Both routes run on the thread of the event loop, so that nothing about an answer depends on which thread was quicker.

--small fills in fewer products, for tests.
"""

import argparse
import datetime
import decimal
import json
import random
import sqlite3
import sys

import jinja2
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

SEED = 20260106
PORT = 8080
PRODUCTS = 20000
WORDS = ("anchor", "brass", "canvas", "cedar", "copper", "felt", "glass", "hemp", "iron", "kettle", "lamp", "linen", "oak", "rope", "stool", "wool")

INVOICE = """<!DOCTYPE html>
<html>
<head><title>Invoice for {{ order.customer }}</title></head>
<body>
<h1>{{ order.customer }}, {{ order.date.strftime("%d %B %Y") }}</h1>
<table>
{%- for line in lines %}
<tr class="{{ loop.cycle('odd', 'even') }}"><td>{{ line.sku }}</td><td>{{ line.name | title }}</td><td>{{ line.quantity }}</td><td>{{ line.sum }}</td></tr>
{%- else %}
<tr><td>Nothing was ordered.</td></tr>
{%- endfor %}
</table>
<p>Total: <b>{{ total }}</b>, of which tax {{ tax }}</p>
</body>
</html>
"""


class Line(BaseModel):
    sku: str = Field(pattern=r"^[A-Z]-\d{5}$")
    quantity: int = Field(ge=1, le=1000)


class Order(BaseModel):
    customer: str = Field(min_length=1, max_length=80)
    date: datetime.date
    lines: list[Line] = Field(max_length=100)


class Search(BaseModel):
    words: str = Field(min_length=1, max_length=200)
    limit: int = Field(default=10, ge=1, le=100)


class Product(BaseModel):
    sku: str
    name: str
    price: decimal.Decimal


def fill(count):
    """A database of so many made-up products."""
    draw = random.Random(SEED)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE product (sku TEXT PRIMARY KEY, name TEXT NOT NULL, cents INTEGER NOT NULL)")
    database.execute("CREATE TABLE word (word TEXT NOT NULL, sku TEXT NOT NULL, PRIMARY KEY (word, sku)) WITHOUT ROWID")
    for number in range(count):
        sku, words = f"{'ABC'[number % 3]}-{number:05d}", draw.sample(WORDS, 3)
        database.execute("INSERT INTO product VALUES (?, ?, ?)", (sku, " ".join(words), draw.randint(100, 50000)))
        database.executemany("INSERT INTO word VALUES (?, ?)", ((word, sku) for word in words))
    database.commit()
    return database


def make(database):
    """The application: its routes, on this database."""
    app = FastAPI()
    page = jinja2.Environment(autoescape=True).from_string(INVOICE)

    @app.post("/invoice", response_class=HTMLResponse)
    async def invoice(order: Order):
        lines, total = [], decimal.Decimal(0)
        for line in order.lines:
            row = database.execute("SELECT name, cents FROM product WHERE sku = ?", (line.sku,)).fetchone()
            if row is None:
                raise HTTPException(404, f"there is no product {line.sku}")
            amount = decimal.Decimal(row[1]) / 100 * line.quantity
            lines.append({"sku": line.sku, "name": row[0], "quantity": line.quantity, "sum": f"{amount:,.2f}"})
            total += amount
        return page.render(order=order, lines=lines, total=f"{total:,.2f}", tax=f"{total / 6:,.2f}")

    @app.post("/search")
    async def search(query: Search) -> list[Product]:
        words = sorted(set(query.words.lower().split()))
        rows = database.execute(
            "SELECT product.sku, name, cents FROM word JOIN product ON product.sku = word.sku "
            f"WHERE word IN ({', '.join('?' * len(words))}) GROUP BY product.sku ORDER BY count(*) DESC, cents, product.sku LIMIT ?",
            (*words, query.limit),
        )
        return [Product(sku=sku, name=name, price=decimal.Decimal(cents) / 100) for sku, name, cents in rows]

    return app


class Server(uvicorn.Server):
    """A server that says when it listens."""

    async def startup(self, sockets=None):
        await super().startup(sockets=sockets)
        sys.stdout.write(json.dumps({"ready": self.started}) + "\n")
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    database = fill(200 if parser.parse_args().small else PRODUCTS)
    Server(uvicorn.Config(make(database), host="127.0.0.1", port=PORT, loop="asyncio", log_level="warning", access_log=False)).run()


if __name__ == "__main__":
    main()
