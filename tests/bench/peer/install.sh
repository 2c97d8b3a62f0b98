#!/bin/bash
# tests/bench/peer/install.sh DIR: llama.cpp's prebuilt libraries, as node-llama-cpp ships them, and the headers of the
# same release, below DIR; then DIR/theirs.  Does nothing that was done.
set -eu
here=$(cd "$(dirname "$0")" && pwd) dir=$1
for tool in npm git; do
	command -v $tool >/dev/null || { echo "bench-peer: needs $tool, which installs the peer: apt-get install npm git" >&2; exit 1; }
done
mkdir -p "$dir"
if ! cmp -s "$here/package.json" "$dir/package.json" || [ ! -d "$dir/include" ]; then
	rm -rf "$dir/node_modules" "$dir/llama.git" "$dir/include" "$dir/package.json"
	echo "bench-peer: installing node-llama-cpp (some 90 MB)" >&2
	cp "$here/package.json" "$dir/package.part"
	mkdir -p "$dir/install" && cp "$here/package.json" "$dir/install/package.json"
	(cd "$dir/install" && npm install --ignore-scripts --omit=dev --omit=optional --no-audit --no-fund --no-package-lock \
		>"../npm.log" 2>&1) || { tail -n 20 "$dir/npm.log" >&2; exit 1; }
	mv "$dir/install/node_modules" "$dir/node_modules" && rm -rf "$dir/install"
	git clone -q --bare "$dir/node_modules/node-llama-cpp/llama/gitRelease.bundle" "$dir/llama.git"
	mkdir -p "$dir/include"
	for header in include/llama.h $(git -C "$dir/llama.git" ls-tree --name-only HEAD ggml/include/); do
		git -C "$dir/llama.git" show "HEAD:$header" >"$dir/include/${header##*/}"
	done
	mv "$dir/package.part" "$dir/package.json"
fi
libs=$(cd "$dir/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64" && pwd)
if [ ! -x "$dir/theirs" ] || [ "$here/theirs.c" -nt "$dir/theirs" ] || [ "$here/turns.h" -nt "$dir/theirs" ]; then
	gcc -std=c11 -D_POSIX_C_SOURCE=200809L -O2 -Wall -Wextra -I"$here/../../.." -I"$dir/include" -DBACKEND_DIR="\"$libs\"" "$here/theirs.c" \
		-L"$libs" -Wl,-rpath,"$libs" "$libs"/libllama.v*.so "$libs"/libggml.v*.so "$libs"/libggml-base.so -o "$dir/theirs"
fi
