#!/usr/bin/env bash
# compute-sanitizer over the kernels: memcheck and racecheck of the op tests, on a machine with a GPU and the CUDA toolkit.
#   sanitize.sh TESTS_FOLDER [OUT]      TESTS_FOLDER holds Headroom.Cuda.Tests.dll; OUT takes the logs
# dotnet is the host (DOTNET overrides); only test classes whose shapes are small run, because the tools slow kernels down a hundredfold.
set -uo pipefail
tests=$(cd "$1" && pwd)
out=${2:-.}
dotnet=${DOTNET:-dotnet}
limit=${LIMIT:-250}
command -v compute-sanitizer >/dev/null || export PATH="$PATH:/usr/local/cuda/bin"
command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer: install the CUDA toolkit"; exit 2; }
failed=0
for tool in memcheck racecheck; do
  for class in OpTests LinearTests AttentionTests; do
    log="$out/sanitize-$tool-$class.log"
    # One method of the linear tests is enough for its kernels: every rank and type would take an hour.
    pick=(-class "Headroom.Cuda.Tests.$class")
    [ "$class" = LinearTests ] && pick=(-method "*.DropoutMaskIsTheCpus" -method "*.QuantizedBitsAreTheCpus")
    timeout "$limit" compute-sanitizer --tool "$tool" --print-limit 5 --error-exitcode 9 "$dotnet" "$tests/Headroom.Cuda.Tests.dll" "${pick[@]}" -noColor > "$log" 2>&1
    code=$?
    summary=$(grep -E "ERROR SUMMARY|RACECHECK SUMMARY" "$log" | tail -1 | sed 's/=* *//')
    echo "$tool $class: exit $code; ${summary:-no summary (stopped after $limit s?)}"
    [ "$code" = 0 ] || failed=1
  done
done
exit $failed
