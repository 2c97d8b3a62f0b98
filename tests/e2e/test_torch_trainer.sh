#!/bin/bash
# The PyTorch example: its forward and objectives by themselves, then a few steps on a real run, where the engine's
# log-probabilities and its own must agree.  `make run-torch` is the long version that learns.
set -u
DRUMROLL=${DRUMROLL:-build/drumroll}
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
python=''
for p in python3 /usr/bin/python3; do
	if [ -z "$python" ] && $p -c 'import torch, msgpack, numpy' 2>/dev/null; then python=$p; fi
done
if [ -z "$python" ]; then echo "skip PyTorch trainer no Python with torch, msgpack and numpy (Debian: python3-torch; make run-torch installs it)"; exit 0; fi

timeout 120 $python -B tests/e2e/torch_units.py "$DRUMROLL" "$TEST_TMP" >"$TEST_TMP/units" 2>&1 || echo "not ok torch_units.py ends well"
cat "$TEST_TMP/units"

timeout 280 mpirun -n 2 "$DRUMROLL" run configs/quickstart/run.yaml --set run.dir="$TEST_TMP/run" --set run.steps=3 \
	--set trainer.kind=external --set rollout.group_size=4 --set scheduler.groups_per_step=4 \
	--set eval.limit=32 --set eval.every=0 --set run.stall_seconds=240 >"$TEST_TMP/log" 2>&1 &
run=$!
timeout 250 $python -B trainer_bridge/python/examples/grpo_torch.py "unix:$TEST_TMP/run/bridge.sock" configs/quickstart \
	--threads 1 --minibatches 2 --metrics "$TEST_TMP/metrics" >"$TEST_TMP/said" 2>&1
trainer=$?
[ $trainer -eq 0 ] || kill $run 2>/dev/null
wait $run
status=$?
if [ $status -eq 0 ] && [ $trainer -eq 0 ]; then echo "ok run and PyTorch trainer end well"
else tail -n 20 "$TEST_TMP/log" "$TEST_TMP/said"; echo "not ok run ($status) and PyTorch trainer ($trainer) end well"; exit 1; fi
$python - "$TEST_TMP/metrics" <<-'PYTHON'
	import json, sys
	steps = [json.loads(line) for line in open(sys.argv[1])]
	worst = max(s["same_version/logprob_abs_diff"] for s in steps)
	error = max(s["same_version/token_mult_prob_error"] for s in steps)
	good = len(steps) == 3 and worst < 1e-4 and error < 1.0001 and all(s["same_version/fraction"] > 0.2 for s in steps)
	print(f"mean difference of log-probabilities {worst:.1e}, token_mult_prob_error {error:.7f}")
	print("ok" if good else "not ok", "engine and PyTorch agree on log-probabilities")
	good = all(s["rollout_corr/kl"] < 0.1 and s["grad_norm"] > 0 and s["tokens"] > 0 for s in steps)
	print("ok" if good else "not ok", "every step learns from its batch")
PYTHON
