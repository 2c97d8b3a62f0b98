// Goldens for test_tokenizer.c and test_chat.c, from the reference implementations.
//
//   npm install tokenizers@0.23.2 @huggingface/jinja@0.5.11     (in any folder, with this script copied there)
//   node make_tokenizer_goldens.mjs DATA_DIR OUT_DIR
//
// DATA_DIR holds models/ and tokenizers/ as downloaded; OUT_DIR is this folder.  One file per tokenizer:
// the ids of each text without and with special tokens, and the text that the ids decode to (U+FFFD for
// what is not UTF-8).  chat_templates.json: what each template renders; of templates in DATA_DIR the folder
// is kept, not the text.
import fs from 'node:fs';
import path from 'node:path';
import {createRequire} from 'node:module';
import {Template} from '@huggingface/jinja';
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

const chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const defined = '{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}';
const withSystem = (text) => "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n" + text + "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
const zephyr = "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}";
const llama3 = "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";
const fromConfig = (folder) => JSON.parse(fs.readFileSync(path.join(data, folder, 'tokenizer_config.json'))).chat_template;
const templates = [
  {name: 'chatml', template: chatml},
  {name: 'chatml with default', template: defined + chatml},
  {name: 'smollm2', template: withSystem('You are a helpful AI assistant named SmolLM, trained by Hugging Face')},
  {name: 'smollm2, newlines escaped', template: withSystem('You are a helpful AI assistant named SmolLM, trained by Hugging Face').replaceAll('\n', '\\n')},
  {name: 'qwen2', template: withSystem('You are a helpful assistant.')},
  {name: 'qwen2.5', folder: 'tokenizers/qwen2.5'},
  {name: 'minimind2', folder: 'models/minimind2-small'},
  {name: 'tinyllama', template: zephyr, eos_token: '</s>'},
  {name: 'llama3', template: llama3, bos_token: '<|begin_of_text|>'},
];

const user = {role: 'user', content: '  What is 2+2? 你好 \n'}, system = {role: 'system', content: 'Be "brief".'};
const conversations = [
  [user], [system, user], [system],
  [user, {role: 'assistant', content: '4'}, {role: 'user', content: 'Why?\n\nSay.'}],
  [user, system, user], [system, user, {role: 'assistant', content: ''}, {role: 'user', content: "It's <|im_end|>"}],
];

function chatGolden({name, template, folder, bos_token = '', eos_token = ''}) {
  const compiled = new Template(template ?? fromConfig(folder));
  const cases = conversations.map((messages) => ({
    messages, text: compiled.render({messages, bos_token, eos_token, add_generation_prompt: true}),
  }));
  return {name, template, folder, bos_token, eos_token, cases};
}

// One element of each list to a line.
const lines = (list) => '[\n' + list.map((item) => JSON.stringify(item)).join(',\n') + '\n]';
const write = (name, fields) => fs.writeFileSync(path.join(out, name), '{\n' + Object.entries(fields)
  .map(([key, value]) => JSON.stringify(key) + ': ' + (Array.isArray(value) ? lines(value) : JSON.stringify(value)))
  .join(',\n') + '\n}\n');
for (const folder of ['models/minimind2-small', 'models/stories15M', 'tokenizers/gpt2', 'tokenizers/qwen2.5'])
  write(`tokenizer_${path.basename(folder)}.json`, await tokenizerGolden(folder));
write('chat_templates.json', {made_by: 'make_tokenizer_goldens.mjs with @huggingface/jinja 0.5.11', templates: templates.map(chatGolden)});
