using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Tests.Formats;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;

namespace Headroom.Tests.Chat;

/// <summary>The Jinja subset: expected texts are those of jinja2 3 with the settings of transformers.</summary>
public sealed class JinjaTests
{
    /// <summary>A tokenizer that only names its special tokens.</summary>
    private sealed class Names : ITokenizer
    {
        public int VocabSize => 3;
        public int? BosId => 1;
        public int? EosId => 2;
        public bool AddBos => true;
        public bool AddEos => false;
        public string? ChatTemplate => null;
        public int[] Encode(string text, bool addSpecial = false) => [];
        public string Decode(ReadOnlySpan<int> ids) => "";
        public string IdToToken(int id) => id == 1 ? "<s>" : "</s>";
        public int? TokenToId(string token) => null;
    }

    private static string Render(string template, string variables = "{}", string messages = "[]") =>
        new ChatTemplate(template, new Names()).Render(
            JsonNode.Parse(messages)!.AsArray(), true, JsonNode.Parse(variables)!.AsObject(),
            new DateTimeOffset(2024, 7, 6, 9, 5, 3, TimeSpan.Zero));

    [Theory]
    // whitespace control, trim_blocks, lstrip_blocks
    [InlineData("a\n{% if true %}\nb\n{% endif %}\nc\n", "a\nb\nc")]
    [InlineData("a\n  {% if true %}\n  b\n  {%- endif %}\nc\n\n", "a\n  bc\n")]
    [InlineData("a {{- 'b' -}} \n c", "abc")]
    [InlineData("  {%+ if true %}x{% endif %}", "  x")]
    [InlineData("x {% if true +%}\ny{% endif %}", "x \ny")]
    [InlineData("a\n  {# note #}\nb{#- c -#}  d", "a\nbd")]
    [InlineData("{{ {'a': {'b': 1}}.a.b }}", "1")]
    // literals and printing
    [InlineData("{{ 'a\\n\\x41\\u00e9\\q' \"b\" }}", "a\nA\u00e9\\qb")]
    [InlineData(
        "{{ true }} {{ none }} {{ 1.5 }} {{ 1e20 }} {{ 0.00001 }} {{ 100.0 }} {{ 1_000 }}",
        "True None 1.5 1e+20 1e-05 100.0 1000")]
    [InlineData("{{ ['a', \"it's\", 1, none, (1,), {'k': 'v\\n'}] }}", "['a', \"it's\", 1, None, (1,), {'k': 'v\\n'}]")]
    [InlineData("[{{ missing }}]{{ missing is defined }}", "[]False")]
    // operators
    [InlineData("{{ 'a' + ' b ' | trim + 'c' }}", "abc")]
    [InlineData(
        "{{ 1 ~ 'x' ~ none }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 }} {{ 'ab' * 2 }}",
        "1xNone 3 -4 2 3.5 8 abab")]
    [InlineData(
        "{{ not 'x' in 'xyz' }} {{ 'q' not in ['a'] }} {{ 'k' in {'k': 1} }} {{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ true "
            + "== 1 }}",
        "False True True True True True")]
    [InlineData("{{ '' or 'b' }} {{ 'a' and 'b' }} {{ 'y' if false else 'n' }}[{{ 'y' if false }}]", "b b n[]")]
    [InlineData("{{ (1 == 2) != (3 % 2 == 1) }}", "True")]
    // subscripts and slices
    [InlineData(
        "{{ [1,2,3][::-1] }} {{ [1,2,3][1:] }} {{ 'abc'[-2:] }} {{ 'a😀c'[1] }} {{ ('a', 'b')[0] }} {{ "
            + "[1,2,3,4][::2] }}",
        "[3, 2, 1] [2, 3] bc 😀 a [1, 3]")]
    [InlineData(
        "{{ [[1, 2], [3]].0.1 }} {{ [1][5] is defined }} {{ d['x'].y }} {{ d.x['y'] }}", "2 False 1 1",
        "{\"d\": {\"x\": {\"y\": 1}}}")]
    // loops and scope
    [InlineData(
        "{% for x in [1,2,3] if x != 2 %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ x }};{% endfor %}",
        "1TrueFalse1;2FalseTrue3;")]
    [InlineData("{% for x in [] %}a{% else %}none{% endfor %}", "none")]
    [InlineData("{% set a = 1 %}{% for x in [1,2] %}{{ a }}{% set a = a + 1 %}{{ a }}{% endfor %}{{ a }}", "12121")]
    [InlineData(
        "{% set ns = namespace(n=0) %}{% for x in [1,2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "3")]
    [InlineData(
        "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}{% for k in {'a': 1} %}{{ k }}{% "
            + "endfor %}",
        "a1b2a")]
    [InlineData(
        "{% for x in range(5) %}{% if x == 1 %}{% continue %}{% elif x == 3 %}{% break %}{% endif %}{{ x }}{% "
            + "endfor %}",
        "02")]
    [InlineData(
        "{% for x in [1,2] %}{{ loop.previtem }}-{{ loop.nextitem }} {{ loop.revindex0 }}{{ loop.length }}{{ "
            + "loop.cycle('a','b') }};{% endfor %}",
        "-2 12a;1- 02b;")]
    [InlineData(
        "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t %}x{{ a }} {% endset %}[{{ t }}]{% set u | trim | upper %} y {% "
            + "endset %}[{{ u }}]",
        "12[x1 ][Y]")]
    [InlineData(
        "{% macro m(a, b='z') %}<{{ a }}{{ b }}>{% endmacro %}{{ m('x') }}{{ m('x', b=1) | length }}{{ m() }}",
        "<xz>4<z>")]
    [InlineData("{% generation %}answer{% endgeneration %}", "answer")]
    // filters and tests
    [InlineData(
        "{{ '  a ' | trim }}|{{ [1, 2] | join(', ') }}|{{ 'é' | upper }}|{{ 'a😀' | length }}|{{ missing | "
            + "default('d') }}|{{ '' | default('e', true) }}",
        "a|1, 2|É|2|d|e")]
    [InlineData(
        "{{ {'b': [1, 2.0, true, none], 'a': '<é\"\\n'} | tojson }}",
        "{\"b\": [1, 2.0, true, null], \"a\": \"<é\\\"\\n\"}")]
    [InlineData("{{ {'b': [1], 'c': []} | tojson(indent=2) }}", "{\n  \"b\": [\n    1\n  ],\n  \"c\": []\n}")]
    [InlineData(
        "{{ [{'r': 'u', 'c': 1}, {'r': 's', 'c': 2}] | selectattr('r', 'equalto', 'u') | map(attribute='c') | list "
            + "}}{{ ['a', 'b'] | reject('equalto', 'a') | list }}",
        "[1]['b']")]
    [InlineData(
        "{{ [3, 4] | first }}{{ [3, 4] | last }}{{ 'ab' | list }}{{ '12' | int + 1 }}{{ 5 | string + 'x' }}{{ 'a-b' | "
            + "replace('-', '+') }}",
        "34['a', 'b']135xa+b")]
    [InlineData(
        "{{ 'a\nb' | indent(2) }}|{{ {'k': 1} | items | list }}|{{ ['x', 'y'] | map('upper') | join }}",
        "a\n  b|[('k', 1)]|XY")]
    [InlineData(
        "{{ 'a' is string }} {{ {} is mapping }} {{ [] is iterable }} {{ none is none }} {{ 1 is number }} {{ true is "
            + "boolean }} {{ 3 is odd }} {{ 4 is divisibleby 2 }} {{ none is sameas none }} {{ 'a' is in ['a'] }} {{ "
            + "'a' is not string }}",
        "True True True True True True True True True True False")]
    // methods
    [InlineData(
        "{{ ' a,b ,c '.strip().split(',') }} {{ 'a  b c'.split() }} {{ 'a.b.c'.split('.', 1) }} {{ "
            + "'a.b.c'.rsplit('.', 1) }} {{ 'xxaxx'.strip('x') }} {{ '\\n\\na'.lstrip('\\n') }}",
        "['a', 'b ', 'c'] ['a', 'b', 'c'] ['a', 'b.c'] ['a.b', 'c'] a a")]
    [InlineData(
        "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'hello world'.title() }} {{ "
            + "'hEL'.capitalize() }} {{ 'aXa'.replace('a', 'b', 1) }} {{ 'abcb'.find('c') }} {{ '-'.join(['a', 'b']) "
            + "}} {{ d.get('q', 'no') }}",
        "True True Hello World Hel bXa 2 a-b no", "{\"d\": {}}")]
    [InlineData("{{ strftime_now('%d %b %Y %H:%M %-d %A') }}", "06 Jul 2024 09:05 6 Saturday")]
    [InlineData(
        "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ tools is none }}{{ pad_token is defined }}",
        "<s></s>TrueTrueFalse")]
    public void Expected(string template, string text, string variables = "{}") =>
        Assert.Equal(text, Render(template, variables));

    [Theory]
    [InlineData("{% include 'x' %}", "include")]
    [InlineData("{% call m() %}{% endcall %}", "call")]
    [InlineData("{{ x | frobnicate }}", "frobnicate")]
    [InlineData("{{ 1 is prime }}", "prime")]
    [InlineData("{{ 'a'.encode() }}", "encode")]
    [InlineData("{{ '%s' % 'a' }}", "formatting with %")]
    [InlineData("{% for x in [1] recursive %}{% endfor %}", "recursive")]
    [InlineData("{{ lipsum() }}", "lipsum")]
    [InlineData("{{ pad_token }}", "pad_token")]
    [InlineData("{{ strftime_now('%Q') }}", "%Q")]
    [InlineData("{{ [1] | tojson(foo=1) }}", "foo")]
    [InlineData("{{ f(*x) }}", "unpacking")]
    [InlineData("{{ nothing.here }}", "'nothing' is undefined")]
    [InlineData("{{ 'a' + none }}", "+ of a string and none")]
    [InlineData("{{ 'a' + missing }}", "'missing' is undefined")]
    [InlineData("{% if true %}", "endif")]
    [InlineData("{% endfor %}", "endfor")]
    [InlineData("{{ 'a", "no end")]
    [InlineData("{{ a b }}", "'b'")]
    [InlineData("\n\n{{ }}", "line 3")]
    [InlineData("{{ 1 / 0 }}", "zero")]
    [InlineData("{{ 9223372036854775807 + 1 }}", "64 bits")]
    [InlineData("{{ raise_exception('roles must alternate') }}", "roles must alternate")]
    public void RefusedByName(string template, string says)
    {
        var e = Assert.Throws<HeadroomException>(() => Render(template));
        Assert.Contains(says, e.Message);
        Assert.DoesNotContain('\n', e.Message);
    }

    public static TheoryData<string> Hostile()
    {
        string nested = string.Concat(Enumerable.Repeat("{% if true %}", 20_000)),
            sums = "{{ 1" + string.Concat(Enumerable.Repeat("+1", 200_000)) + " }}";
        return
        [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% for a in range(10000000) %}{% endfor %}",
            "{{ 'a' * 999999999 * 999 }}",
            "{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}{% for a in range(90) %}{% set ns.x = ns.x + ns.x %}{% "
                + "endfor %}",
            "{% set ns = namespace(x=[1]) %}{% for a in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
                + "ns.x }}",
            "{% set ns = namespace(x=[1]) %}{% for a in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x "
                + "| tojson }}",
            "{% set ns = namespace(x=[1], y=[1]) %}{% for a in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = "
                + "[ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
            "{% set ns = namespace(x=[]) %}{% for a in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
            "{{ " + new string('(', 100_000) + "1" + new string(')', 100_000) + " }}",
            "{{ " + string.Concat(Enumerable.Repeat("not ", 100_000)) + "1 }}",
            nested + "x",
            sums,
        ];
    }

    [Theory]
    [MemberData(nameof(Hostile))]
    public void HostileTemplatesEnd(string template) => Assert.Throws<HeadroomException>(() => Render(template));

    private const string Talk =
        """[{"role": "system", "content": "Be terse."}, {"role": "user", "content": " Hi "}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}]""";

    [Fact]
    public void Llama2() =>
        Assert.Equal(
            "<s>[INST] <<SYS>>\nBe terse.\n<</SYS>>\n\n Hi  [/INST] Hello. </s><s>[INST] Bye [/INST]".Replace(
                "  [/INST] Hello", " [/INST] Hello", StringComparison.Ordinal),
            Render(
                "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message "
                    + "= messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = "
                    + "false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != "
                    + "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
                    + "user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != "
                    + "false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + "
                    + "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if "
                    + "message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif "
                    + "message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% "
                    + "endfor %}",
                messages: Talk
            )
        );

    [Fact]
    public void MistralRefusesRolesThatDoNotAlternate()
    {
        const string template =
            "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) "
                + "%}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% "
                + "endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif "
                + "message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% else %}{{ "
                + "raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}";
        Assert.Equal(
            "<s>[INST] Hi [/INST]Ho</s>[INST] Bye [/INST]",
            Render(
                template,
                messages: """[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "Bye"}]"""
            )
        );
        Assert.Contains(
            "must alternate", Assert.Throws<HeadroomException>(() => Render(template, messages: Talk)).Message);
    }

    [Fact]
    public void TinyLlama() =>
        Assert.Equal(
            "<|system|>\nBe terse.</s>\n<|user|>\n Hi "
                + "</s>\n<|assistant|>\nHello.</s>\n<|user|>\nBye</s>\n<|assistant|>\n",
            Render(
                "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
                    + "message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + "
                    + "message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n{{ "
                    + "'<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n{% if loop.last and "
                    + "add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
                messages: Talk
            )
        );

    [Fact]
    public void DeepSeekLlm() =>
        Assert.Equal(
            "<s>Be terse.\n\nUser:  Hi \n\nAssistant: Hello.</s>User: Bye\n\nAssistant:",
            Render(
                "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ "
                    + "bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + "
                    + "message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + "
                    + "message['content'] + eos_token }}{% elif message['role'] == 'system' %}{{ message['content'] + "
                    + "'\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
                messages: Talk
            )
        );

    [Fact]
    public void QwenTools()
    {
        const string calls =
            """[{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": {"city": "Köln"}}}]}, {"role": "tool", "content": "rain"}]""";
        var tokenizer = TokenizerLoader.Load(Shared.DataFile("tokenizers/qwen3"));
        var tools = JsonNode
            .Parse("""{"tools": [{"type": "function", "function": {"name": "w"}}], "enable_thinking": false}""")!
            .AsObject();
        string text = ChatTemplate.Get(tokenizer).Render(JsonNode.Parse(calls)!.AsArray(), true, tools);
        Assert.Contains("<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"w\"}}\n</tools>", text);
        Assert.Contains(
            "<tool_call>\n{\"name\": \"w\", \"arguments\": {\"city\": "
                + "\"Köln\"}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nrain\n</tool_response><|"
                + "im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            text);
    }

    /// <summary>
    /// transformers' special_tokens_map of the tokenizer_config.json files themselves; what a file sets to null is
    /// undefined.
    /// </summary>
    [Theory]
    [InlineData(
        "deepseek-llm-7b", "{{ pad_token }}|{{ unk_token is defined }}|{{ unk_token }}|{{ additional_special_tokens }}",
        "<\uFF5Cend\u2581of\u2581sentence\uFF5C>|False||")]
    [InlineData("llama2", "{{ unk_token }}|{{ pad_token is defined }}", "<unk>|False")]
    [InlineData(
        "smollm2", "{{ pad_token }}|{{ unk_token }}|{{ sep_token is defined }}", "<|im_end|>|<|endoftext|>|False")]
    [InlineData(
        "qwen3", "{{ pad_token }}|{{ additional_special_tokens[1] }}|{{ additional_special_tokens | length }}",
        "<|endoftext|>|<|im_end|>|13")]
    [InlineData("llama3", "{{ pad_token is defined }}{{ mask_token }}", "False")]
    public void SpecialTokens(string folder, string template, string text) =>
        Assert.Equal(
            text,
            new ChatTemplate(template, TokenizerLoader.Load(Shared.DataFile("tokenizers/" + folder))).Render(
                [new ChatMessage("user", "a")], false)
        );

    [Fact]
    public void SpecialTokensOfOtherFiles()
    {
        using var folder = new TempFolder();
        File.Copy(Shared.DataFile("tokenizers/smollm2/tokenizer.json"), Path.Combine(folder.Path, "tokenizer.json"));
        string Of(string template) =>
            new ChatTemplate(template, TokenizerLoader.Load(folder.Path)).Render([new ChatMessage("user", "a")], false);
        // no file says
        Assert.Contains("pad_token", Assert.Throws<HeadroomException>(() => Of("{{ pad_token }}")).Message);
        File.WriteAllBytes(
            Path.Combine(folder.Path, "special_tokens_map.json"),
            "{\"pad_token\":{\"content\":\"<pad>\"},\"mask_token\":\"<m>\"}"u8.ToArray());
        Assert.Equal("<pad><m>", Of("{{ pad_token }}{{ mask_token }}{{ unk_token }}"));
        File.WriteAllBytes(
            Path.Combine(folder.Path, "tokenizer_config.json"),
            [
                .. "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"pad_token\":\"<p>\","u8,
                .. "\"extra_special_tokens\":{\"image_token\":\"<i>\"}}"u8,
            ]
        );
        Assert.Equal("<p><m><unk><i>", Of("{{ pad_token }}{{ mask_token }}{{ unk_token }}{{ image_token }}"));
        var gguf = TokenizerLoader.Load(
            Shared.DataFile("models/SmolLM2-135M-Instruct/SmolLM2-135M-Instruct.Q4_1.gguf"));
        Assert.Equal(
            "<|im_end|>|<|endoftext|>",
            new ChatTemplate("{{ pad_token }}|{{ unk_token }}", gguf).Render([new ChatMessage("user", "a")], false));
        Assert.Throws<HeadroomException>(() =>
            new ChatTemplate("{{ additional_special_tokens }}", gguf).Render([new ChatMessage("user", "a")], false)
        );
    }
}
