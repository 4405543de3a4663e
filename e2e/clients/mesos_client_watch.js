// Watches the operator stream through the library @dcos/mesos-client, as it is published, until a
// framework of this name is removed; says when it is subscribed, then what it has seen.
//
// mesos_client_watch.js HOST:PORT FRAMEWORK

"use strict";

const http = require("http");

// The library is for browsers: all that it uses of their class, on Node's sockets.
global.XMLHttpRequest = class {
  constructor() {
    this.listeners = {};
    this.headers = {};
    this.response = "";
    this.status = 0;
  }

  addEventListener(name, listener) {
    (this.listeners[name] = this.listeners[name] || []).push(listener);
  }

  emit(name) {
    (this.listeners[name] || []).forEach(listener => listener());
  }

  open(method, url) {
    this.method = method;
    this.url = url;
  }

  setRequestHeader(name, value) {
    this.headers[name] = value;
  }

  send(body) {
    const options = { method: this.method, headers: this.headers };
    this.request = http.request(this.url, options, answer => {
      this.status = answer.statusCode;
      answer.setEncoding("utf8");
      answer.on("data", text => {
        this.response += text;
        this.emit("progress");
      });
      answer.on("end", () => this.emit("load"));
    });
    this.request.on("error", () => this.emit("error"));
    this.request.end(body);
  }

  abort() {
    this.request.destroy();
  }
};

const { stream, request } = require("@dcos/mesos-client");

const [master, framework] = process.argv.slice(2);
const url = `http://${master}/api/v1`;
const seen = { agents: 0, added: new Set(), finished: new Set() };

function fail(problem) {
  console.error(problem);
  process.exit(1);
}

function on(event) {
  switch (event.type) {
    case "SUBSCRIBED":
      seen.agents = event.subscribed.get_state.get_agents.agents.length;
      console.log("subscribed");
      break;
    case "TASK_ADDED":
      seen.added.add(event.task_added.task.task_id.value);
      break;
    case "TASK_UPDATED":
      if (event.task_updated.state === "TASK_FINISHED") {
        seen.finished.add(event.task_updated.status.task_id.value);
      }
      break;
    case "FRAMEWORK_REMOVED":
      if (event.framework_removed.framework_info.name === framework) {
        request({ type: "GET_VERSION" }, url).subscribe(answer => {
          const version = JSON.parse(answer).get_version.version_info.version;
          const { agents, added, finished } = seen;
          console.log(JSON.stringify({ agents, added: added.size, finished: finished.size, version }));
          process.exit(0);
        }, fail);
      }
      break;
  }
}

stream({ type: "SUBSCRIBE" }, url).subscribe(
  record => on(JSON.parse(record)),
  fail,
  () => fail("the stream has ended")
);
