#!/usr/bin/env bash
# Compiles every kernel to PTX with clang, without a GPU and without CUDA headers, for each architecture and activation type.
set -euo pipefail
cd "$(dirname "$0")/../../src/Headroom.Cuda/Kernels"
clang=${CLANG:-clang-16}
command -v "$clang" >/dev/null || { echo "no $clang: kernels not checked"; exit 0; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# The sources that are made of host code.
dotnet run --project ../../../bench/Headroom.Bench -c Release -v q -- kernel-headers "$out"
n=0
for arch in ${ARCHS:-75 80 90}; do
  for file in *.cu; do
    for act in 0 1 2; do
      case "$file:$act" in quantize.cu:[12] | optimizer.cu:[12] | lora*.cu:0 | flash*.cu:0) continue ;; esac
      case "$file:$arch:$act" in lora*.cu:75:* | flash*.cu:75:* | flash_hopper*.cu:80:*) continue ;; esac
      # The define says sm_90a, which this clang does not know: the C++ is checked, the text of the instructions is not.
      cat ../../../eng/gpu/cuda-shim.h common.cuh "$file" > "$out/k.cu"
      ptx=$([ "$arch" = 90 ] && echo ptx78 || echo ptx70)
      "$clang" -fno-caret-diagnostics -x cuda --cuda-device-only -nocudainc -nocudalib -std=c++17 -O2 -Xclang -target-feature -Xclang "+$ptx" --cuda-gpu-arch="sm_$arch" \
        -I. -I"$out" -D__CUDA_ARCH_FEAT_SM90_ALL=1 -DACT="$act" -DRANK=16 -DHEAD=128 -Wall -Wno-unknown-cuda-version -Wno-unused-function -Wno-pass-failed -S -o "${KEEP:-$out}/$file.$arch.$act.ptx" "$out/k.cu"
      n=$((n + 1))
    done
  done
done
echo "$n kernel files compiled"
