# What all peers have in common: where they are installed, how they start pinned and stop. A peer's script sources this,
# defines NAME, DIALECT, settings, install, version, launch PORT and addresses PORT, and ends with `peer "$@"`:
#
#   NAME settings           what is set for speed, and where the documentation says so
#   NAME version            what is installed
#   NAME install            from public package registries into target/peers/NAME; Debian packages alone are system-wide
#   NAME start PORT CORE    on loopback, ports PORT to PORT+9; prints one line of JSON: pids, and how to reach it
#   NAME stop               ends what start began, and nothing else
set -euo pipefail

PEERS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$PEERS/../.." && pwd)
HOME_DIRECTORY=$ROOT/target/peers/$NAME
RUN=$HOME_DIRECTORY/run
# A slow start is one that takes this long to listen, in tenths of a second.
START_PATIENCE=150
# How long a server may take to end by itself, in tenths of a second; then it is killed.
STOP_PATIENCE=20

# Becomes the server: pinned, in a session of its own, by which its processes are found again.
serve() { exec setsid taskset -c "$CORE" "$@"; }

# Debian packages that are not there yet. Their services are not started: RUNLEVEL=1 tells invoke-rc.d so.
debian() {
  local missing=() package
  for package; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  [ ${#missing[@]} -eq 0 ] && return
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# npm packages of fixed versions, into the peer's directory.
npm_packages() { (cd "$HOME_DIRECTORY" && npm install --no-audit --no-fund --no-save --loglevel=error "$@" >&2); }

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

processes() {
  [ -s "$RUN/session" ] || return 0
  ps -o pid= -s "$(cat "$RUN/session")" | tr -d ' ' || true
}

start() {
  local port=$1 session left=$START_PATIENCE
  CORE=$2
  [ -z "$(processes)" ] || { echo "$NAME runs already" >&2; return 1; }
  for used in $(seq "$port" $((port + 9))); do
    ! listens "$used" || { echo "$NAME: port $used is taken" >&2; return 1; }
  done
  rm -rf "$RUN"
  mkdir -p "$RUN"
  ulimit -n "$(ulimit -Hn)"
  (cd "$RUN" && launch "$port") >"$RUN/log" 2>&1 </dev/null &
  session=$!
  echo "$session" >"$RUN/session"
  until ready "$port"; do
    sleep 0.1
    left=$((left - 1))
    if [ "$left" -eq 0 ] || ! kill -0 "$session" 2>/dev/null; then
      echo "$NAME did not start; the end of $RUN/log:" >&2
      tail -5 "$RUN/log" >&2
      stop
      return 1
    fi
  done
  settle
  printf '{"name":"%s","version":"%s","dialect":"%s",%s,"pids":[%s]}\n' \
    "$NAME" "$(version)" "$DIALECT" "$(addresses "$port")" "$(processes | paste -sd,)"
}

# Waits until no more processes come: a server may listen before its workers are there, and they are to be counted.
settle() {
  local before="" now
  now=$(processes)
  while [ "$now" != "$before" ]; do
    before=$now
    sleep 0.2
    now=$(processes)
  done
}

# A peer with more than one port defines this again.
ready() { listens "$1"; }

stop() {
  local left=$STOP_PATIENCE pids
  pids=$(processes)
  [ -n "$pids" ] && kill $pids 2>/dev/null
  while pids=$(processes) && [ -n "$pids" ]; do
    sleep 0.1
    left=$((left - 1))
    [ "$left" -gt 0 ] || kill -KILL $pids 2>/dev/null || true
  done
  rm -f "$RUN/session"
}

peer() {
  case "${1:-}" in
  settings) settings ;;
  install) mkdir -p "$HOME_DIRECTORY" && install && version ;;
  version) version ;;
  start) [ $# -eq 3 ] || { echo "usage: $NAME start PORT CORE" >&2; return 2; }; start "$2" "$3" ;;
  stop) stop ;;
  *) echo "usage: $NAME settings | install | version | start PORT CORE | stop" >&2; return 2 ;;
  esac
}
