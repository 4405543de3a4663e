"""The framework `hello` over HTTP, with Python's standard library alone: runs five tasks, prints what it
sees, and ends when all have finished. What is lost is run again.

python3 hello.py [HOST:PORT]
"""

import getpass
import http.client
import json
import sys

CPUS, MEM = 0.1, 32
TYPES = {"Content-Type": "application/json", "Accept": "application/json"}
LIVE = ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING")
# These say that the task has ended by itself; after the others it is run again.
ENDED = ("TASK_FINISHED", "TASK_FAILED", "TASK_ERROR")


def post(master, call, headers):
    """The answer to a call, of the master that leads."""
    while True:
        connection = http.client.HTTPConnection(master)
        connection.request("POST", "/api/v1/scheduler", json.dumps(call), {**TYPES, **headers})
        answer = connection.getresponse()
        if answer.status != 307:
            return answer
        # Location: //host:port/path
        master = answer.headers["Location"].split("/")[2]


def scalar(name, value):
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}}


class Hello:
    def __init__(self, master, greetings):
        self.master = master
        self.left = greetings
        self.launched = 0
        self.running = set()

    def run(self):
        info = {"user": getpass.getuser(), "name": "hello.py", "failover_timeout": 60,
                "capabilities": [{"type": "PARTITION_AWARE"}]}
        call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        stream = post(self.master, call, {})
        if stream.status != 200:
            sys.exit(stream.read().decode())
        self.stream_id = stream.headers["Mesos-Stream-Id"]
        # Records, each with its length before it.
        while length := stream.readline():
            event = json.loads(stream.read(int(length)))
            handler = getattr(self, "on_" + event["type"].lower(), None)
            if handler:
                handler(event)
            if self.left == 0 and not self.running:
                self.call({"type": "TEARDOWN"})
                return
        sys.exit("the stream has ended")

    def call(self, call):
        call["framework_id"] = self.framework_id
        answer = post(self.master, call, {"Mesos-Stream-Id": self.stream_id})
        if answer.status != 202:
            sys.exit("%s: %s" % (answer.status, answer.read().decode()))

    def on_subscribed(self, event):
        self.framework_id = event["subscribed"]["framework_id"]

    def on_error(self, event):
        sys.exit(event["error"]["message"])

    def on_offers(self, event):
        for offer in event["offers"]["offers"]:
            has = {"cpus": 0, "mem": 0}
            for resource in offer["resources"]:
                if resource["name"] in has:
                    has[resource["name"]] += resource["scalar"]["value"]
            print("%s offers %s" % (offer["hostname"], has))
            tasks = []
            while self.left and has["cpus"] >= CPUS and has["mem"] >= MEM:
                has["cpus"], has["mem"] = has["cpus"] - CPUS, has["mem"] - MEM
                name = "hello-%d" % self.launched
                self.left, self.launched = self.left - 1, self.launched + 1
                self.running.add(name)
                tasks.append({
                    "name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"],
                    "command": {"value": "echo hello"},
                    "resources": [scalar("cpus", CPUS), scalar("mem", MEM)],
                })
            # Without operations it declines.
            operations = [{"type": "LAUNCH", "launch": {"task_infos": tasks}}] if tasks else []
            self.call({"type": "ACCEPT", "accept": {
                "offer_ids": [offer["id"]], "operations": operations}})

    def on_update(self, event):
        status = event["update"]["status"]
        name, state = status["task_id"]["value"], status["state"]
        print("%s: %s %s" % (name, state, status.get("message", "")))
        if "uuid" in status:
            self.call({"type": "ACKNOWLEDGE", "acknowledge": {
                "agent_id": status["agent_id"], "task_id": status["task_id"],
                "uuid": status["uuid"]}})
        if state in LIVE or name not in self.running:
            return
        self.running.remove(name)
        if state not in ENDED:
            # It was lost, or its agent is cut off, perhaps for ever: another task says it.
            self.left += 1
            self.call({"type": "KILL", "kill": {"task_id": status["task_id"]}})
            self.call({"type": "REVIVE"})


Hello(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5050", 5).run()
