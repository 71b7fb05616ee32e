#!/usr/bin/env bash
# Everything that looks at a GPU, one step after the other, each with a limit; a step that fails stops no other.
#
# usage: bin/gpu_check.sh OUT      in the folder that `cmake --install build/cuda --component gpu_bundle` has made
#
# Writes what each step says to OUT/STEP.log and a table to OUT/table.txt and stdout. Exit code 1 if a step failed or was skipped.
set -uo pipefail
out=${1:?usage: gpu_check.sh OUT}
folder=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
export WIDELOAD_SOURCE_DIR=$folder/share/wideload CUDA_MODULE_LOADING=EAGER
mkdir -p "$out"
failed=0
: >"$out/table.txt"

step() { # NAME SECONDS COMMAND...
  local name=$1 limit=$2 begin=$SECONDS status result=ok
  shift 2
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  status=$?
  if [[ $status == 124 ]]; then result="took more than $limit s"; elif [[ $status != 0 ]]; then result="FAILED ($status)"; fi
  if [[ $status == 0 ]] && grep -q "not run on a GPU" "$out/$name.log"; then result=skipped; fi
  [[ $result == ok ]] || failed=1
  printf '%-28s %-24s %4d s\n' "$name" "$result" $((SECONDS - begin)) | tee -a "$out/table.txt"
}

answer() { # DEVICE: greedy tokens of a prompt
  "$folder/bin/wideload" generate --device "$1" "${@:2}" -m "$WIDELOAD_SOURCE_DIR/models/wideload-14m" --temperature 0 --max-tokens 48 --prompt "The pump must be"
}

same_answer() { # the same text on 1 and 4 ranks of the GPU; beside it what the processor says
  local one four
  answer cpu && one=$(answer cuda) && four=$(answer cuda --ep 4 --num-slots 72) || return 1
  printf '%s\n%s\n' "$one" "$four"
  [[ -n $one && $one == "$four" ]]
}

step doctor 30 "$folder/bin/wideload" doctor
step cuda_facts 60 "$folder/bin/cuda_facts"
step device 60 "$folder/bin/device_conformance_gpu_test"
step exchange 120 "$folder/bin/device_exchange_gpu_test"
step ops 300 "$folder/bin/ops_conformance_gpu_test"
step golden 300 "$folder/bin/golden_gpu_test"
step layouts 300 "$folder/bin/device_layouts_gpu_test"
export -f answer same_answer
export folder
step answer 120 bash -c same_answer
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    step "$tool" 300 compute-sanitizer --tool "$tool" --error-exitcode 9 "$folder/bin/ops_conformance_gpu_test" --gtest_filter='*MatMulAgrees*:*Attention*Agrees*:*Route*'
  done
fi
exit "$failed"
