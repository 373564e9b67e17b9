#!/usr/bin/env bash
# Runs the README's commands as a newcomer would: in a fresh clone, one after the other, from the fenced blocks of README.md.
# Left out, by name: dotnet test (what calls this ran it) and commands that need the network (a block that begins with "# needs the hub").
set -uo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
clone=$(mktemp -d)
trap 'rm -rf "$clone"' EXIT
git clone -q "file://$here" "$clone/headroom" || exit 1
cd "$clone/headroom" || exit 1
export HEADROOM_CACHE="$clone/cache" HF_HOME="$clone/hf" HF_ENDPOINT=http://127.0.0.1:1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
failed=0 ran=0
while IFS= read -r line; do
  case "$line" in
    hub:*) echo "README: not run, it needs the hub: ${line#hub:}"; continue ;;
    "dotnet test"*) continue ;;
  esac
  if bash -c "$line" > "$clone/log" 2>&1; then
    echo "README: $line: $(tail -n 1 "$clone/log")"
    ran=$((ran + 1))
  else
    echo "README: failed ($?): $line"
    tail -n 20 "$clone/log"
    failed=1
  fi
done < <(awk '/^```/ { inside = !inside; hub = 0; next } inside && /^# needs the hub/ { hub = 1; next } inside && NF && !/^#/ { print (hub ? "hub:" : "") $0 }' README.md)
[ "$ran" -gt 0 ] || { echo "README: no command was found"; failed=1; }
exit $failed
