#!/usr/bin/env bash
# The framework `hello` with curl and jq alone: runs five tasks, prints what it sees, and ends when all
# have finished. What is lost is run again.
#
# hello.sh [HOST:PORT]    the master that leads; curl -sI HOST:PORT/redirect tells which that is

set -euo pipefail
# So that lengths are bytes.
export LC_ALL=C

url=http://${1:-127.0.0.1:5050}/api/v1/scheduler
left=5 launched=0 framework='' stream=''
declare -A running=()
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

post() { curl -sS -H 'Content-Type: application/json' -H 'Accept: application/json' "$@" "$url"; }

# A call, which is JSON without the framework's id.
call() {
    local body status
    body=$(jq -c --arg id "$framework" '.framework_id = {value: $id}' <<<"$1")
    status=$(post -o /dev/null -w '%{http_code}' -H "Mesos-Stream-Id: $stream" -d "$body")
    [ "$status" = 202 ] || { echo "$status for $body" >&2; exit 1; }
}

on_offer() {
    local offer=$1 fit names tasks='[]'
    jq -r '"\(.hostname) offers \([.resources[] | select(.scalar) | {(.name): .scalar.value}] | add)"' <<<"$offer"
    fit=$(jq 'def sum(n): [.resources[] | select(.name == n) | .scalar.value] | add // 0;
        [sum("cpus") / 0.1, sum("mem") / 32] | min | floor' <<<"$offer")
    names=()
    while ((left > 0 && ${#names[@]} < fit)); do
        names+=("hello-$launched")
        running[hello-$launched]=1
        launched=$((launched + 1)) left=$((left - 1))
    done
    if ((${#names[@]} > 0)); then
        tasks=$(jq -c --argjson offer "$offer" -n '[$ARGS.positional[] | {name: ., task_id: {value: .},
            agent_id: $offer.agent_id, command: {value: "echo hello"}, resources: [
            {name: "cpus", type: "SCALAR", scalar: {value: 0.1}},
            {name: "mem", type: "SCALAR", scalar: {value: 32}}]}]' --args "${names[@]}")
    fi
    # Without operations it declines.
    call "$(jq -c --argjson tasks "$tasks" '{type: "ACCEPT", accept: {offer_ids: [.id], operations:
        (if $tasks == [] then [] else [{type: "LAUNCH", launch: {task_infos: $tasks}}] end)}}' <<<"$offer")"
}

on_update() {
    local status=$1 name state
    name=$(jq -r .task_id.value <<<"$status")
    state=$(jq -r .state <<<"$status")
    jq -r '"\(.task_id.value): \(.state) \(.message // "")"' <<<"$status"
    if [ "$(jq 'has("uuid")' <<<"$status")" = true ]; then
        call "$(jq -c '{type: "ACKNOWLEDGE", acknowledge: {agent_id, task_id, uuid}}' <<<"$status")"
    fi
    case $state in TASK_STAGING | TASK_STARTING | TASK_RUNNING | TASK_KILLING) return ;; esac
    [ -n "${running[$name]:-}" ] || return 0
    unset "running[$name]"
    case $state in TASK_FINISHED | TASK_FAILED | TASK_ERROR) return ;; esac
    # It was lost, or its agent is cut off, perhaps for ever: another task says it.
    left=$((left + 1))
    call "$(jq -c '{type: "KILL", kill: {task_id}}' <<<"$status")"
    call '{"type": "REVIVE"}'
}

subscribe=$(jq -nc --arg user "$(id -un)" '{type: "SUBSCRIBE", subscribe: {framework_info: {user: $user,
    name: "hello.sh", failover_timeout: 60, capabilities: [{type: "PARTITION_AWARE"}]}}}')
# Records, each with its length before it.
exec 3< <(post -N -D "$headers" -d "$subscribe")
while read -r -u 3 length && read -r -u 3 -N "$length" event; do
    case $(jq -r .type <<<"$event") in
    SUBSCRIBED)
        framework=$(jq -r .subscribed.framework_id.value <<<"$event")
        stream=$(tr -d '\r' <"$headers" | sed -n 's/^[Mm]esos-[Ss]tream-[Ii]d: //p')
        ;;
    OFFERS)
        while read -r offer; do on_offer "$offer"; done < <(jq -c '.offers.offers[]' <<<"$event")
        ;;
    UPDATE) on_update "$(jq -c .update.status <<<"$event")" ;;
    ERROR)
        jq -r .error.message <<<"$event" >&2
        exit 1
        ;;
    esac
    if ((left == 0 && ${#running[@]} == 0)); then
        call '{"type": "TEARDOWN"}'
        exit 0
    fi
done
echo "the stream has ended" >&2
exit 1
