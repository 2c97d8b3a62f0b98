// Goldens for test_tokenizer_variants.c and test_tokenizer_unicode.c, from the reference implementation.
//
//   npm install tokenizers@0.23.2                               (in any folder, with this script copied there)
//   node make_tokenizer_variants.mjs OUT_DIR
//
// OUT_DIR is this folder.  tokenizer_variants.json: small tokenizers made up here, one for every family and
// option, each a change to one of two models, with the ids of some texts without and with special tokens
// (where they differ) and what the ids decode to (where it is not the text).  tokenizer_unicode.json: what the
// implementation takes every code point for, as one hash (FNV-1a, 32 bits) per 4096 of them.
import fs from 'node:fs';
import path from 'node:path';
import {createRequire} from 'node:module';
const {Tokenizer} = createRequire(import.meta.url)('tokenizers');

const out = process.argv[2];
const made_by = 'make_tokenizer_variants.mjs with tokenizers 0.23.2';

// ---- models ----

const byteCode = Array.from({length: 256}, () => '');
for (let byte = 0, next = 256; byte < 256; byte++) {
  const plain = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  byteCode[byte] = String.fromCodePoint(plain ? byte : next++);
}
const asBytes = (text) => [...Buffer.from(text)].map((byte) => byteCode[byte]);

// A vocabulary with the merges that make the words, each left to right.
function grow(vocab, words) {
  const merges = [];
  for (const characters of words)
    for (let n = 2; n <= characters.length; n++) {
      const left = characters.slice(0, n - 1).join(''), right = characters[n - 1];
      if (vocab[left + right] === undefined) {
        vocab[left + right] = Object.keys(vocab).length;
        merges.push([left, right]);
      }
    }
  return merges;
}
const words = ['hello', ' hello', ' world', 'the', ' the', "'s", "'ll", '12', '123', '  ', '   ', '\n\n', '\r\n', 'é', 'ét', '世', '世界', ' 世',
  '안', '😀', 'ß', ' x', '!!', '<|', '▁a', 'ab', 'abc', 'ba', 'if', ' (', ');', '\t\t', 'Wor', 'd', 'e\u0301'];
const bytes = {type: 'BPE', vocab: Object.fromEntries(byteCode.map((code, byte) => [code, byte]))};
bytes.merges = grow(bytes.vocab, words.map(asBytes)).map((pair) => pair.join(' '));
const pieces = {type: 'BPE', vocab: {'<unk>': 0, '<s>': 1, '</s>': 2}, unk_token: '<unk>', byte_fallback: true, fuse_unk: true};
for (let byte = 0; byte < 256; byte++) pieces.vocab[`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`] = byte + 3;
for (const c of '▁abcdehilnorstwxABCDEW 0123456789.,!?\'"()<>|/é世界안\n') pieces.vocab[c] ??= Object.keys(pieces.vocab).length;
pieces.merges = grow(pieces.vocab, ['▁hello', '▁world', '▁the', 'the', '▁▁', '▁▁▁▁', '12', '世界', '▁a', 'ab', 'abc', '</', 'll'].map((word) => [...word]));

// ---- components ----

const bl = (use_regex = false, add_prefix_space = false) => ({type: 'ByteLevel', add_prefix_space, trim_offsets: true, use_regex});
const split = (Regex, behavior = 'Isolated', invert = false) => ({type: 'Split', pattern: {Regex}, behavior, invert});
const literal = (String, behavior = 'Isolated', invert = false) => ({type: 'Split', pattern: {String}, behavior, invert});
const pre = (...pretokenizers) => ({type: 'Sequence', pretokenizers});
const norm = (...normalizers) => ({type: 'Sequence', normalizers});
const replace = (String, content) => ({type: 'Replace', pattern: {String}, content});
const meta = (prepend_scheme, split = true, replacement = '▁') => ({type: 'Metaspace', replacement, prepend_scheme, split});
const special = (content, flags = {}) => ({content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true, ...flags});
const template = (before, after) => ({
  type: 'TemplateProcessing', pair: [{Sequence: {id: 'A', type_id: 0}}, {Sequence: {id: 'B', type_id: 1}}],
  single: [...before.map((id) => ({SpecialToken: {id, type_id: 0}})), {Sequence: {id: 'A', type_id: 0}}, ...after.map((id) => ({SpecialToken: {id, type_id: 0}}))],
  special_tokens: Object.fromEntries([...before, ...after].map((id) => [id, {id, ids: [id === '<s>' ? 1 : 2], tokens: [id]}])),
});
const llamaDecoder = {type: 'Sequence', decoders: [{type: 'Replace', pattern: {String: '▁'}, content: ' '}, {type: 'ByteFallback'}, {type: 'Fuse'}, {type: 'Strip', content: ' ', start: 1, stop: 0}]};
const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const tail = '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}', lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}';
const cased = (end) => `[^\\r\\n\\p{L}\\p{N}]?${upper}${end}]*${lower}${end}]+${contractions}?|[^\\r\\n\\p{L}\\p{N}]?${upper}${end}]+${lower}${end}]*${contractions}?|\\p{N}{1,3}${tail}`;

// ---- texts ----

const T = {
  plain: "hello world, the world's hello", runs: '  hello   world    \n\n the\t\tend  ', digits: 'x123456 12.5 ٣٤ ½²Ⅷ 三', code: 'if (x != "é") { return a[1]; }\r\n\r\n',
  scripts: 'Größe 世界 안녕 שלום नमस्ते ไทย', emoji: '😀👍🏽 👨‍👩‍👧 🇩🇪', controls: '\u0000a\u001b\u007f\u0085\u00a0\u2003\u3000\u200b\ufeffx\u2028y',
  quotes: "I'S we'LL DON'T 'ſ 'K", marks: 'e\u0301 \u0301x q\u0307\u0323 q\u0323\u0307 a\u0315\u0300\u05ae\u0301b \u0344 क\u093c', compat: 'ﬁ ﬀ ① ㎏ ℃ Ⅷ ﷺ ㋎ Å ſ ﾊﾟ 가\u11a8 각',
  upper: 'İSTANBUL ΣΊΣΥΦΟΣ ẞ ᲀ Ა HelloWorld XMLHttp', young: '\u{1f6dc}a\u{31350} \u{1e4d0}\u{1e4f1}\u{1e4ec} \u{11f00}क \u0897 \u{10d50}\u{10d70}', special: '<s>hello</s> <|end|>world<|end|', tokens: ' <l>  <r>  <lr> word words xword 世word',
  meta: '▁hello ▁▁ world▁', unknown: 'aЖЖbЖ', empty: '', space: ' ', newline: '\n', word: 'hello',
};
const basic = ['plain', 'runs', 'digits', 'code', 'scripts', 'empty', 'space', 'newline', 'word'];
const all = Object.keys(T);

// ---- variants: name, model, changes, texts ----

const variants = [
  ['llama 2: Prepend and Replace', 'pieces', {normalizer: norm({type: 'Prepend', prepend: '▁'}, replace(' ', '▁')), decoder: llamaDecoder, post_processor: template(['<s>'], []), added_tokens: [special('<unk>'), special('<s>'), special('</s>')]}, all],
  ['llama 2: its special tokens normalized', 'pieces', {normalizer: norm({type: 'Prepend', prepend: '▁'}, replace(' ', '▁')), decoder: llamaDecoder, added_tokens: [special('<s>', {normalized: true}), special('</s>', {normalized: true})]}, ['special', 'plain']],
  ['mistral: Metaspace first, not split', 'pieces', {pre_tokenizer: meta('first', false), decoder: llamaDecoder, post_processor: template(['<s>'], ['</s>']), added_tokens: [special('<s>'), special('</s>')]}, [...basic, 'special', 'meta']],
  ['Metaspace always, split', 'pieces', {pre_tokenizer: meta('always'), decoder: meta('always')}, [...basic, 'meta', 'special']],
  ['Metaspace never, split', 'pieces', {pre_tokenizer: meta('never'), decoder: meta('never')}, [...basic, 'meta']],
  ['Metaspace first after pieces of one character', 'pieces', {normalizer: {type: 'NFKC'}, pre_tokenizer: pre(split('\\p{L}'), meta('first'))}, ['plain', 'compat', 'runs']],
  ['gemma: Replace, Split merged', 'pieces', {normalizer: replace(' ', '▁'), pre_tokenizer: literal(' ', 'MergedWithPrevious'), decoder: {type: 'Sequence', decoders: [{type: 'Replace', pattern: {String: '▁'}, content: ' '}, {type: 'ByteFallback'}, {type: 'Fuse'}]}}, [...basic, 'emoji']],
  ['unknown tokens apart', 'pieces', {model: {byte_fallback: false, fuse_unk: false}}, ['unknown', 'scripts', 'emoji']],
  ['unknown tokens fused', 'pieces', {model: {byte_fallback: false, fuse_unk: true}}, ['unknown', 'scripts', 'emoji']],
  ['no unknown token: dropped', 'pieces', {model: {byte_fallback: false, unk_token: null}}, ['unknown', 'scripts', 'emoji']],
  ['byte tokens overtake the unknown one', 'pieces', {without: ['<0xD0>', '<0xF0>'], model: {fuse_unk: false}}, ['unknown', 'scripts', 'emoji', 'young']],
  ['affixes', 'pieces', {more: ['##b', '##c', 'c</w>', '##c</w>'], model: {continuing_subword_prefix: '##', end_of_word_suffix: '</w>', merges: [['a', '##b'], ['ab', '##c']]}, pre_tokenizer: {type: 'WhitespaceSplit'}, decoder: {type: 'BPEDecoder', suffix: '</w>'}}, ['plain', 'unknown']],
  ['holes in the vocabulary', 'bytes', {stretch: 3, pre_tokenizer: bl(true), decoder: bl(true), added_tokens: [special('<|end|>'), special('<|x|>')]}, ['plain', 'special']],
  ['gpt 2', 'bytes', {pre_tokenizer: bl(true), decoder: bl(true), added_tokens: [special('<|end|>')]}, all],
  ['byte level with a space in front', 'bytes', {pre_tokenizer: bl(true, true), decoder: bl(true)}, [...basic, 'controls']],
  ['smollm: Digits, ByteLevel', 'bytes', {pre_tokenizer: pre({type: 'Digits', individual_digits: true}, bl(true)), decoder: bl(true)}, [...basic, 'controls', 'young']],
  ['Digits together', 'bytes', {pre_tokenizer: pre({type: 'Digits', individual_digits: false}, bl(true, true)), decoder: bl(true)}, ['digits', 'young', 'plain']],
  ['llama 3', 'bytes', {model: {ignore_merges: true}, pre_tokenizer: pre(split(`${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}${tail}`), bl()), decoder: bl(true)}, [...basic, 'quotes', 'controls', 'marks', 'young', 'emoji']],
  ['qwen 2', 'bytes', {normalizer: {type: 'NFC'}, pre_tokenizer: pre(split(`${contractions}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${tail}`), bl()), decoder: bl(true)}, [...basic, 'quotes', 'marks', 'compat', 'young']],
  ['a pattern as what is kept', 'bytes', {pre_tokenizer: pre(split(`${contractions}|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`, 'Removed', true), bl()), decoder: bl(true)}, [...basic, 'quotes']],
  ['o200k', 'bytes', {pre_tokenizer: pre(split(cased('')), bl()), decoder: bl(true)}, [...basic, 'upper', 'quotes', 'marks', 'young']],
  ['kimi: intersections of classes', 'bytes', {pre_tokenizer: pre(split('[\\p{Han}]+|' + cased('&&[^\\p{Han}]')), bl()), decoder: bl(true)}, [...basic, 'upper', 'young']],
  ['deepseek v3', 'bytes', {pre_tokenizer: pre(split('\\p{N}{1,3}'), split('[一-龥\u3040-ゟ゠-ヿ]+'), split('[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'), bl()), decoder: bl(true)}, [...basic, 'marks', 'young', 'emoji']],
  ['deepseek llm', 'bytes', {pre_tokenizer: pre(split('[\\r\\n]'), split('\\s?[A-Za-zµÀ-ÖØ-öø-ƺ]+'), split('\\s?[!-/:-~！-／：-～‘-‟　-。]+'), split('\\s+$'), split('[一-龥ࠀ-一가-\ud7ff]+'), split('\\p{N}+'), bl()), decoder: bl(true)}, [...basic, 'young', 'controls']],
  ['falcon: Punctuation', 'bytes', {pre_tokenizer: pre({type: 'Punctuation', behavior: 'Contiguous'}, bl(true), {type: 'Digits', individual_digits: false}, split('[0-9][0-9][0-9]')), decoder: bl(true)}, [...basic, 'quotes', 'young']],
  ['Whitespace', 'bytes', {pre_tokenizer: pre({type: 'Whitespace'}, bl()), decoder: bl(true)}, ['runs', 'code', 'scripts', 'emoji', 'controls', 'young']],
  ['WhitespaceSplit', 'bytes', {pre_tokenizer: pre({type: 'WhitespaceSplit'}, bl(false, true)), decoder: bl(true)}, ['runs', 'code', 'controls']],
  ['BertPreTokenizer', 'bytes', {pre_tokenizer: pre({type: 'BertPreTokenizer'}, bl()), decoder: bl(true)}, ['runs', 'code', 'controls']],
  ['CharDelimiterSplit', 'bytes', {pre_tokenizer: pre({type: 'CharDelimiterSplit', delimiter: 'é'}, bl()), decoder: bl(true)}, ['code', 'plain']],
  ['FixedLength', 'bytes', {pre_tokenizer: pre({type: 'FixedLength', length: 3}, bl()), decoder: bl(true)}, ['plain', 'scripts']],
  ...['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'].flatMap((behavior) => [
    [`split ${behavior}`, 'bytes', {pre_tokenizer: pre(split('[\\s!]', behavior), bl())}, ['runs', 'plain', 'space']],
    [`split ${behavior}, inverted`, 'bytes', {pre_tokenizer: pre(split('l*', behavior, true), bl())}, ['runs', 'plain', 'space', 'empty']],
    [`split ${behavior} by nothing`, 'bytes', {pre_tokenizer: pre(literal('', behavior), bl())}, ['plain', 'space']],
  ]),
  ...['\\w+', '\\b', '\\W\\B', '[[:alpha:]]+|[[:punct:]]', '[[:upper:]][[:lower:]]*', '[^\\S\\n]+', '\\h{2,}', '[\\w-]+', '\\p{Han}+|\\p{Latin}', '\\p{Letter}\\p{M}*', '(?<=\\p{L})(?=\\p{N})', '^.|.$', '(?m).{1,5}', '\\R', 'a{,2}b', '[a-z&&[^aeiou]]+', '[^a-z[0-9]]+', '\\p{^L}+', '(?i)[a-k]+', '{|}|]', '[]^-]', '\\x{e9}|\\u4e16', '\\v|\\e|\\x41', '.\\z|\\Ah'].map((regex) =>
    [`expression ${regex}`, 'bytes', {pre_tokenizer: pre(split(regex), bl())}, ['code', 'scripts', 'controls', 'young', 'marks']]),
  ...['NFC', 'NFD', 'NFKC', 'NFKD', 'Lowercase', 'StripAccents', 'Nmt'].map((type) => [type, 'bytes', {normalizer: {type}, pre_tokenizer: bl(), decoder: bl()}, ['marks', 'compat', 'upper', 'scripts', 'controls', 'young']]),
  ['NFD, Lowercase, StripAccents', 'bytes', {normalizer: norm({type: 'NFD'}, {type: 'Lowercase'}, {type: 'StripAccents'}), pre_tokenizer: bl(true)}, ['marks', 'upper', 'scripts']],
  ['ByteLevel as a normalizer', 'bytes', {normalizer: {type: 'ByteLevel'}, pre_tokenizer: literal('Ġ', 'MergedWithNext'), decoder: bl(), added_tokens: [special('é x', {normalized: true, special: false})]}, ['plain', 'scripts', 'code']],
  ...[[true, true], [true, false], [false, true]].map(([strip_left, strip_right]) => [`Strip ${strip_left} ${strip_right}`, 'pieces', {normalizer: {type: 'Strip', strip_left, strip_right}, pre_tokenizer: meta('first')}, ['runs', 'plain', 'space', 'controls']]),
  ['Replace by an expression', 'pieces', {normalizer: norm({type: 'Replace', pattern: {Regex: '\\s{2,}'}, content: '▁'}, {type: 'Replace', pattern: {Regex: '^h'}, content: ''}), pre_tokenizer: meta('first')}, ['runs', 'plain', 'space']],
  ['added tokens and what they take along', 'bytes', {pre_tokenizer: bl(true), decoder: bl(true), added_tokens: [special('<l>', {lstrip: true}), special('<r>', {rstrip: true}), special('<lr>', {lstrip: true, rstrip: true}), special('word', {single_word: true, special: false}), special('  ', {special: false}), special('<s>'), special('<s>h'), special('õ', {special: false}), special('Ġx', {special: false})]}, ['tokens', 'special', 'runs', 'plain']],
  ['added tokens after the normalizer', 'bytes', {normalizer: {type: 'Lowercase'}, pre_tokenizer: bl(true), decoder: bl(true), added_tokens: [special('<S>', {normalized: true}), special('World', {normalized: true, special: false}), special('HELLO', {normalized: false})]}, ['plain', 'special', 'upper']],
  ['RobertaProcessing', 'pieces', {post_processor: {type: 'RobertaProcessing', sep: ['</s>', 2], cls: ['<s>', 1], trim_offsets: true, add_prefix_space: true}}, ['word', 'empty']],
  ['BertProcessing in a Sequence', 'pieces', {post_processor: {type: 'Sequence', processors: [bl(true), {type: 'BertProcessing', sep: ['</s>', 2], cls: ['<s>', 1]}]}}, ['word', 'empty']],
  ...[null, {type: 'Fuse'}, {type: 'ByteFallback'}, meta('first', true, 'l'), {type: 'Strip', content: 'h', start: 1, stop: 0}, {type: 'Replace', pattern: {Regex: '[eo]|$'}, content: '*'}, {type: 'Sequence', decoders: [{type: 'ByteFallback'}, meta('never')]}].map((decoder) =>
    [`decoder ${JSON.stringify(decoder)}`, 'pieces', {decoder}, ['plain', 'emoji', 'meta']]),
];

function tokenizerOf(model, {without = [], more = [], stretch = 1, ...parts}) {
  const made = {...model, ...parts.model, vocab: {...model.vocab}};
  for (const token of without) delete made.vocab[token];
  for (const token of more) made.vocab[token] = Object.keys(model.vocab).length + more.indexOf(token);
  for (const token in made.vocab) made.vocab[token] *= stretch;
  const fields = {dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false};
  let next = Object.keys(made.vocab).length;
  const added_tokens = (parts.added_tokens ?? []).map((token) => ({id: made.vocab[token.content] ?? next++, ...token}));
  return {version: '1.0', truncation: null, padding: null, normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...parts, added_tokens, model: {...fields, ...made}};
}

async function variantGolden([name, model, changes, texts]) {
  const json = tokenizerOf({bytes, pieces}[model], changes), tokenizer = Tokenizer.fromString(JSON.stringify(json)), cases = [];
  for (const text of texts.map((key) => T[key])) {
    const ids = (await tokenizer.encode(text, null, {addSpecialTokens: false})).getIds();
    const special = (await tokenizer.encode(text, null, {addSpecialTokens: true})).getIds();
    const decoded = await tokenizer.decode(ids, false);
    cases.push({text, ids, ...(special.join() === ids.join() ? {} : {special}), ...(decoded === text ? {} : {decoded})});
  }
  const {without = [], more = [], stretch = 1, ...parts} = changes;
  return {name, base: model, without, more, stretch, tokenizer: {...parts, added_tokens: json.added_tokens, model: parts.model ?? {}}, cases};
}

// ---- every code point ----

const BLOCK = 4096;
const blocks = [];
for (let first = 0; first < 0x110000; first += BLOCK)
  blocks.push(Array.from({length: BLOCK}, (_, i) => first + i).filter((code) => code < 0xd800 || code > 0xdfff));
const fnv = (buffer) => buffer.reduce((hash, byte) => Math.imul(hash ^ byte, 0x01000193) >>> 0, 0x811c9dc5);
const text = (codes) => codes.map((code) => String.fromCodePoint(code)).join('');
const part = (key, value) => Tokenizer.fromString(JSON.stringify(tokenizerOf({type: 'BPE', vocab: {a: 0}, merges: []}, {[key]: value})));
const normalizer = (value) => part('normalizer', value).getNormalizer();
const pretokenizer = (value) => part('pre_tokenizer', value).getPreTokenizer();
// The code points that a normalizer leaves of a block.
const left = (value, codes) => new Set([...normalizer(value).normalizeString(text(codes))].map((c) => c.codePointAt(0)));
const marked = (members) => blocks.map((codes, i) => fnv(codes.map((code) => members[i].has(code) ? 1 : 0)));
const categories = 'Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn'.split(' ');

function categoryHashes() {
  const ofBlock = blocks.map(() => new Map());
  categories.forEach((name, number) => blocks.forEach((codes, i) => {
    for (const code of left({type: 'Replace', pattern: {Regex: `\\P{${name}}`}, content: ''}, codes)) ofBlock[i].set(code, number);
  }));
  return blocks.map((codes, i) => fnv(codes.map((code) => ofBlock[i].get(code) ?? 255)));
}
// Characters that a pre-tokenizer makes a piece by themselves between two others.
const isolated = (value, around) => blocks.map((codes) => new Set(pretokenizer(value).preTokenizeString(around + codes.map((code) => String.fromCodePoint(code)).join(around) + around)
  .map(([piece]) => piece).filter((piece) => [...piece].length === 1).map((piece) => piece.codePointAt(0))));
const joined = (value) => blocks.map((codes) => new Set(pretokenizer(value).preTokenizeString(codes.map((code) => 'a' + String.fromCodePoint(code)).join(' '))
  .map(([piece]) => [...piece]).filter((piece) => piece.length === 2).map((piece) => piece[1].codePointAt(0))));
// Each code point alone, with a character that nothing changes behind it; that one itself is left out.
const each = (value) => blocks.map((codes) => fnv([...Buffer.from(normalizer(value).normalizeString(codes.filter((code) => code !== 0x21).map((code) => String.fromCodePoint(code) + '!').join('')))]));

const unicode = {
  made_by, block: BLOCK, categories: categories.join(' '),
  category: categoryHashes(),
  expression_word: marked(blocks.map((codes) => left({type: 'Replace', pattern: {Regex: '\\W'}, content: ''}, codes))),
  expression_space: marked(blocks.map((codes) => left({type: 'Replace', pattern: {Regex: '\\S'}, content: ''}, codes))),
  expression_alphabetic: marked(blocks.map((codes) => left({type: 'Replace', pattern: {Regex: '[^[:alpha:]]'}, content: ''}, codes))),
  expression_lowercase: marked(blocks.map((codes) => left({type: 'Replace', pattern: {Regex: '[^[:lower:]]'}, content: ''}, codes))),
  expression_han: marked(blocks.map((codes) => left({type: 'Replace', pattern: {Regex: '\\P{Han}'}, content: ''}, codes))),
  number: marked(isolated({type: 'Digits', individual_digits: true}, '!!')),
  punctuation: marked(isolated({type: 'Punctuation', behavior: 'Isolated'}, 'aa')),
  word: marked(joined({type: 'Whitespace'})),
  mark: marked(blocks.map((codes) => { const kept = left({type: 'StripAccents'}, codes); return new Set(codes.filter((code) => !kept.has(code))); })),
  lower: each({type: 'Lowercase'}), NFC: each({type: 'NFC'}), NFD: each({type: 'NFD'}), NFKC: each({type: 'NFKC'}), NFKD: each({type: 'NFKD'}),
};

const lines = (list) => '[\n' + list.map((item) => JSON.stringify(item)).join(',\n') + '\n]';
const write = (name, fields) => fs.writeFileSync(path.join(out, name), '{\n' + Object.entries(fields).map(([key, value]) =>
  JSON.stringify(key) + ': ' + (key === 'variants' ? lines(value) : JSON.stringify(value))).join(',\n') + '\n}\n');
const goldens = [];
for (const variant of variants) goldens.push(await variantGolden(variant));
write('tokenizer_variants.json', {made_by, bytes, pieces, variants: goldens});
write('tokenizer_unicode.json', unicode);
