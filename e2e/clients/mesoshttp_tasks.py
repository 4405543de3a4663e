"""Runs COUNT command tasks through the library mesoshttp, as it is published: subscribes, launches,
acknowledges, leaves half-way and comes back under its id, and tears itself down.

mesoshttp_tasks.py HOST:PORT COUNT

It tells of an event when the next one begins, so the master's heartbeats are to come often.
"""

import json
import sys
import threading

from mesoshttp.client import MesosClient

CPUS, MEM = 0.1, 16


def amount(offer, name):
    return sum(
        resource["scalar"]["value"]
        for resource in offer["resources"]
        if resource["name"] == name
    )


def scalar(name, value):
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}}


class Tasks:
    """Launches what fits, until all have finished."""

    def __init__(self, count):
        self.waiting = ["task-%d" % number for number in range(count)]
        self.finished = set()
        self.agents = set()
        self.problems = []
        self.subscriptions = 0
        self.is_paused = False
        self.changed = threading.Condition()

    def on_subscribed(self, driver):
        self.subscriptions += 1

    def on_offers(self, offers):
        with self.changed:
            for offer in offers:
                self.use(offer)

    def use(self, offer):
        what = offer.get_offer()
        cpus, mem, tasks = amount(what, "cpus"), amount(what, "mem"), []
        # A few of each offer, so that every slave has some.
        while not self.is_paused and self.waiting and len(tasks) < 20 and cpus >= CPUS and mem >= MEM:
            cpus, mem = cpus - CPUS, mem - MEM
            name = self.waiting.pop()
            tasks.append({
                "name": name,
                "task_id": {"value": name},
                "agent_id": what["agent_id"],
                "command": {"value": "true"},
                "resources": [scalar("cpus", CPUS), scalar("mem", MEM)],
            })
        if tasks:
            self.agents.add(what["agent_id"]["value"])
            offer.accept(tasks, {"filters": {"refuse_seconds": 0.1}})
        else:
            offer.decline({"filters": {"refuse_seconds": 1}})

    def on_update(self, update):
        status = update["status"]
        with self.changed:
            if status["state"] == "TASK_FINISHED":
                self.finished.add(status["task_id"]["value"])
            elif status["state"] not in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"):
                self.problems.append(status)
            self.changed.notify_all()

    def on_error(self, message):
        with self.changed:
            self.problems.append(message)
            self.changed.notify_all()

    def client(self, master, framework_id):
        client = MesosClient(
            mesos_urls=["http://" + master], frameworkId=framework_id,
            frameworkName="mesoshttp", frameworkUser="")
        client.set_failover_timeout(600)
        client.on(MesosClient.SUBSCRIBED, self.on_subscribed)
        client.on(MesosClient.OFFERS, self.on_offers)
        client.on(MesosClient.UPDATE, self.on_update)
        client.on(MesosClient.ERROR, self.on_error)
        thread = threading.Thread(target=client.register, daemon=True)
        thread.start()
        return client, thread

    def wait_for(self, finished):
        with self.changed:
            self.changed.wait_for(lambda: self.problems or len(self.finished) >= finished)
            self.is_paused = True
        if self.problems:
            sys.exit("problems: %s" % self.problems)


def main(master, count):
    tasks = Tasks(count)
    first, thread = tasks.client(master, None)
    tasks.wait_for(count // 2)
    # It leaves its loop with the next event, without a teardown.
    first.disconnect = True
    thread.join()
    first.long_pool.close()
    tasks.is_paused = False
    second, thread = tasks.client(master, first.frameworkId)
    tasks.wait_for(count)
    second.tearDown()
    thread.join()
    print(json.dumps({"finished": len(tasks.finished), "agents": len(tasks.agents),
                      "subscriptions": tasks.subscriptions}))


main(sys.argv[1], int(sys.argv[2]))
