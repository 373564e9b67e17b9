# The other side of the chat templates: jinja2, set up as transformers does (utils/chat_template_utils.py).
# One request a line, one answer a line; see README.md.
import datetime
import json
import signal
import sys

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2024, 7, 6, 9, 5, 3)


class Generation(Extension):
    """{% generation %} marks the assistant's text; its body is output as it stands."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

    def _pass(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def too_long(*_):
    raise TimeoutError


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = lambda f: NOW.strftime(f)
signal.signal(signal.SIGALRM, too_long)


# { t: template, v: sets of variables } to a list of { o: text } or { e: why }, one for each set.
def answer(request):
    try:
        template = env.from_string(request["t"])
    except Exception as e:
        return [{"e": f"{type(e).__name__}: {e}"}] * len(request["v"])
    results = []
    for variables in request["v"]:
        signal.alarm(3)
        try:
            results.append({"o": template.render(**variables)})
        except TimeoutError:
            results.append({"e": "timeout"})
        except Exception as e:
            results.append({"e": f"{type(e).__name__}: {e}"})
        finally:
            signal.alarm(0)
    return results


sys.set_int_max_str_digits(0)
for line in sys.stdin:
    try:
        out = answer(json.loads(line))
    except RecursionError as e:
        out = [{"e": f"RecursionError: {e}"}]
    sys.stdout.write(json.dumps(out) + "\n")
    sys.stdout.flush()
