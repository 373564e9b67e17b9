#!/usr/bin/env bash
# All kills, signals and schedules of eng/soak/README.md; the argument is the seed of the instants.
set -euo pipefail
cd "$(dirname "$0")/../.."
export HEADROOM_SOAK=1 HEADROOM_SOAK_SEED="${1:-1}"
for project in Headroom.Tests Headroom.EndToEnd; do dotnet build -c Release -v q --nologo -clp:NoSummary "tests/$project"; done
tests/Headroom.Tests/bin/Release/net10.0/Headroom.Tests -class '*.FaultScheduleTests' -noLogo -showLiveOutput
tests/Headroom.EndToEnd/bin/Release/net10.0/Headroom.EndToEnd -class '*.SoakTests' -noLogo -showLiveOutput
