#!/usr/bin/env python3
"""Goldens for test_chat.c and test_jinja.c, by jinja2 with the settings of transformers' apply_chat_template.

    apt-get install python3-jinja2        (or pip install jinja2==3.1.6)
    python3 make_chat_goldens.py DATA_DIR OUT_DIR

DATA_DIR holds models/ and tokenizers/ as downloaded; OUT_DIR is this folder.  chat_templates.json: what each
template renders, or null where it refuses, and what it renders given further variables (kwargs); of templates in DATA_DIR the folder is kept, not the text.  The
first templates are those of published models, the ones called "like ..." were written for these goldens and
use what the templates of those models use.  jinja.json: small templates, construct by construct.
"""
import json
import sys
from datetime import datetime
from pathlib import Path

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

sys.dont_write_bytecode = True  # the two modules beside this script leave no __pycache__
from chat_snippets import SNIPPETS, VARIABLES  # noqa: E402
from chat_templates import CONVERSATIONS, KWARGS, TEMPLATES  # noqa: E402

NOW = datetime(2024, 7, 26, 12)  # JINJA_NOW of policy/chat/jinja.h


class Generation(jinja2.ext.Extension):
    """{% generation %}: a scope, as in transformers, without the mask that it keeps there."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("render"), [], [], body).set_lineno(line)

    def render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(env, template, variables):
    """The text, or None if jinja2 or the template refuses."""
    try:
        return env.from_string(template).render(**variables)
    except Exception:
        return None


def chat_golden(env, data, name, template=None, folder=None, bos_token="", eos_token=""):
    golden = {"name": name, "template": template, "folder": folder, "bos_token": bos_token, "eos_token": eos_token}
    text = template
    if folder:
        config = json.loads((data / folder / "tokenizer_config.json").read_text())
        text = config["chat_template"]
    variables = {"tools": None, "documents": None, "add_generation_prompt": True}
    variables.update((key, golden[key]) for key in ("bos_token", "eos_token") if golden[key])
    golden["cases"] = [{"messages": messages, "text": render(env, text, dict(variables, messages=messages))}
                       for messages in CONVERSATIONS]
    golden["kwargs"] = [{"variables": kwargs, "text": render(env, text, {**variables, **kwargs, "messages": CONVERSATIONS[1]})}
                        for kwargs in KWARGS]
    return {key: value for key, value in golden.items() if value is not None}


def write(path, fields):
    """One element of each list to a line."""
    def dump(value):
        if isinstance(value, list):
            return "[\n" + ",\n".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        return json.dumps(value, ensure_ascii=False)
    path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {dump(v)}" for k, v in fields.items()) + "\n}\n")


def main(data, out):
    env = environment()
    made_by = f"make_chat_goldens.py with jinja2 {jinja2.__version__}"
    templates = [chat_golden(env, data, **template) for template in TEMPLATES]
    write(out / "chat_templates.json", {"made_by": made_by, "templates": templates})
    cases = [{"template": template, "text": render(env, template, VARIABLES)} for template in SNIPPETS]
    write(out / "jinja.json", {"made_by": made_by, "variables": VARIABLES, "cases": cases})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
