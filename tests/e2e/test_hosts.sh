#!/bin/bash
# A cluster of two hosts, which are network namespaces of this machine: a controller and workers on one, workers on the
# other, TCP between them; a link with delay and loss, and one that is cut and restored.  Needs the privilege to make
# namespaces, and skips without.
set -u
DRUMROLL=$(realpath "${DRUMROLL:-build/drumroll}")
TEST_TMP=${TEST_TMP:-$(mktemp -d)}
name=roll$$ net=10.203.$((RANDOM % 250 + 1))

skip_all() { echo "skip two hosts: $1"; exit 0; }
for tool in ip mpirun; do command -v $tool >/dev/null || skip_all "no $tool (Debian: iproute2, mpich)"; done
[ "$(id -u)" = 0 ] || skip_all "network namespaces are for root"
ip netns add "${name}1" 2>"$TEST_TMP/ip.log" || skip_all "no network namespaces here: $(head -n 1 "$TEST_TMP/ip.log")"
trap 'ip netns del "${name}1"; ip netns del "${name}2" 2>/dev/null' EXIT
ip netns add "${name}2"
ip link add roll0 netns "${name}1" type veth peer name roll0 netns "${name}2" 2>"$TEST_TMP/ip.log" ||
	skip_all "no veth pair here: $(head -n 1 "$TEST_TMP/ip.log")"
for i in 1 2; do
	ip -n "$name$i" addr add "$net.$i/24" dev roll0
	ip -n "$name$i" link set roll0 up
	ip -n "$name$i" link set lo up
done
link() { ip -n "${name}1" link set roll0 "$1"; }
reachable() { # a link that has just come up refuses connections for a moment
	for _ in $(seq 50); do ip netns exec "${name}1" bash -c "echo >/dev/tcp/$net.2/9" 2>&1 | grep -q refused && break; sleep 0.1; done
}
reachable

# Stands in for ssh: ... ADDRESS COMMAND
cat >"$TEST_TMP/remote" <<SH
#!/bin/bash
while [ "\${1#-}" != "\$1" ]; do shift; done
host=\$1; shift
exec ip netns exec "$name\${host##*.}" bash -c "\$*"
SH
chmod +x "$TEST_TMP/remote"

# run NAME "HOST:RANKS ..." [--set ...]: five ranks; all that is opened is delivered
run() {
	local run=$1 hosts=$2; shift 2
	printf '%s\n' $hosts >"$TEST_TMP/hosts"
	ip netns exec "${name}1" env UCX_TLS=tcp,self UCX_NET_DEVICES=roll0 HYDRA_LAUNCHER=ssh HYDRA_LAUNCHER_EXEC="$TEST_TMP/remote" \
		timeout 150 "$DRUMROLL" launch -n 5 --hostfile "$TEST_TMP/hosts" configs/quickstart/run.yaml \
		--set run.dir="$TEST_TMP/$run" --set data.eval_prompts= --set rollout.group_size=4 --set scheduler.groups_per_step=6 \
		--set scheduler.over_sampling=1 --set advantage.drop_degenerate=false --set worker.max_active=6 \
		--set cluster.silence_seconds=1 --set cluster.controller_seconds=30 --set trainer.threads=1 "$@" \
		>"$TEST_TMP/$run.log" 2>&1
	local status=$?
	[ $status -eq 0 ] || { tail -n 5 "$TEST_TMP/$run.log"; echo "not ok $run: the run ends with $status"; return 1; }
	"$DRUMROLL" export "$TEST_TMP/$run" --stable --out "$TEST_TMP/$run.jsonl" >/dev/null
}
same() {
	if [ -s "$TEST_TMP/$1.jsonl" ] && cmp -s "$TEST_TMP/$1.jsonl" "$TEST_TMP/$2.jsonl"; then echo "ok $3"; else echo "not ok $3"; fi
}
both="$net.1:3 $net.2:2"

run one "$net.1:5" --set run.steps=20
run two "$both" --set run.steps=20 && same two one "two hosts: the same bits as on one"

if command -v tc >/dev/null && tc -n "${name}1" qdisc add dev roll0 root netem delay 5ms 2ms loss 1% 2>"$TEST_TMP/tc.log"; then
	run lossy "$both" --set run.steps=20 && same lossy one "a link with 5 ms of delay and 1 % of loss: the same bits"
	tc -n "${name}1" qdisc del dev roll0 root
else
	echo "skip a link with delay and loss: no netem here: $(head -n 1 "$TEST_TMP/tc.log" 2>/dev/null)"
fi

run flicker "$both" --set run.steps=20 --set cluster.silence_seconds=5 &
for _ in $(seq 300); do [ -s "$TEST_TMP/flicker/metrics.jsonl" ] && break; sleep 0.1; done
for _ in 1 2 3 4 5 6; do link down; sleep 0.1; link up; sleep 0.3; done
wait
reachable
same flicker one "a link that loses everything for moments: the same bits"

run cut "$both" --set run.steps=16 &
for _ in $(seq 300); do [ -s "$TEST_TMP/cut/metrics.jsonl" ] && break; sleep 0.1; done
link down
sleep 3
link up
wait
run whole "$net.1:5" --set run.steps=16
events() { grep -c "\"event\":\"$1\"" "$TEST_TMP/cut/events.jsonl" 2>/dev/null; }
if [ "$(events lost)" -ge 2 ]; then echo "ok a link is cut: the workers behind it are given up"; else echo "not ok a link is cut: $(events lost) workers given up"; fi
if [ "$(events back)" -ge 2 ]; then echo "ok and restored: they are taken back in"; else echo "not ok and restored: $(events back) workers taken back in"; fi
same cut whole "and not a bit is other than without"
