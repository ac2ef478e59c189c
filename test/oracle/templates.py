"""Chat-template fixtures: what transformers' Jinja makes of small templates, one for each thing that templates use, and of
whole templates in the style of known models.

    python templates.py
"""

import copy
import json
from datetime import datetime
from pathlib import Path

import transformers.utils.chat_template_utils as chat_template_utils
from mlx_lm.tokenizer_utils import load

FIXTURES = Path(__file__).parent.parent / "fixtures" / "text"

MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Hello <b> & \"you\", it's 5 o'clock \U0001f340 é"},
    {"role": "assistant", "content": "Hi", "reasoning_content": "greet", "n": 3, "x": 1.5, "yes": True, "no": False,
     "list": [3, 1, 2], "names": ["b", "A", "c", "a"], "empty": [], "items": "shadow", "nested": {"b": {"c": [1, {"d": "deep"}]}, "a": None}},
]  # fmt: skip

SETUP = "{%- set s, u, a = messages[0], messages[1], messages[2] -%}"

# Each is rendered with the messages above as s, u and a. "FAILS" is for those where Python raises.
SNIPPETS = [
    # scopes
    "{% for m in messages %}{% if loop.first %}{% set x = 1 %}{% endif %}[{{ x }}]{% endfor %}",
    "{% set x = 0 %}{% for m in messages %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% set ns = namespace(x=0) %}{% for m in messages %}{% set ns.x = ns.x + loop.index %}{% endfor %}{{ ns.x }}",
    "{% for i in [1, 2] %}{% for j in [1, 2] %}{% set i = 9 %}{{ i }}{% endfor %}{{ i }}{% endfor %}",
    "{% if true %}{% set y = 'in' %}{% endif %}{{ y }}",
    "{% macro f() %}{{ m | default('none') }}{% endmacro %}{% for m in [1] %}{{ f() }}{% endfor %}",
    "{% set v = 'global' %}{% macro f() %}{{ v }}{% endmacro %}{% for v in ['local'] %}{{ f() }}{% endfor %}",
    "{% macro f(x, y='d') %}{{ x }}-{{ y }}{% endmacro %}{{ f(1) }} {{ f(1, 2) }} {{ f(y=3, x=4) }} {{ f() }}",
    "{% macro f(x) %}{% set z = x %}{{ z }}{% endmacro %}{{ f(1) }}{{ z is defined }}",
    "{% macro f() %}{{ varargs | list }}{{ kwargs }}{% endmacro %}{{ f(1, 'a', k=2) }}",
    "{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}in{% endcall %}",
    "{% macro f() %}<{{ caller(2) }}>{% endmacro %}{% call(v) f() %}in{{ v }}{% endcall %}",
    "{% macro outer() %}{% macro inner(x) %}({{ x }}){% endmacro %}{{ inner(1) }}{% endmacro %}{{ outer() }}",
    "{% set block %}a{{ 1 + 1 }}b{% endset %}[{{ block }}]{{ block | length }}",
    "{% set x, y = 1, 2 %}{{ x + y }}",
    "{% set t = (1, 2) %}{% set x, y = t %}{{ x }}{{ y }}{{ t }}",
    "{% for k, v in [(1, 2), [3, 4]] %}{{ k }}:{{ v }} {% endfor %}",
    # loops
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.previtem | default('-') }}{{ i }}{{ loop.nextitem | default('-') }} {% endfor %}",
    "{% for i in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for i in [1, 1, 2] %}{{ loop.changed(i) }} {% endfor %}",
    "{% for i in range(5) if i is odd %}{{ i }}{{ loop.length }}{% endfor %}",
    "{% for i in [] %}x{% else %}empty{% endfor %}",
    "{% for i in [1, 2] if i > 5 %}x{% else %}none{% endfor %}",
    "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for i in range(3) %}{% if loop.last %}{% continue %}{% endif %}{{ i }}{% else %}never{% endfor %}",
    "{% for c in 'ab\U0001f340' %}[{{ c }}]{% endfor %}",
    "{% for k in a.nested %}{{ k }}{% endfor %}",
    "{% for k, v in a.nested.items() %}{{ k }}={{ v }} {% endfor %}",
    "{% for k, v in a.nested | items %}{{ k }} {% endfor %}",
    "{% for k, v in a.nested | dictsort %}{{ k }} {% endfor %}",
    "{% for i in missing %}x{% endfor %}[]",
    "{% for m in messages[1:] %}{{ m.role }} {% endfor %}{% for m in messages[::-1] %}{{ m.role[0] }}{% endfor %}",
    "{% for i in range(0, 10, 3) %}{{ i }}{% endfor %}{{ range(5, 0, -2) | list }}",
    "{{ loop is defined }}{% for i in [1] %}{{ loop is defined }}{% endfor %}",
    # members
    "{{ a.items() | list | length }}{{ a['items'] }}",
    "{{ a.nested.b.c[1].d }}{{ a['nested']['b']['c'][0] }}{{ a.nested.b.c[-1]['d'] }}",
    "{{ a.missing }}[{{ a.missing is defined }}]{{ a['gone'] | default('d') }}",
    "{{ a.get('n') }}{{ a.get('gone') }}{{ a.get('gone', 'd') }}{{ a.get('no', 1) }}",
    "{{ 'n' in a }}{{ 'gone' in a }}{{ 'gone' not in a }}{{ a.keys() | list }}",
    "{{ a.nested.values() | list }}",
    "{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abc'[1:] }}{{ 'abc'[::-1] }}{{ '\U0001f340b'[1] }}{{ '\U0001f340b'[0] }}",
    "{{ [1, 2, 3][1:2] }}{{ [1, 2, 3][-2:] }}{{ (1, 2, 3)[:2] }}{{ [1, 2][5:] }}",
    "{{ {'a': 1}.a }}{{ {'a': 1}['a'] }}{{ {'a': {'b': 2}}.a.b }}",
    "{{ {0: 'zero', 512: 'x', 'k': 1} }}{{ {0: 'zero'}[0] }}{% for k, v in {2: 'b', 10: 'a'} | dictsort %}{{ k + 1 }}{{ v }}{% endfor %}",
    "{% set d = {1: 'a', 2.5: 'b', true: 'c', none: 'd'} %}{% for k in d %}{{ k }},{% endfor %}{{ 1 in d }}{{ 7 in d }}{{ '1' in d }}{{ d.get(2.5) }}",
    "{{ {'a': 1, 'a': 2} }}{{ {} }}{{ [] }}",
    "{{ missing.field }}",
    "{{ (missing | default({})).field | default('x') }}",
    "{{ dict(a=1, b='x') }}{{ dict(a=1).a }}",
    "{% set ns = namespace() %}{{ ns.x is defined }}{% set ns.x = [1] %}{{ ns.x }}{{ ns['x'] }}",
    "{% set ns = namespace(a=1) %}{% set l = [ns] %}{{ l[0].a }}{{ l | length }}",
    "{% set inner = namespace(a=1) %}{% set outer = namespace(i=inner) %}{{ outer.i.a }}",
    "{% set ns = namespace(f=namespace(name='n', args='{}')) %}{% set x = {'role': 'r', 'calls': [ns]} %}{{ x.calls[0].f.name }}{{ x.role }}",
    # operators
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 ** 3 }} {{ 1.5 + 1 }} {{ 3 * 1.0 }}",
    "{{ 1 == 1.0 }}{{ 1 == '1' }}{{ none == false }}{{ [1] == [1] }}{{ {'a': 1} == {'a': 1} }}{{ true == 1 }}",
    "{{ 1 < 2 }}{{ 'a' < 'b' }}{{ 1 < 2 < 3 }}{{ 'B' < 'a' }}{{ [1, 2] < [1, 3] }}",
    "{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] }}",
    "{{ 'a' + 'b' }}{{ [1] + [2] }}{{ 'ab' * 2 }}{{ [0] * 3 }}",
    "{{ 'a' + 1 }}",
    "{{ 'a' + none }}",
    "{{ [1] + 'a' }}",
    "{{ 1 + missing }}",
    "{{ true and 'x' }}{{ '' or 'y' }}{{ not '' }}{{ not [] }}{{ 0 or none }}{{ [] and 1 }}",
    "{{ 'x' if false }}|{{ 'x' if true else 'y' }}|{{ ('x' if false) is defined }}",
    "{{ 'ell' in 'hello' }}{{ 2 in [1, 2] }}{{ 3 not in (1, 2) }}{{ 'a' in missing }}",
    "{{ -5 }}{{ +5 }}{{ 0.1 + 0.2 }}{{ 10000000000000000.0 }}{{ 0.0000001 }}{{ 123456789012 * 1000 }}",
    "{{ 'a\\nb\\t\\'q\\'' }}{{ \"d\\\"q\" }}{{ 'back\\\\slash' }}{{ '\\u00e9\\x41' }}",
    "{{ 'a' 'b' }}",
    "{{ (1 + 2) * 3 - 4 }}{{ 2 * -1 }}{{ not true or true }}",
    "{{ a.yes and a.n > 2 }}{{ a.no or a.x }}",
    "{{ 5 is number and 'a' is string }}{{ 1 if a.n == 3 else 2 if true else 3 }}",
    # filters
    "[{{ '  a b ' | trim }}][{{ 'xxaxx' | trim('x') }}][{{ s.content | trim }}][{{ none | trim }}][{{ 5 | trim }}][{{ missing | trim }}][{{ [1] | trim }}]",
    "{{ 'aB c' | upper }}{{ 'aB c' | lower }}{{ 'aB c' | capitalize }}{{ \"they're aB-c d\" | title }}{{ missing | upper }}{{ 5 | upper }}{{ none | lower }}",
    "{{ 'abc' | length }}{{ [1, 2] | count }}{{ a | length }}{{ missing | length }}{{ '\U0001f340é' | length }}",
    "{{ [1, 2, 3] | first }}{{ [1, 2, 3] | last }}{{ 'abc' | first }}{{ 'abc' | last }}{{ [] | first }}{{ [1, 2] | reverse | list }}{{ 'abc' | reverse }}",
    "{{ [1, 'a', none, true, 1.0] | join(', ') }}{{ 'abc' | join('-') }}{{ [1, 2] | join }}{{ messages | join(', ', attribute='role') }}",
    "{{ a.list | sort }}{{ a.names | sort }}{{ a.names | sort(case_sensitive=true) }}{{ a.list | sort(reverse=true) }}{{ messages | sort(attribute='role') | map(attribute='role') | list }}",
    "{{ a.names | unique | list }}{{ [1, 1.0, 2, true] | unique | list }}",
    "{{ a.list | sum }}{{ a.list | max }}{{ a.list | min }}{{ [] | sum }}{{ messages | map(attribute='content') | map('length') | sum }}",
    "{{ messages | map(attribute='role') | list }}{{ messages | map(attribute='n') | list | length }}{{ messages | map(attribute='n', default=0) | list }}",
    "{{ a.names | map('upper') | list }}{{ a.list | map('string') | join('|') }}{{ ['a ', ' b'] | map('trim') | join }}{{ [[1], {'a': 2}] | map('tojson') | join(';') }}",
    "{{ ['a', 'b'] | map('replace', 'a', 'x') | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | selectattr('n') | list | length }}{{ messages | rejectattr('role', '==', 'user') | map(attribute='role') | list }}",
    "{{ messages | selectattr('role', 'in', ['user', 'system']) | list | length }}{{ messages | selectattr('n', 'defined') | list | length }}{{ messages | rejectattr('n', 'undefined') | list | length }}",
    "{{ [0, 1, 2, 3] | select | list }}{{ [0, 1, 2, 3] | select('odd') | list }}{{ [1, 2] | reject('equalto', 1) | list }}{{ [1, 5] | select('>', 3) | list }}{{ [1, 'a', none] | select('string') | list }}{{ [1, 'a'] | reject('in', ['a']) | list }}",
    "{{ missing | selectattr('x') | list }}{{ missing | map('upper') | list }}{{ missing | join }}{{ missing | list }}{{ missing | select | list }}",
    "{{ '1' | int }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ '3.7' | int }}{{ 3.9 | int }}{{ -3.9 | int }}{{ ' 12 ' | int }}{{ '12abc' | int }}{{ none | int }}{{ true | int }}{{ 'ff' | int(base=16) }}",
    "{{ '1.5' | float }}{{ 'x' | float }}{{ 2 | float }}{{ '1e3' | float }}{{ 'x' | float(9.5) }}{{ missing | int }}",
    "{{ 2.567 | round(2) }}{{ 2.5 | round }}{{ 3.2 | round(method='ceil') }}{{ 7 | round }}{{ -3 | abs }}{{ -3.5 | abs }}",
    "{{ 5 | string }}{{ 1.0 | string }}{{ true | string }}{{ none | string }}{{ [1, 'a'] | string }}{{ a.nested | string }}",
    "{{ 'abc' | list }}{{ (1, 2) | list }}{{ {'a': 1} | list }}{{ range(3) | list }}",
    "{{ 'a<b>&\"\\'' | e }}{{ 'a<b>' | escape }}{{ '<b>' | safe }}{{ 'x' | forceescape }}",
    "{{ '<' | safe + '<' }}",
    "{{ 'a-b-c' | replace('-', '+') }}{{ 'aaa' | replace('a', 'b', 2) }}{{ missing | replace('a', 'b') }}{{ 5 | replace('5', '6') }}",
    "{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent(2, blank=true) }}|{{ 'a\nb' | indent('> ') }}|{{ 'a\nb' | indent(width=1, first=true) }}",
    "{{ missing | default('d') }}{{ none | default('d') }}{{ none | default('d', true) }}{{ '' | d('e', boolean=true) }}{{ 0 | default(1) }}{{ missing | default }}",
    "{{ [1, 2, 3, 4, 5] | batch(2) | list }}{{ [1, 2, 3, 4, 5] | batch(2, 'x') | list }}",
    "{{ 'a b c' | wordcount }}{{ 'x' | center(5) }}|",
    "{{ {'b': 1, 'A': 2} | dictsort }}{{ {'b': 1, 'A': 2} | dictsort(true) }}{{ {'b': 1, 'A': 2} | dictsort(false, 'value') }}{{ {'b': 1, 'a': 2} | dictsort(reverse=true) }}",
    "{{ {'a': 1} | items | list }}{{ missing | items | list }}",
    "{{ 'a b&c/d' | urlencode }}",
    "{{ [3, 1] | sort | first }}{{ ('a' ~ 'b') | upper }}{{ 'a' ~ 'b' | upper }}{{ -1 | abs }}",
    "{% filter upper %}abc{{ 'd' }}{% endfilter %}{% filter trim %}  x  {% endfilter %}",
    # tojson
    "{{ a.nested | tojson }}{{ u.content | tojson }}{{ 'a\\n\\t\\x01</' | tojson }}{{ none | tojson }}{{ true | tojson }}{{ 1.0 | tojson }}{{ 100000000000000000000.0 | tojson }}{{ 0.0000001 | tojson }}",
    "{{ a.nested | tojson(indent=2) }}{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ [[], {}] | tojson(indent=1) }}",
    "{{ {'b': 'é', 'a': '\U0001f340'} | tojson(ensure_ascii=true, sort_keys=true) }}{{ {'b': 'é'} | tojson(ensure_ascii=True) }}",
    "{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}{{ {'a': [1]} | tojson(indent=4, separators=(',', ': ')) }}{{ [1, 2] | tojson(separators=('; ', '=')) }}",
    "{{ {'b': 1, 'a': {'d': 1, 'c': 2}, 'B': 3} | tojson(sort_keys=True) }}{{ {'a': 1} | tojson(false, 2) }}{{ {'a': 1} | tojson(indent='--') }}{{ [1] | tojson(indent=0) }}",
    "{{ (1, 'a') | tojson }}{{ {1: 'a', true: 'b', none: 'c', 1.5: 'd'} | tojson }}{{ '\\u2028' | tojson }}{{ 123456789012345 | tojson }}",
    "{{ missing | tojson }}",
    "{{ a.items() | list | tojson }}",
    # tests
    "{{ 1 is number }}{{ 1.5 is float }}{{ 1 is integer }}{{ true is integer }}{{ true is number }}{{ true is boolean }}{{ 'a' is string }}{{ none is none }}{{ [] is sequence }}{{ 'a' is sequence }}{{ {} is mapping }}{{ {} is sequence }}",
    "{{ [] is iterable }}{{ 'a' is iterable }}{{ {} is iterable }}{{ 5 is iterable }}{{ none is iterable }}{{ missing is iterable }}{{ missing is sequence }}{{ missing is mapping }}{{ missing is string }}{{ missing is none }}{{ (1, 2) is sequence }}",
    "{{ 4 is even }}{{ 3 is odd }}{{ 'A' is upper }}{{ 'a' is lower }}{{ 1 is true }}{{ true is true }}{{ false is false }}{{ 0 is false }}",
    "{{ missing is defined }}{{ missing is not defined }}{{ missing is undefined }}{{ a.n is not none }}{{ raise_exception is callable }}{{ a is callable }}{{ not a.n is none }}",
    # methods
    "{{ 'a,b,c'.split(',') }}{{ 'a b  c'.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ 'a\nb'.splitlines() }}{{ 'abc'.partition('b') }}{{ 'abcbd'.rpartition('b') }}",
    "{{ 'abc'.startswith('a') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.find('c') }}{{ 'abcb'.rfind('b') }}{{ 'abab'.count('ab') }}{{ 'abc'.index('b') }}{{ 'abc'.startswith('b', 1) }}",
    "{{ ' a '.strip() }}|{{ 'xax'.strip('x') }}|{{ ' a '.lstrip() }}|{{ 'a\n\n'.rstrip('\n') }}|{{ 'ab'.upper() }}{{ 'AB'.lower() }}{{ 'ab cd'.title() }}{{ 'aB'.capitalize() }}{{ 'aB'.swapcase() }}",
    "{{ '-'.join(['a', 'b']) }}{{ 'abc'.replace('b', 'x') }}{{ 'aaa'.replace('a', 'b', 1) }}",
    "{{ 'prefix-a'.removeprefix('prefix-') }}{{ 'a.txt'.removesuffix('.txt') }}{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}{{ 'AB'.isupper() }}{{ 'ab'.islower() }}",
    "{{ [1, 2, 1].index(2) }}{{ [1, 2, 1].count(1) }}",
    "{{ [1].append(2) }}",
    "{{ {'a': 1}.pop('a') }}",
    # what transformers adds
    "{% generation %}in{{ 1 }}{% endgeneration %}-{%- generation -%}  out  {%- endgeneration %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}",
    "{{ strftime_now('%Y-%m-%d %H:%M:%S %d %b %B %a %A %j %p %I %y %%') }}",
    "{{ strftime_now('%-d %e %D %F %T %R %c %x %X %U %w %u %Z|') }}",
    "{{ raise_exception('no: ' ~ u.role) }}",
    "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}",
    "{{ bos_token }}{{ unk_token is defined }}{{ add_generation_prompt }}{{ tools }}{{ documents }}",
    # layout
    "a\n{% if true %}\n  b\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}  \nc",
    "a\n  {%- if true -%}  \n  b\n  {%- endif -%}  \nc",
    "a {{- ' b ' -}} c\n{#- comment -#}\nd {# x #} e",
    "{{ 'a' }}\n{{ 'b' }}\n\n",
    "\r\n{{ 'a' }}\r\nb\r{% if true %}\r\nc{% endif %}\r\n",
    "{{ '{{' }}{{ '}}' }}{{ '{%' }}{{ \"%}\" }}{ { } }",
    "{%- for m in messages %}\n{{ m.role }}\n{%- endfor %}\n",
    "{# {% if %} #}ok{#\n multi\n#}",
    "{{ [\n  1,\n  2,\n] }}{{ {\n 'a': 1,\n} }}",
    "{{ a.n\n  | string\n  ~ 'x' }}",
    "{% if a.n == 3 and\n   a.yes %}y{% elif false %}n{% else %}e{% endif %}",
    "{% if missing %}a{% elif missing is not defined %}b{% endif %}",
    # printing
    "{{ none }}{{ true }}{{ 1.0 }}{{ [none, true, 'a', \"it's\", 1.5, {'k': 'v'}] }}{{ {'a': [1, (2, 3)], 'é': 'ü\\n'} }}{{ missing }}",
    "{{ u.content }}{{ [u.content] }}",
    "{{ a }}",
    "{{ a.nested.b }}{{ a.empty }}{{ s }}",
]  # fmt: skip

# What Jinja knows and mlxlm's engine does not: it must say so, and not write another text.
BEYOND = [
    "{% with q = 1 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% for i in [[1, [2]]] recursive %}{% if i is number %}{{ i }}{% else %}({{ loop(i) }}){% endif %}{% endfor %}",
    "{{ '%s-%d' % ('a', 3) }}{{ '%s' % 'x' }}",
    "{{ messages | groupby('role') | map('first') | list }}",
    "{{ 'upper' is filter }}{{ 'odd' is test }}",
    "{{ 'é'.encode('utf-8') | length }}",
    "{% raw %}{{ not }} {% rendered %}{% endraw %}!",
    "a\n{# comment #}\nb\n{%+ if true %}x{% endif %}\n  {%+ if true %}y{% endif %}",
    "{{ 'a' is string, 1 }}",
    "{{ (1,) + () }}",
    "{{ 1_000 }}{{ 1e3 }}",
    "{{ 'some long text' | truncate(9) }}",
    "{{ [1, 2, 3, 4] | slice(2) | list }}",
    "{{ '%s!' | format('x') }}",
    "{{ 'a<b>c</b>' | striptags }}",
    "{{ 6 is divisibleby(3) }}",
    "{{ 6 is divisibleby 3 }}",
    "{{ 2 is gt(1) }}",
    "{{ '{0}{x}'.format('a', x='b') }}",
]  # fmt: skip


def render(tokenizer, template, chat):
    tokenizer.chat_template = template
    try:
        return {
            "text": tokenizer.apply_chat_template(
                copy.deepcopy(chat["messages"]),
                tools=copy.deepcopy(chat.get("tools")),
                tokenize=False,
                add_generation_prompt=chat.get("add_generation_prompt", False),
                **chat.get("kwargs", {}),
            )
        }
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}".split("\n")[0]}


class FixedClock(datetime):
    @classmethod
    def now(cls):
        return cls(2026, 3, 5, 14, 7, 9)


def write(path, **parts):
    """A JSON object of lists, one item a line."""
    lists = [f'"{name}": [\n' + ",\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n]" for name, items in parts.items()]
    path.write_text("{\n" + ",\n".join(lists) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    chat_template_utils.datetime = FixedClock
    tokenizer = load(FIXTURES / "byte-level")
    tokenizer.bos_token = "<|endoftext|>"
    snippets = [{"template": s, **render(tokenizer, SETUP + s, {"messages": MESSAGES})} for s in SNIPPETS]
    write(FIXTURES / "snippets.json", messages=MESSAGES, snippets=snippets, beyond=BEYOND)
