"""An executor over HTTP, with Python's standard library alone: the data of each task is a shell command.

A slave starts it, as `python3 executor.py`; all that it needs is in its environment.
"""

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

AGENT = os.environ["MESOS_AGENT_ENDPOINT"]
ME = {"framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]},
      "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]}}
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
if "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" in os.environ:
    HEADERS["Authorization"] = "Bearer " + os.environ["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"]
# Between two attempts to reach the agent, in seconds.
PAUSE = 0.5
# It does not outlive an agent that stays away.
PATIENCE = 15 * 60


def post(call):
    connection = http.client.HTTPConnection(AGENT)
    connection.request("POST", "/api/v1/executor", json.dumps({**ME, **call}), HEADERS)
    return connection.getresponse()


def kill(process, number):
    if process.returncode is None:
        os.killpg(process.pid, number)


class Shells:
    def __init__(self):
        self.lock = threading.RLock()
        # What the agent has acknowledged nothing of, and updates that it has not acknowledged.
        self.tasks = {}
        self.updates = {}
        self.running = {}
        self.killed = set()
        self.is_subscribed = False
        self.is_ending = False
        self.last_seen = time.monotonic()

    def run(self):
        while time.monotonic() - self.last_seen < PATIENCE:
            try:
                self.listen()
            except (OSError, http.client.HTTPException) as error:
                print("the agent is away:", error, file=sys.stderr)
            with self.lock:
                if self.is_subscribed:
                    self.last_seen = time.monotonic()
                self.is_subscribed = False
            time.sleep(PAUSE)
        sys.exit("the agent has been away for too long")

    def listen(self):
        with self.lock:
            self.named = set(self.updates)
            call = {"type": "SUBSCRIBE", "subscribe": {
                "unacknowledged_tasks": list(self.tasks.values()),
                "unacknowledged_updates": [{"status": it} for it in self.updates.values()]}}
        stream = post(call)
        if stream.status != 200:
            why = stream.read().decode()
            if stream.status != 503:
                sys.exit(why)
            print("the agent is busy:", why, file=sys.stderr)
            return
        # Records, each with its length before it.
        while length := stream.readline():
            event = json.loads(stream.read(int(length)))
            handler = getattr(self, "on_" + event["type"].lower(), None)
            with self.lock:
                if handler:
                    handler(event)
                if self.is_ending and not self.running and not self.updates:
                    sys.exit(0)

    def on_subscribed(self, event):
        self.is_subscribed = True
        # What has happened since the call was written.
        for status in [it for name, it in self.updates.items() if name not in self.named]:
            self.send(status)

    def on_launch(self, event):
        task = event["launch"]["task"]
        name = task["task_id"]["value"]
        if name in self.running:
            return
        command = base64.b64decode(task["data"])
        process = subprocess.Popen(command, shell=True, start_new_session=True)
        self.tasks[name], self.running[name] = task, process
        self.say(name, "TASK_RUNNING")
        threading.Thread(target=self.wait, args=(name, process), daemon=True).start()

    def wait(self, name, process):
        code = process.wait()
        with self.lock:
            del self.running[name]
            ended = "TASK_FINISHED" if code == 0 else "TASK_FAILED"
            self.say(name, "TASK_KILLED" if name in self.killed else ended)

    def on_kill(self, event):
        name = event["kill"]["task_id"]["value"]
        grace = event["kill"]["kill_policy"]["grace_period"]["nanoseconds"] / 1e9
        self.end(name, grace)

    def end(self, name, grace):
        process = self.running.get(name)
        if process:
            self.killed.add(name)
            kill(process, signal.SIGTERM)
            timer = threading.Timer(grace, kill, (process, signal.SIGKILL))
            timer.daemon = True
            timer.start()

    def on_shutdown(self, event):
        self.is_ending = True
        for name in self.running:
            self.end(name, 1)

    def on_message(self, event):
        # It says the same to the framework.
        post({"type": "MESSAGE", "message": {"data": event["message"]["data"]}})

    def on_acknowledged(self, event):
        self.updates.pop(event["acknowledged"]["uuid"], None)
        self.tasks.pop(event["acknowledged"]["task_id"]["value"], None)

    def say(self, name, state):
        status = {"task_id": {"value": name}, "state": state, "source": "SOURCE_EXECUTOR",
                  "timestamp": time.time(), "data": base64.b64encode(b"%d" % os.getpid()).decode(),
                  "uuid": base64.b64encode(uuid.uuid4().bytes).decode()}
        with self.lock:
            self.updates[status["uuid"]] = status
            if self.is_subscribed:
                self.send(status)

    def send(self, status):
        try:
            answer = post({"type": "UPDATE", "update": {"status": status}})
            print(answer.status, status["task_id"]["value"], status["state"])
        except (OSError, http.client.HTTPException) as error:
            # The stream ends as well, and the next subscription says it.
            print("the agent is away:", error, file=sys.stderr)


Shells().run()
