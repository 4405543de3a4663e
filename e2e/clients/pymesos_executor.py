"""Runs COUNT tasks through an executor that is made with the library pymesos, as it is published. The first
tasks wait until the file GATE is there; when some of them run on each of three agents, that is said.

pymesos_executor.py HOST:PORT COUNT GATE
pymesos_executor.py executor            (as agents start it)
"""

import os
import sys
import threading
import time

from pymesos import Executor, MesosExecutorDriver, decode_data, encode_data

from pymesos_tasks import Tasks, main, scalar

CONFIG = b"what only the executor is told"
AGENTS = 3


class Worker(Executor):
    """Each task is a thread. What the agent does not take it is told again."""

    config = None

    def registered(self, driver, executor_info, framework_info, agent_info):
        self.config = decode_data(executor_info["data"])

    def launchTask(self, driver, task):
        threading.Thread(target=self.run, args=(driver, task), daemon=True).start()

    def run(self, driver, task):
        gate = decode_data(task["data"]).decode()
        self.say(driver, task, "TASK_RUNNING")
        while not os.path.exists(gate):
            time.sleep(0.02)
        is_well = self.config == CONFIG
        self.say(driver, task, "TASK_FINISHED" if is_well else "TASK_FAILED")

    def say(self, driver, task, state):
        status = {"task_id": task["task_id"], "state": state, "data": task["data"]}
        while True:
            try:
                return driver.sendStatusUpdate(status)
            except Exception as error:
                # The agent is away. The status has its uuid now, and keeps it.
                print(task["task_id"]["value"], state, error, file=sys.stderr)
                time.sleep(0.2)


class InExecutor(Tasks):
    """The same framework, with tasks in an executor."""

    def __init__(self, count, gate):
        super().__init__(count)
        self.gate = encode_data(gate.encode())
        self.running = set()

    def work(self, name):
        return {"data": self.gate, "executor": {
            "executor_id": {"value": "pool"},
            "name": "pool",
            "data": encode_data(CONFIG),
            "command": {
                "shell": False,
                "value": sys.executable,
                "arguments": [sys.executable, os.path.abspath(__file__), "executor"],
                "environment": {"variables": [
                    {"name": "PYTHONPATH", "value": os.pathsep.join(sys.path)}]},
            },
            "resources": [scalar("cpus", 0.1), scalar("mem", 64)],
        }}

    def statusUpdate(self, driver, status):
        with self.changed:
            if status.get("data") != self.gate or status["executor_id"] != {"value": "pool"}:
                self.problems.append(status)
            if status["state"] == "TASK_RUNNING" and status["agent_id"]["value"] not in self.running:
                self.running.add(status["agent_id"]["value"])
                if len(self.running) == AGENTS:
                    print("running", flush=True)
        super().statusUpdate(driver, status)


if __name__ == "__main__":
    if sys.argv[1] == "executor":
        MesosExecutorDriver(Worker()).run()
    else:
        count = int(sys.argv[2])
        main(sys.argv[1], InExecutor(count, sys.argv[3]), count)
