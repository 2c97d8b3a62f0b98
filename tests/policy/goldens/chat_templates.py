"""The templates and conversations of make_chat_goldens.py."""

_CHATML_TURNS = (
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
_CHATML = "{% for message in messages %}" + _CHATML_TURNS
_DEFINED = "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"


def _with_system(text):
    return ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\n" + text + "<|im_end|>\n' }}{% endif %}" + _CHATML_TURNS)


_SMOLLM2 = _with_system("You are a helpful AI assistant named SmolLM, trained by Hugging Face")
_ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
_LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")

# Written for these goldens: the constructs of a family's template in another template's words.

_LIKE_LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}
    {% set system_message = messages[0]['content'] %}
{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate: user/assistant/user/assistant/...') }}
    {% endif %}
    {% if loop.index0 == 0 and system_message != false %}
        {% set content = '((SYS))\\n' + system_message + '\\n((/SYS))\\n\\n' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[ASK] ' + content.strip() + ' [/ASK]' }}
    {% elif message['role'] == 'assistant' %}
        {{ ' '  + content.strip() + ' ' + eos_token }}
    {% endif %}
{% endfor %}
"""

_LIKE_LLAMA32 = """\
{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 1970" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message is taken out, so that the date stands in it. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] if messages[0]['content'] is string else messages[0]['content'][0]['text'] %}
    {%- set system_message = system_message|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Tools: " }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|end|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n' }}
        {%- if message['content'] is string %}
            {{- message['content'] | trim }}
        {%- else %}
            {%- for content in message['content'] %}
                {%- if content['type'] == 'image' %}
                    {{- '<|image|>' }}
                {%- elif content['type'] == 'text' %}
                    {{- content['text'] | trim }}
                {%- endif %}
            {%- endfor %}
        {%- endif %}
        {{- '<|end|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("Only one call at a time!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|head|>assistant<|/head|>\\n\\n{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|end|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|head|>ipython<|/head|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|end|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

_LIKE_MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("user and assistant must take turns") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {{- ', "id": "' + tool_call.id|string + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool" %}
        {%- set content = message.content.content if message.content.content is defined else message.content %}
        {{- '[RESULTS] {"content": ' + content|string + "}[/RESULTS]" }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are known, not " ~ message.role) }}
    {%- endif %}
{%- endfor %}
of {{ user_messages|length }}
"""

_LIKE_QWEN3 = """\
{%- if tools %}
    {{- '<|turn|>system\\n' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{%- elif messages[0].role == 'system' %}
    {{- '<|turn|>system\\n' + messages[0].content + '<|/turn|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<result>') and message.content.endswith('</result>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|turn|>' + message.role + '\\n' + content + '<|/turn|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or (not loop.last and thought)) %}
            {{- '<|turn|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|turn|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|/turn|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|turn|>user' }}{%- endif %}
        {{- '\\n<result>\\n' }}{{- content }}{{- '\\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|/turn|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""

_LIKE_GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '</turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<turn>model\\n'}}{%- endif -%}
"""

_LIKE_DEEPSEEK = """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, system='', first_system=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.first_system %}{% set ns.system = ns.system + message['content'] %}{% set ns.first_system = false %}{%- else %}{% set ns.system = ns.system + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<|User|>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is none %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{{'<|Assistant|><|calls|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments']|tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['type']}}{%- endif %}{%- endfor %}{%- endif %}{%- if message['role'] == 'assistant' and message['content'] is not none %}{%- if ns.is_tool %}{{'<|results|>' + message['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<|Assistant|>' + content + eos_token}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{{'<|result|>' + message['content'] + '<|/result|>'}}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<|results|>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<|Assistant|><think>\\n'}}{% endif %}"""

_LIKE_PHI = """\
{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}"""

_LIKE_MACROS = """\
{#- Macros, call blocks, filters and loop controls, as larger templates have them. -#}
{%- macro text_of(content, glue="") -%}
    {%- if content is string -%}{{ content }}{%- elif content is none or content is undefined -%}{{ "" }}
    {%- else -%}{{ content | selectattr("type", "equalto", "text") | map(attribute="text") | join(glue) }}{%- endif -%}
{%- endmacro -%}
{%- macro turn(role) -%}
    {{- "<" ~ role | upper ~ ">" }}{{ caller() }}{{ "</" ~ role | upper ~ ">" -}}
{%- endmacro -%}
{%- for message in messages if message.role != "system" -%}
    {%- if loop.index > 6 -%}{%- break -%}{%- endif -%}
    {%- if message.role == "tool" and not loop.last -%}{%- continue -%}{%- endif -%}
    {%- call turn(message.role) -%}
        {%- filter trim -%}{{ text_of(message.content, glue=" + ") }}{%- endfilter -%}
        {%- for call in message.tool_calls or [] -%}
            {%- for key, value in call.function.arguments | dictsort -%}
                {{- loop.index ~ "/" ~ loop.length ~ " " ~ key ~ "=" ~ value | tojson }}{{ ", " if not loop.last -}}
            {%- endfor -%}
        {%- endfor -%}
    {%- endcall -%}
    {%- if loop.nextitem is defined and loop.nextitem.role == message.role -%}{{ "!" }}{%- endif -%}
{%- else -%}
    {{- "nobody" -}}
{%- endfor -%}
{%- set system = messages | selectattr("role", "equalto", "system") | map(attribute="content") | list -%}
{%- set note -%}{{ system | length }} of {{ messages | length }}{%- endset -%}
{%- generation -%}[{{ note | title }}]{%- endgeneration -%}
"""

TEMPLATES = [
    {"name": "chatml", "template": _CHATML},
    {"name": "chatml with default", "template": _DEFINED + _CHATML},
    {"name": "smollm2", "template": _SMOLLM2},
    {"name": "smollm2, newlines escaped", "template": _SMOLLM2.replace("\n", "\\n")},
    {"name": "qwen2", "template": _with_system("You are a helpful assistant.")},
    {"name": "qwen2.5", "folder": "tokenizers/qwen2.5"},
    {"name": "minimind2", "folder": "models/minimind2-small"},
    {"name": "tinyllama", "template": _ZEPHYR, "eos_token": "</s>"},
    {"name": "llama3", "template": _LLAMA3, "bos_token": "<|begin_of_text|>"},
    {"name": "like llama2", "template": _LIKE_LLAMA2, "bos_token": "<s>", "eos_token": "</s>"},
    {"name": "like llama3.2", "template": _LIKE_LLAMA32, "bos_token": "<|begin|>"},
    {"name": "like mistral", "template": _LIKE_MISTRAL, "bos_token": "<s>", "eos_token": "</s>"},
    {"name": "like qwen3", "template": _LIKE_QWEN3},
    {"name": "like gemma", "template": _LIKE_GEMMA, "bos_token": "<bos>"},
    {"name": "like deepseek", "template": _LIKE_DEEPSEEK, "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
    {"name": "like phi", "template": _LIKE_PHI, "eos_token": "<|eot|>"},
    {"name": "like none: macros", "template": _LIKE_MACROS},
]


def _user(content):
    return {"role": "user", "content": content}


def _assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def _system(content):
    return {"role": "system", "content": content}


_CALLS = [{"type": "function", "id": "call00001",
           "function": {"name": "weather", "arguments": {"city": "Zürich", "days": [1, 2.5, None, True]}}}]
_ASK = _user("  What is 2+2? 你好 \n")

CONVERSATIONS = [
    [_ASK],
    [_system('Be "brief".'), _ASK],
    [_system('Be "brief".')],
    [_ASK, _assistant("4"), _user("Why?\n\nSay.")],
    [_ASK, _system('Be "brief".'), _ASK],
    [_system('Be "brief".'), _ASK, _assistant(""), _user("It's <|im_end|>")],
    [_user("a"), _assistant("<think>\nhm\n</think>\n\nyes"), _user("b")],
    [_user("a"), _assistant("<think>x</think>one</think>two")],
    [_user("a"), _assistant("yes", reasoning_content="\nbecause\n")],
    [_user("a"), _user("b")],
    [_user("w?"), _assistant("let me see", tool_calls=_CALLS),
     {"role": "tool", "name": "weather", "tool_call_id": "call00001", "content": "sunny"}, _user("thanks")],
    [_system("s"), _user("w?"), _assistant(None, tool_calls=_CALLS), {"role": "tool", "content": "{\"t\": 3}"},
     {"role": "tool", "content": "more"}, _assistant("It is 3"), _user("<result>no</result>")],
    [_user([{"type": "text", "text": " one "}, {"type": "text", "text": "two"}]), _assistant("k")],
    [_system([{"type": "text", "text": "sys"}]), _user([{"type": "image"}, {"type": "text", "text": "what?"}])],
    [{"role": "developer", "content": "d"}, _user("\ttab\r\nline\u2028sep\u00a0")],
]

# Variables that people give a template, beside or in place of its own.
KWARGS = [
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"date_string": "02 Mar 2031"},
    {"add_generation_prompt": False, "bos_token": "<other>", "eos_token": "</other>"},
    {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {"city": "text"}}}]},
]
