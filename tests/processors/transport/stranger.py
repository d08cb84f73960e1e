"""A stranger's app, as it would be written for Kafka. It knows Faust and nothing of AuraStream; run by the
tests as a script.
"""

import asyncio
import json
import os
import time
from pathlib import Path

import faust
from faust.cli import argument

app = faust.App(
    "stranger",
    broker=os.environ["BROKER"],
    topic_partitions=4,
    datadir=os.environ["DATADIR"],
    broker_commit_interval=0.2,
)
REPORT, WORKER = Path(os.environ["REPORT"]), os.environ.get("WORKER", "")
HANDLING_S = float(os.environ.get("HANDLING_S", "0"))


def report(what: str, **facts: object) -> None:
    with REPORT.open("a") as file:
        file.write(json.dumps({"what": what, "worker": WORKER, "at": time.time(), **facts}) + "\n")


class Order(faust.Record):
    account: str
    amount: int


class Total(faust.Record):
    account: str
    total: int


orders = app.topic("Orders", key_type=str, value_type=Order)
totals = app.topic("totals", key_type=str, value_type=Total)
balances: dict[str, int] = {}


@app.agent(orders)
async def add_up(stream):
    async for key, order in stream.items():
        if HANDLING_S:
            await asyncio.sleep(HANDLING_S)
        balances[key] = balances.get(key, 0) + order.amount
        message = stream.current_event.message
        report("order", key=key, amount=order.amount, partition=message.partition, offset=message.offset)
        await totals.send(key=key, value=Total(account=order.account, total=balances[key]))


@app.agent(totals)
async def note(stream):
    async for event in stream.events():
        report("total", key=event.key, total=event.value.total)


@app.timer(0.1)
async def tick():
    report("timer")


@app.timer(0.1, on_leader=True)
async def lead():
    report("leader")


@app.crontab("* * * * * *")
async def every_second():
    report("crontab")


@app.page("/balances/")
async def show(web, request):
    return web.json(balances)


@app.command(argument("count", type=int), argument("start", type=int, default=0, required=False))
async def order(self, count: int, start: int):
    """Send orders."""
    for number in range(start, start + count):
        await orders.send(
            key=f"account-{number % 10}", value=Order(account=f"account-{number % 10}", amount=number)
        )
    await app.producer.flush()
    report("sent", count=count)


if __name__ == "__main__":
    app.main()
