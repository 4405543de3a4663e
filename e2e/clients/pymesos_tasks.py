"""Runs COUNT command tasks through the library pymesos, as it is published: subscribes, launches,
acknowledges, fails over half-way, and tears itself down.

pymesos_tasks.py HOST:PORT COUNT
"""

import json
import sys
import threading

from pymesos import MesosSchedulerDriver, Scheduler

CPUS, MEM = 0.1, 16


def amount(offer, name):
    return sum(
        resource["scalar"]["value"]
        for resource in offer["resources"]
        if resource["name"] == name
    )


def scalar(name, value):
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}}


class Tasks(Scheduler):
    """Launches what fits, until all have finished."""

    def __init__(self, count):
        self.waiting = ["task-%d" % number for number in range(count)]
        self.finished = set()
        self.agents = set()
        self.problems = []
        self.subscriptions = 0
        self.is_paused = False
        self.changed = threading.Condition()

    def registered(self, driver, framework_id, master_info):
        self.subscriptions += 1

    def reregistered(self, driver, master_info):
        self.subscriptions += 1

    def resourceOffers(self, driver, offers):
        with self.changed:
            if not self.is_paused:
                self.launch(driver, offers)

    def work(self, name):
        """What a task does, as fields of its description."""
        return {"command": {"value": "test $GREETING = hello", "environment": {
            "variables": [{"name": "GREETING", "value": "hello"}]}}}

    def launch(self, driver, offers):
        for offer in offers:
            cpus, mem, tasks = amount(offer, "cpus"), amount(offer, "mem"), []
            # A few of each offer, so that every slave has some.
            while self.waiting and cpus >= CPUS and mem >= MEM and len(tasks) < 10:
                cpus, mem = cpus - CPUS, mem - MEM
                name = self.waiting.pop()
                tasks.append({
                    "name": name,
                    "task_id": {"value": name},
                    "agent_id": offer["agent_id"],
                    "resources": [scalar("cpus", CPUS), scalar("mem", MEM)],
                    **self.work(name),
                })
            if tasks:
                self.agents.add(offer["agent_id"]["value"])
                driver.launchTasks(offer["id"], tasks, {"refuse_seconds": 0.1})
            else:
                driver.declineOffer(offer["id"], {"refuse_seconds": 1})

    def statusUpdate(self, driver, status):
        with self.changed:
            if status["state"] == "TASK_FINISHED":
                self.finished.add(status["task_id"]["value"])
            elif status["state"] not in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING"):
                self.problems.append(status)
            self.changed.notify_all()

    def error(self, driver, message):
        with self.changed:
            self.problems.append(message)
            self.changed.notify_all()

    def wait_for(self, finished):
        with self.changed:
            self.changed.wait_for(lambda: self.problems or len(self.finished) >= finished)
            # Nothing is launched while the driver goes.
            self.is_paused = True
        if self.problems:
            sys.exit("problems: %s" % self.problems)


def main(master, tasks, count):
    framework = {"user": "", "name": "pymesos", "hostname": "", "webui_url": "",
                 "failover_timeout": 600, "checkpoint": True}
    first = MesosSchedulerDriver(tasks, framework, master)
    first.start()
    tasks.wait_for(count // 2)
    framework["id"] = {"value": first.framework_id}
    first.stop(failover=True)
    first.join()
    tasks.is_paused = False
    second = MesosSchedulerDriver(tasks, framework, master)
    second.start()
    tasks.wait_for(count)
    second.stop()
    second.join()
    print(json.dumps({"finished": len(tasks.finished), "agents": len(tasks.agents),
                      "subscriptions": tasks.subscriptions}))


if __name__ == "__main__":
    main(sys.argv[1], Tasks(int(sys.argv[2])), int(sys.argv[2]))
