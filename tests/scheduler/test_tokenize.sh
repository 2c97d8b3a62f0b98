#!/bin/bash
# `drumroll tokenize` as a person meets it: ids, texts, special tokens and refusals.
set -u
out=$TEST_TMP/out err=$TEST_TMP/err model=$TEST_TMP/model
mkdir -p "$model"
cat >"$model/tokenizer.json" <<'JSON'
{"added_tokens": [{"id": 4, "content": "<s>", "special": true}], "decoder": {"type": "ByteLevel"},
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
 "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
                    "special_tokens": {"<s>": {"ids": [4]}}},
 "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ã": 3}, "merges": ["a b"]}}
JSON

echo '{"model": {"type": "Unigram", "vocab": []}}' >"$TEST_TMP/unigram.json"

# good NAME INPUT OUTPUT ARGUMENTS...
good() {
	local name=$1 input=$2 output=$3
	shift 3
	printf '%s\n' "$input" | "$DRUMROLL" tokenize --model "$model" "$@" >"$out" 2>"$err" &&
		[ "$(cat "$out")" = "$output" ] && [ ! -s "$err" ]
	if [ $? -eq 0 ]; then echo "ok $name"; else echo "not ok $name"; fi
	cat "$out" "$err"
}

# bad NAME STATUS INPUT PATTERN ARGUMENTS...: exit status, and a line on stderr that matches
bad() {
	local name=$1 status=$2 input=$3 pattern=$4
	shift 4
	printf '%s\n' "$input" | "$DRUMROLL" tokenize "$@" >"$out" 2>"$err"
	[ $? -eq "$status" ] && grep -q -e "$pattern" "$err"
	if [ $? -eq 0 ]; then echo "ok $name"; else echo "not ok $name"; fi
	cat "$out" "$err"
}

good "a line of ids for each text" $'"aba"\n""\n"b<s>"' $'[2,0]\n[]\n[1,4]'
good "special tokens on request" '"ab"' '[4,2]' --special
good "ids back to text" $'[2,0,4]\n[]' $'"aba<s>"\n""' --decode
good "special tokens left out" '[4,2]' '"ab"' --decode --skip-special
good "a character without a token is dropped" '"abc"' '[2]'
good "NUL, a surrogate pair, an escape" $'"a\\u0000b\\ud83d\\ude00\\n"' '[0,1]'
good "the file itself" '"ab"' '[2]' --model "$model/tokenizer.json"
good "bytes that are not UTF-8 are shown as U+FFFD" '[0,3,0]' $'"a\xEF\xBF\xBDa"' --decode
bad "no model given" 2 '""' '--model DIR is missing'
bad "an unknown option" 2 '""' "unexpected argument '--modle'" --modle "$model"
bad "no tokenizer there" 1 '""' 'tokenizer.json is missing' --model "$TEST_TMP"
bad "bytes that are not UTF-8" 1 $'"\xFF"' 'line 1: not JSON' --model "$model"
bad "half a surrogate pair" 1 '"\ud800"' 'line 1: not JSON' --model "$model"
bad "not JSON" 1 'abc' 'line 1: not JSON' --model "$model"
bad "not a string" 1 '[1]' 'line 1: expected a JSON string' --model "$model"
bad "another model" 1 '""' 'model type "Unigram" is not supported' --model "$TEST_TMP/unigram.json"
bad "not an id" 1 '[-1]' 'line 1: element 0 is not a token id' --model "$model" --decode
