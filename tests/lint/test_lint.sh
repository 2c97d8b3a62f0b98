#!/bin/bash
# The tree keeps every rule of lint.sh; and every rule can fail: a small tree that breaks it is found out.
set -u
lint=$PWD/tests/lint/lint.sh
tmp=${TEST_TMP:-$(mktemp -d)}

for rule in $("$lint" --rules); do
	found=$("$lint" "$rule" . 2>&1)
	if [ -z "$found" ]; then echo "ok $rule"; else echo "$found"; echo "not ok $rule"; fi
done

# good_tree: a tree in $tmp/tree that keeps every rule
good_tree() {
	rm -rf "$tmp/tree"
	mkdir -p "$tmp/tree"
	cd "$tmp/tree" || exit 1
	for folder in configs quant policy rollout trainer_bridge scheduler tests; do
		mkdir $folder
		echo "# $folder" >$folder/README.md
	done
	mkdir scheduler/ranks trainer_bridge/wire
	echo '# no -ffast-math here' >Makefile
	echo '#include "configs/err.h"' >quant/a.c
	printf '#include "policy/b.h"\n#include "quant/a.h"\n#include <math.h>\n' >policy/b.c
	echo '#include <mpi.h>' >scheduler/ranks/transport.c
	echo '#include <sqlite3.h>' >tests/query.c
}

# broken: every complaint about the tree as it is now, after the name of its rule
broken() {
	local rule
	for rule in $("$lint" --rules); do "$lint" "$rule" . 2>&1 | sed "s|^|$rule |"; done
}

# breaks RULE WHERE: the tree as it is now breaks this rule there, and no other
breaks() {
	local found
	found=$(broken)
	if [[ $found == "$1 $2"* && $found != *$'\n'* ]]; then echo "ok finds $1 in $2"
	else echo "expected one line beginning with $1 $2, found: $found"; echo "not ok finds $1 in $2"
	fi
	good_tree
}

good_tree
found=$(broken)
if [ -z "$found" ]; then echo "ok accepts a tree that keeps the rules"
else echo "$found"; echo "not ok accepts a tree that keeps the rules"
fi

echo '#include "policy/b.h"' >>quant/a.c;              breaks include_order quant/a.c:2:
echo '#  include "scheduler/x.h"' >rollout/c.h;        breaks include_order rollout/c.h:1:
echo '#include "tests/support/x.h"' >scheduler/c.c;    breaks include_order scheduler/c.c:1:
echo '#include "a.h"' >>quant/a.c;                     breaks include_order quant/a.c:2:
echo '#include <mpi.h>' >scheduler/ranks/r.c;          breaks library_headers scheduler/ranks/r.c:1:
echo '#include <uv.h>' >scheduler/loop.c;              breaks library_headers scheduler/loop.c:1:
echo '#include <msgpack.h>' >trainer_bridge/wire/m.h;  breaks library_headers trainer_bridge/wire/m.h:1:
echo '#  include <sqlite3.h>' >scheduler/top.c;        breaks library_headers scheduler/top.c:1:
echo '#include <openblas/cblas.h>' >policy/c.c;        breaks library_headers policy/c.c:1:
echo x >notes.txt;                                     breaks top_level notes.txt:1:
mkdir src && echo x >src/x.c;                          breaks top_level src:1:
echo 'CFLAGS = -O3 -ffast-math' >>Makefile;            breaks fast_math Makefile:2:
echo '#pragma GCC optimize("Ofast")' >>quant/a.c;      breaks fast_math quant/a.c:2:
rm policy/README.md;                                   breaks readme policy:1:
seq 601 >rollout/long.c;                               breaks length rollout/long.c:601:
echo '/* TODO: later */' >>policy/b.c;                 breaks leftovers policy/b.c:4:
echo '# FIXME' >>Makefile;                             breaks leftovers Makefile:2:
echo '#if 0' >>policy/b.c;                             breaks leftovers policy/b.c:4:
