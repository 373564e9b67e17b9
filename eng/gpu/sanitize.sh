#!/usr/bin/env bash
# compute-sanitizer over every kernel, on a machine with a GPU and the CUDA toolkit: one test class that launches each at least once, and fails if it does not.
#   sanitize.sh TESTS_FOLDER [OUT] [TOOLS]   TESTS_FOLDER holds Headroom.Cuda.Tests.dll; OUT takes the logs; TOOLS is "memcheck racecheck" by default
#                                            (racecheck sees shared memory only; initcheck and synccheck may be named too)
# dotnet is the host (DOTNET overrides). The class runs alone first: a failure of its own is seen, and the kernels are compiled before a tool watches.
# Then each test by itself (METHODS names fewer), so that one that is slow under a tool loses no other's result: on an H100 memcheck takes 3 to 5 s each,
# racecheck 3 to 46 s, but Adapters 140 and MicroSteps 320; two at once on one card take far longer.
# LIMIT: seconds for each run.
set -uo pipefail
tests=$(cd "$1" && pwd)
out=${2:-.}
tools=${3:-memcheck racecheck}
dotnet=${DOTNET:-dotnet}
limit=${LIMIT:-500}
class=Headroom.Cuda.Tests.EveryKernelTests
methods=${METHODS:-DoraAndDropout ElementsNormsLossOptimizer Storages Adapters AdaptersOfAFullCard AdaptersOfAnMlp Attention MicroSteps}
mkdir -p "$out"
command -v compute-sanitizer >/dev/null || export PATH="$PATH:/usr/local/cuda/bin"
command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer: install the CUDA toolkit"; exit 2; }
help=$(compute-sanitizer --help 2>&1)
failed=0
# NAME, then the command: runs it and says whether it was clean, which is: it ended well, nothing was skipped for want of a device, and the tool said so.
check() {
  local name=$1 log="$out/sanitize-$1.log" start total summary code good=no
  shift
  start=$(date +%s)
  # Each line with the second it came at: which case is slow under the tool is seen.
  timeout "$limit" "$@" -noColor -reporter verbose 2>&1 | while IFS= read -r line; do printf '%5d %s\n' "$(($(date +%s) - start))" "$line"; done > "$log"
  code=${PIPESTATUS[0]}
  total=$(grep -oE "Total: [0-9]+.*Skipped: [0-9]+" "$log" | tail -1)
  summary=$(grep -E "(ERROR|RACECHECK) SUMMARY" "$log" | tail -1 | sed 's/=* *//')
  [ "$code" = 0 ] && [[ "$total" == *"Skipped: 0" && "$total" != "Total: 0,"* ]] && { [ "$name" = none ] || [ -n "$summary" ]; } && good=yes
  echo "$name: $([ $good = yes ] && echo clean || echo "NOT CLEAN, exit $code"), $(($(date +%s) - start)) s; ${total:-no tests ended (limit $limit s)}; ${summary:-no summary}"
  [ $good = yes ] || failed=1
}
check none "$dotnet" "$tests/Headroom.Cuda.Tests.dll" -class "$class"
for tool in $tools; do
  watch=(compute-sanitizer --tool "$tool" --print-limit 20 --error-exitcode 9)
  # Room behind every allocation, so that a step past one does not land in the next.
  [ "$tool" = memcheck ] && [[ "$help" == *--padding* ]] && watch+=(--padding 256)
  # No filter of kernels: cuBLASLt's take most of racecheck's time, but with any --kernel-name or --kernel-name-exclude that racecheck (2025.3.1, H100) ends in
  # "Internal Sanitizer Error: failed to handle a hardware exception" at the first kernel on tensor cores, where it is clean without.
  for method in $methods; do
    check "$tool-$method" "${watch[@]}" "$dotnet" "$tests/Headroom.Cuda.Tests.dll" -method "$class.$method"
  done
done
exit $failed
