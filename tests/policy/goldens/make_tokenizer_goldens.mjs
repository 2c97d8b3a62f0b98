// Goldens for test_tokenizer_goldens.c, from the reference implementation.
//
//   npm install tokenizers@0.23.2     (in any folder, with this script copied there)
//   node make_tokenizer_goldens.mjs DATA_DIR OUT_DIR
//
// DATA_DIR holds models/ and tokenizers/ as downloaded; OUT_DIR is this folder.  One file per tokenizer:
// the ids of each text without and with special tokens, and the text that the ids decode to (U+FFFD for
// what is not UTF-8).
import fs from 'node:fs';
import path from 'node:path';
import {createRequire} from 'node:module';
const {Tokenizer} = createRequire(import.meta.url)('tokenizers');

const [data, out] = process.argv.slice(2);

const texts = [
  '', ' ', 'a', 'Hello, world!', ' leading and trailing ', 'two  spaces   three    four', '\n', '\n\n\n', '\t\t\ttabs\r\nand\rreturns\n',
  'trailing newline\n', 'space then newline \n \n  x', "I'm, you're, it's, we've, he'd, they'll, DON'T, O'Brien", "'S 'T 'RE 'LL",
  '0 1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9', '٣٤٥ ½ Ⅷ ① ² 三',
  'Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n#### 72',
  'def f(x):\n    return {k: v for k, v in x.items() if v != None}  # comment\n',
  '#include <stdio.h>\nint main(void) { printf("%d\\n", 1 << 3); return 0; }',
  'SELECT * FROM t WHERE a >= 1 AND b <> \'x\'; -- done', '$\\frac{a}{b} = \\sqrt{2}$ \\boxed{42}',
  'Größe, naïve café, Ærøskøbing, İstanbul, ﬁ ﬂ', 'e\u0301 A\u030a \u212b \u1e9b\u0323', 'Съешь ещё этих мягких французских булок',
  'שלום עולם', 'السلام عليكم', 'नमस्ते दुनिया', 'สวัสดีชาวโลก', 'こんにちは、世界。カタカナ', '你好，世界！今天天气怎么样？', '안녕하세요 세계', '한글',
  '😀 😃👍🏽 👨‍👩‍👧‍👦 🇩🇪🇯🇵 ❤️', '\u{1d54f}\u{20000}\u{1f9ff}', 'zero\u200bwidth\u200djoin\ufeffbom\u00a0nbsp\u3000wide\u2028line\u0085nel\u180emvs',
  '\u0000\u0001\u0007\u001b[0m\u007f', '_under__score_ -dash--— …', 'ĠGPT2 Ċ alphabet ġ ÿ', '▁meta▁▁space ▁', '<0x41><0xFF> <unk>',
  '<s>bos at the start', 'mid <s> text </s> end', 'no<s>space</s>', '<|endoftext|>', 'a<|endoftext|>b <|endoftext|> c',
  '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n', '<|im_start|', '<tool_call>{"name": "f"}</tool_call>', '<|fim_prefix|>a<|fim_suffix|>',
  'a'.repeat(70), ' '.repeat(70), 'ab'.repeat(40), '!?'.repeat(30), '\n'.repeat(20) + 'x', 'é'.repeat(30), '1'.repeat(33),
];

// Ids that cut characters apart, for decoding alone.
const pick = (n, size) => Array.from({length: n}, (_, i) => (i * 7919 + n * 104729) % size);

async function tokenizerGolden(folder) {
  const tokenizer = Tokenizer.fromFile(path.join(data, folder, 'tokenizer.json'));
  const size = tokenizer.getVocabSize(true);
  const cases = [], decodes = [];
  for (const text of texts) {
    const ids = (await tokenizer.encode(text, null, {addSpecialTokens: false})).getIds();
    const special = (await tokenizer.encode(text, null, {addSpecialTokens: true})).getIds();
    cases.push({text, ids, special, decoded: await tokenizer.decode(ids, false)});
  }
  for (let n = 1; n <= 12; n++) {
    const ids = pick(n, size);
    decodes.push({ids, decoded: await tokenizer.decode(ids, false)});
  }
  return {tokenizer: folder, made_by: 'make_tokenizer_goldens.mjs with tokenizers 0.23.2', cases, decodes};
}

// One element of each list to a line.
const lines = (list) => '[\n' + list.map((item) => JSON.stringify(item)).join(',\n') + '\n]';
const write = (name, fields) => fs.writeFileSync(path.join(out, name), '{\n' + Object.entries(fields)
  .map(([key, value]) => JSON.stringify(key) + ': ' + (Array.isArray(value) ? lines(value) : JSON.stringify(value)))
  .join(',\n') + '\n}\n');
for (const folder of ['models/minimind2-small', 'models/stories15M', 'tokenizers/gpt2', 'tokenizers/qwen2.5'])
  write(`tokenizer_${path.basename(folder)}.json`, await tokenizerGolden(folder));
