namespace Headroom.Tests.Chat;

/// <summary>A chat template of our own in the style of a family of models.</summary>
/// <param name="Name">Style.</param>
/// <param name="Specials">Special tokens, the one that ends a sequence first.</param>
/// <param name="End">What ends an assistant's turn in words, with the blanks before it; empty: no token does.</param>
/// <param name="Source">Jinja.</param>
public sealed record MaskTemplate(string Name, string[] Specials, string End, string Source)
{
    /// <summary>Whether it writes calls of tools.</summary>
    public bool Tools { get; init; }
    /// <summary>Whether it writes reasoning_content of the last turn between think tags.</summary>
    public bool Thinks { get; init; }
    /// <summary>Whether it trims what is said.</summary>
    public bool Trims { get; init; }
    /// <summary>What stands behind the last answer alone, where that differs.</summary>
    public string? LastEnd { get; init; }
    public override string ToString() => Name;
}

/// <summary>
/// Thirty templates, written for these tests: loops, namespaces, macros, blocks, filters, methods, tools, thoughts.
/// </summary>
internal static class MaskTemplates
{
    private static readonly string[] ChatMl = ["<|im_end|>", "<|im_start|>", "<|endoftext|>"];

    private const string ChatMlLoop =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
            + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    private const string Calls =
        "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ '\n<tool_call>\n' }}{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}"
            + "{{ '\n</tool_call>' }}{% endfor %}{% endif %}";

    public static readonly MaskTemplate[] All =
    [
        new("chatml", ChatMl, "<|im_end|>", ChatMlLoop),
        new("chatml-generation", ChatMl, "<|im_end|>",
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
                + "{% else %}{{ '<|im_start|>' ~ m['role'] ~ '\n' ~ m['content'] ~ '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
        new("chatml-system-default", ChatMl, "<|im_end|>",
            "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}" + ChatMlLoop),
        new("chatml-macro", ChatMl, "<|im_end|>",
            "{% macro turn(role, text) %}<|im_start|>{{ role }}\n{{ text }}<|im_end|>\n{% endmacro %}{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}"
                + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"),
        new("chatml-set-block", ChatMl, "<|im_end|>",
            "{% for m in messages %}{% set body %}{{ m.content }}{% endset %}{{ '<|im_start|>' }}{{ m.role }}{{ '\n' }}{{ body | trim }}{{ '<|im_end|>\n' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}") { Trims = true },
        new("chatml-namespace", ChatMl, "<|im_end|>",
            "{% set ns = namespace(text='', n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.text = ns.text + '<|im_start|>' + m.role + '\n' + m.content.strip() + '<|im_end|>\n' %}{% endfor %}"
                + "{{ ns.text }}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}") { Trims = true },
        new("chatml-join", ChatMl, "<|im_end|>",
            "{% for m in messages %}{{ ['<|im_start|>', m.role, '\n', m.content, '<|im_end|>', '\n'] | join('') }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"),
        new("chatml-split", ChatMl, "<|im_end|>",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for line in m.content.split('\n') %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ line }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
        new("chatml-characters", ChatMl, "<|im_end|>",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for c in m.content %}{{ c }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
        new("chatml-slices", ChatMl, "<|im_end|>",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content[:3] + m.content[3:] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
        new("chatml-partition", ChatMl, "<|im_end|>",
            "{% for m in messages %}{% set p = m.content.partition(' ') %}{{ '<|im_start|>' + m.role + '\n' + p[0] + p[1] + p[2] + '<|im_end|>\n' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
        new("chatml-filter-block", ChatMl, "<|im_end|>",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% filter trim %}{{ m.content }}{% endfilter %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
            { Trims = true },
        new("chatml-parts", ChatMl, "<|im_end|>",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
        new("hermes-tools", ChatMl, "<|im_end|>",
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% if m.content %}{{ m.content }}{% endif %}" + Calls + "{{ '<|im_end|>\n' }}{% else %}"
                + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}") { Tools = true },
        new("thinker", ChatMl, "<|im_end|>",
            "{% for m in messages %}{% set content = m.content %}{% if m.role == 'assistant' %}{% set thought = '' %}{% if m.reasoning_content is defined and m.reasoning_content is not none %}"
                + "{% set thought = m.reasoning_content %}{% elif '</think>' in content %}{% set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
                + "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}{% if loop.last %}{{ '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
                + "{% else %}{{ '<|im_start|>assistant\n' + content }}{% endif %}" + Calls + "{{ '<|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' + content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}") { Tools = true, Thinks = true },
        new("llama-2", ["</s>", "<s>"], " </s>",
            "{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
                + "{% for m in rest %}{% if m.role == 'user' %}{{ '<s>[INST] ' + (system if loop.first else '') + m.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' </s>' }}{% endif %}{% endfor %}")
            { Trims = true },
        new("mistral-tools", ["</s>", "<s>", "[INST]", "[/INST]", "[TOOL_CALLS]"], "</s>",
            "<s>{% for m in messages %}{% if m.role == 'assistant' %}{% if m.tool_calls %}[TOOL_CALLS] [{% for c in m.tool_calls %}{{ c.function | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}]</s>"
                + "{% else %} {{ m.content }}</s>{% endif %}{% else %}[INST] {{ m.content }}[/INST]{% endif %}{% endfor %}") { Tools = true },
        new("llama-3",
            ["<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            "<|eot_id|>",
            "{% set loop_messages = messages %}{% for m in loop_messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}"
                + "{% if loop.index0 == 0 %}{% set content = '<|begin_of_text|>' + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
            { Trims = true },
        new("gemma", ["<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>",
            "<bos>{% for m in messages %}{% if m.role == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m.role %}{% endif %}{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}") { Trims = true },
        new("phi-3", ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"], "<|end|>",
            "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"),
        new("phi-4", ["<|im_end|>", "<|im_start|>", "<|im_sep|>"], "<|im_end|>",
            "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|im_sep|>' + m.content + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"),
        new("zephyr", ["</s>", "<|user|>", "<|assistant|>", "<|system|>"], "</s>",
            "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}{% endfor %}"),
        new("vicuna", ["</s>"], "</s>",
            "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}{% elif m.role == 'user' %}{{ 'USER: ' + m.content + '\n' }}{% else %}{{ 'ASSISTANT: ' + m.content + '</s>\n' }}{% endif %}{% endfor %}"
                + "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"),
        new("alpaca-words", ["</s>"], "",
            "{% for m in messages %}{% if m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n\n' }}{% elif m.role == 'assistant' %}{{ '### Response:\n' + m.content + '\n\n' }}{% else %}{{ m.content + '\n\n' }}{% endif %}"
                + "{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"),
        new("command-r",
            [
                "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>",
                "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>",
            ],
            "<|END_OF_TURN_TOKEN|>",
            "<BOS_TOKEN>{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' }}{{ {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}.get(m.role, '<|SYSTEM_TOKEN|>') }}{{ m.content | trim }}{{ '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}") { Trims = true },
        new("deepseek",
            ["<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
            "<｜end▁of▁sentence｜>",
            "{% set ns = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}{% set ns.system = ns.system + m.content %}{% endif %}{% endfor %}<｜begin▁of▁sentence｜>{{ ns.system }}{% for m in messages %}"
                + "{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% elif m.role == 'assistant' %}{% set content = m.content %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
                + "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"),
        new("glm-4", ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>"], "<|user|>",
            "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}") { LastEnd = "" },
        new("granite", ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"], "<|end_of_text|>",
            "{% for m in messages %}{{ '<|start_of_role|>' ~ m.role ~ '<|end_of_role|>' ~ m.content ~ '<|end_of_text|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"),
        new("olmo", ["<|endoftext|>"], "<|endoftext|>",
            "{{ '<|endoftext|>' }}{% for m in messages %}{% if m.role == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n' + m.content + eos_token + '\n' }}{% else %}{{ '<|assistant|>\n' + m.content + eos_token }}{% endif %}"
                + "{% else %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"),
        new("exaone", ["[|endofturn|]", "[|user|]", "[|assistant|]", "[|system|]"], "[|endofturn|]",
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ '[|assistant|]' + m.content }}{{ '[|endofturn|]\n' }}{% else %}{{ '[|' + m.role + '|]' + m.content + '\n' }}{% endif %}{% endfor %}"
                + "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"),
        new("falcon", ["<|im_end|>"], "\n<|im_end|>",
            "{% for m in messages %}{{ (m.role | capitalize) ~ ': ' ~ (m.content | replace('\r\n', '\n')) ~ '\n' }}{% if m.role == 'assistant' %}{{ '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"),
    ];
}
