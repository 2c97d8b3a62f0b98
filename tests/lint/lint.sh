#!/bin/bash
# tests/lint/lint.sh RULE [ROOT]: print what breaks the rule below ROOT, one "path:line: what" per line;
# nothing printed means that the rule holds.  `lint.sh --rules` lists the rules.
set -u
folders=(configs quant policy rollout trainer_bridge scheduler tests)
rules='include_order library_headers top_level fast_math readme length leftovers'
[ "${1:-}" != --rules ] || { echo "$rules"; exit 0; }
rule=${1:?usage: lint.sh RULE [ROOT]}
cd "${2:-.}" || exit 2

# Every file of the tree: as git knows it, or all there is where this is no checkout.
files() {
	git ls-files -co --exclude-standard 2>/dev/null | grep . ||
	find . -type f -not -path './build/*' -not -path './.git/*' | sed 's|^\./||'
}

# sources REGEX: files whose path matches and that are still there
sources() {
	files | grep -E "$1" | while read -r path; do [ ! -f "$path" ] || echo "$path"; done
}

rank() {
	local i
	for i in "${!folders[@]}"; do [ "${folders[i]}" != "$1" ] || { echo "$i"; return; }; done
	echo none
}

# A file includes its own folder and those before it, by full path.
include_order() {
	local path line rest own other
	grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' $(sources '\.(c|h|def)$') /dev/null |
	while IFS=: read -r path line rest; do
		rest=${rest#*\"}
		own=$(rank "${path%%/*}") other=$(rank "${rest%%/*}")
		if [ "$other" = none ]; then
			echo "$path:$line: \"${rest%%\"*}\" is not a path from the top, as in \"configs/err.h\""
		elif [ "$own" = none ] || [ "$other" -gt "$own" ]; then
			echo "$path:$line: includes ${rest%%/*}, which comes after ${path%%/*}"
		fi
	done
}

# A library's header is known to one .c/.h pair (or the few files named here); tests may use any.
library_headers() {
	local header allowed include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]([a-z]+/)?'
	while read -r header allowed; do
		grep -nE "$include$header\.h[>\"]" $(sources '\.(c|h)$') /dev/null | grep -vE "^(tests/|$allowed:)" |
		sed -E "s|^([^:]*:[0-9]+):.*|\1: <$header.h> belongs to ${allowed//\\/} alone|"
	done <<-'TABLE'
		mpi scheduler/ranks/transport\.[ch]
		uv trainer_bridge/server/server[a-z_]*\.[ch]
		msgpack trainer_bridge/wire/message\.c
		sqlite3 scheduler/store/store[a-z_]*\.[ch]
		cblas trainer_bridge/trainer/[a-z_]+\.[ch]
	TABLE
}

top_level() {
	local known="$(IFS='|'; echo "${folders[*]}")|Makefile|README\.md|LICENSE|\..*"
	files | cut -d/ -f1 | sort -u | grep -vxE "$known" | sed 's/$/:1: does not belong at the top level/'
}

fast_math() {
	grep -nE -- '-f(fast-math|unsafe-math|associative-math|finite-math)|-Ofast' Makefile /dev/null |
	grep -vE '^Makefile:[0-9]+:[[:space:]]*#' |
	sed -E 's/^(Makefile:[0-9]+):.*/\1: a flag that changes results/'
	grep -nE '(pragma|optimize).*(fast-math|unsafe-math|Ofast)' $(sources '\.(c|h)$') /dev/null |
	sed -E 's/^([^:]*:[0-9]+):.*/\1: an option that changes results/'
}

readme() {
	local folder
	for folder in "${folders[@]}"; do [ -f "$folder/README.md" ] || echo "$folder:1: has no README.md"; done
}

length() {
	wc -l $(sources '\.(c|h|py|sh)$') /dev/null |
	awk '$2 != "total" && $1 > 600 { print $2 ":" $1 ": longer than 600 lines" }'
}

leftovers() {
	grep -nE '\b(TODO|FIXME)\b|^[[:space:]]*#[[:space:]]*if[[:space:]]+0\b' /dev/null \
		$(sources '(\.(c|h|def|py|sh|md)|Makefile)$' | grep -v '^tests/lint/') |
	sed -E 's/^([^:]*:[0-9]+):.*/\1: left over/'
}

case " $rules " in *" $rule "*) "$rule" ;; *) echo "lint.sh: unknown rule $rule" >&2; exit 2 ;; esac
