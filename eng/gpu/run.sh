#!/usr/bin/env bash
# The GPU run: builds, packs, and (on a machine with a GPU) tests and measures.
#   run.sh pack FOLDER          builds and writes headroom-gpu.tar.xz, and the golden files that exist, to FOLDER; needs the .NET SDK, no GPU
#   run.sh measure FOLDER OUT   unpacks FOLDER and runs: tests (golden files, the duel on both devices), single ops, whole steps of every row of the table;
#                               logs and CSVs into OUT; needs a GPU and the .NET runtime (DOTNET names its host); exits 1 when any of it failed
#   run.sh sanitize FOLDER OUT [TOOLS]  unpacks FOLDER and runs sanitize.sh: every kernel under compute-sanitizer; logs into OUT
# SECONDS_LEFT (default 600) bounds the whole of measure: what does not fit any more is named and left out, most important first.
set -uo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
case "${1:-}" in
pack)
  folder=$2
  stage=$(mktemp -d)
  trap 'rm -rf "$stage"' EXIT
  mkdir -p "$folder"
  for p in tests/Headroom.Cuda.Tests:tests bench/Headroom.Bench:bench; do
    dotnet build "$here/${p%%:*}" -c Release -v q --nologo || exit 1
    cp -r "$here/${p%%:*}/bin/Release/net10.0" "$stage/${p##*:}"
  done
  find "$stage" \( -name "*.pdb" -o -name "*.xml" \) -delete
  find "$stage" -mindepth 2 -maxdepth 2 -type d \( -name runtimes -o -name "linux-*" \) -exec rm -rf {} +
  golden=${HEADROOM_GOLDEN:-$here/../shared/golden}
  mkdir -p "$stage/golden/hf"
  for model in ${GOLDEN_MODELS:-llama3-rope mistral-window qwen2-bias}; do [ -d "$golden/hf/$model" ] && cp -r "$golden/hf/$model" "$stage/golden/hf/"; done
  for family in ${GOLDEN_FAMILIES:-qwen3 qwen3-window}; do
    [ -d "$golden/families/$family" ] && mkdir -p "$stage/golden/families" && cp -r "$golden/families/$family" "$stage/golden/families/"
  done
  [ -d "$here/../shared/data/configs" ] && cp -r "$here/../shared/data/configs" "$stage/configs"
  tar -C "$stage" -c . | xz -2 > "$folder/headroom-gpu.tar.xz"
  ls -l "$folder"
  ;;
measure)
  folder=$2 out=$3
  dotnet=${DOTNET:-dotnet}
  end=$(($(date +%s) + ${SECONDS_LEFT:-600}))
  left() { echo $((end - $(date +%s))); }
  app="$here/.gpu-run"
  mkdir -p "$app" "$out"
  tar -xJf "$folder/headroom-gpu.tar.xz" -C "$app" || exit 1
  failed=0
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  export HEADROOM_GOLDEN="$app/golden"
  llama="$app/configs/Llama-2-7b-hf/config.json"
  step() { # CONFIG:SHAPE:RECOMPUTE, seconds it needs at most
    if [ "$(left)" -lt "$2" ]; then echo "left out for want of time: $1"; return; fi
    timeout "$2" "$dotnet" "$app/bench/Headroom.Bench.dll" step-cuda "$1" --steps "${STEPS:-5}" --out "$out/cuda-step.csv" ${3:-} || { echo "failed: $1"; failed=1; }
  }
  if [ "$(left)" -gt 60 ]; then
    timeout "$(($(left) / 2))" "$dotnet" "$app/tests/Headroom.Cuda.Tests.dll" -noColor > "$out/tests.log" 2>&1 || { echo "failed: tests"; failed=1; }
    grep -E "\[FAIL\]|Total:" "$out/tests.log" | cut -c1-240
  fi
  step "$llama:4x512:0" 40 --profile
  step "$llama:16x512:0" 40 --profile
  step "$llama:1x4096:0" 40 --profile
  step "$llama:4x512:-1" 30
  step "$llama:4x2048:0" 40
  step "$llama:1x4096:-1" 30
  step "$llama:16x512:-1" 40
  if [ "$(left)" -gt 25 ]; then
    timeout 25 "$dotnet" "$app/bench/Headroom.Bench.dll" ops-cuda "$out/cuda-ops.csv" || { echo "failed: ops-cuda"; failed=1; }
  fi
  for graphs in "" --no-graphs; do
    step "$app/configs/SmolLM2-135M/config.json:16x256:0" 20 "$graphs"
    STEPS=100 step "$app/configs/SmolLM2-135M/config.json:16x512:0" 30 "--ragged --answers $graphs"
  done
  step "$app/configs/deepseek-llm-7b-base/config.json:4x512:0" 30
  rm -rf "$app"
  exit $failed
  ;;
sanitize)
  folder=$2 out=$3
  app="$here/.gpu-run"
  mkdir -p "$app" "$out"
  tar -xJf "$folder/headroom-gpu.tar.xz" -C "$app"
  "$here/eng/gpu/sanitize.sh" "$app/tests" "$out" ${4:+"$4"}
  code=$?
  rm -rf "$app"
  exit $code
  ;;
*)
  sed -n 2,7p "$0"
  exit 2
  ;;
esac
