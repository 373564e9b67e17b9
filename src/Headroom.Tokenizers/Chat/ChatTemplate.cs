using System.Text.Json.Nodes;
using Headroom.Core;

namespace Headroom.Tokenizers.Chat;

/// <summary>One message of a conversation.</summary>
/// <param name="Role">system, user, assistant or tool.</param>
/// <param name="Content">Its text.</param>
public sealed record ChatMessage(string Role, string Content);

/// <summary>
/// A model's chat template: Jinja text that turns messages into the prompt the model was trained on. Rendered as
/// transformers does (<c>chat_template_utils.py</c>: trim_blocks, lstrip_blocks, its tojson, raise_exception,
/// strftime_now) by a small interpreter with bounded work; a construct outside of the subset is an error that names it.
/// </summary>
public sealed class ChatTemplate
{
    private const int LongestSource = 1 << 20;
    private readonly JinjaTemplate _template;
    private readonly ITokenizer _tokenizer;
    private readonly Lazy<string> _generationPrompt, _header;
    private readonly Lazy<string?> _closing;

    /// <summary>Parses a template.</summary>
    /// <param name="source">Jinja text.</param>
    /// <param name="tokenizer">Gives bos_token, eos_token and the other special tokens, and encodes.</param>
    /// <exception cref="HeadroomException">It is not Jinja, or uses what is not supported.</exception>
    public ChatTemplate(string source, ITokenizer tokenizer)
    {
        if (source.Length > LongestSource)
            throw new HeadroomException(
                $"The chat template has {source.Length} characters.",
                "A template this long cannot be right; use another copy of the model's tokenizer_config.json.");
        _template = JinjaParser.Parse(source);
        _tokenizer = tokenizer;
        _generationPrompt = new(() => GenerationPrompt(null));
        _header = new(Header);
        _closing = new(ClosingToken);
    }

    /// <summary>The template of a tokenizer. Throws <see cref="HeadroomException"/> when it has none.</summary>
    public static ChatTemplate Get(ITokenizer tokenizer) =>
        tokenizer.ChatTemplate is { } source
            ? new ChatTemplate(source, tokenizer)
            : throw new HeadroomException(
                "The model has no chat template.",
                "Use an instruction-tuned model, put a chat_template.jinja beside its tokenizer, or use generate with "
                    + "the prompt written out."
            );

    /// <summary>The prompt of a conversation as text.</summary>
    /// <param name="messages">In order.</param>
    /// <param name="addGenerationPrompt">End with what opens the assistant's answer.</param>
    /// <param name="variables">More variables of the template (date_string, enable_thinking, tools, ...), or
    /// null.</param>
    /// <param name="now">What strftime_now reads; null = the local time.</param>
    public string Render(
        IEnumerable<ChatMessage> messages, bool addGenerationPrompt, JsonObject? variables = null,
        DateTimeOffset? now = null) =>
        Render(
            new JsonArray(
                messages.Select(m => (JsonNode)new JsonObject { ["role"] = m.Role, ["content"] = m.Content }).ToArray()
            ),
            addGenerationPrompt,
            variables,
            now
        );

    /// <summary>
    /// The same for messages in JSON, which may hold more than role and content (tool_calls, reasoning_content, ...).
    /// </summary>
    public string Render(
        JsonArray messages, bool addGenerationPrompt, JsonObject? variables = null, DateTimeOffset? now = null) =>
        JinjaInterpreter.Render(
            _template, Variables(JinjaValues.From(messages), addGenerationPrompt, variables),
            now ?? DateTimeOffset.Now);

    /// <summary>
    /// The same text with what of it assistants write: content, thoughts and calls of tools, each with the token that
    /// ends the turn. Every character is followed through the template, so this holds for any of them, with or without
    /// generation blocks; a template that does with a message what cannot be followed is refused by the name of that.
    /// </summary>
    /// <param name="messages">As in <see cref="Render(JsonArray, bool, JsonObject?, DateTimeOffset?)"/>.</param>
    /// <param name="variables">Likewise.</param>
    /// <param name="now">Likewise.</param>
    /// <exception cref="HeadroomException">The template refuses the messages, or cannot be followed.</exception>
    internal MarkedText RenderMarked(JsonArray messages, JsonObject? variables = null, DateTimeOffset? now = null)
    {
        var marks = new Provenance();
        var marked = new MessageMarks(marks).Read(messages);
        string text = JinjaInterpreter.Render(
            _template, Variables(marked, false, variables), now ?? DateTimeOffset.Now, marks, out var found);
        // tools alone say nothing of the prompt's end; other variables may (enable_thinking).
        string prompt = variables?.Any(v => v.Key != "tools") == true
            ? GenerationPrompt(variables) : _generationPrompt.Value;
        return new TurnFinder(text, found, prompt, PromptBefore, EndToken).Find();

        // Where a template has no generation prompt, the rendering of what came before ends where the answer begins,
        // but for a header.
        int? PromptBefore(int message)
        {
            try
            {
                string before = Render(
                    new JsonArray([.. messages.Take(message).Select(m => m?.DeepClone())]), true, variables, now);
                if (!text.StartsWith(before, StringComparison.Ordinal)) return null;
                bool isHeaded = text.AsSpan(before.Length).StartsWith(_header.Value);
                return before.Length + (isHeaded ? _header.Value.Length : 0);
            }
            catch (HeadroomException)
            {
                return null; // it refuses a conversation that ends there
            }
        }

        // The first special token, or the one that ends answers in words or sequences where that follows with nothing
        // but other special tokens and blanks between. Where the template ends an answer in words with no token, one
        // counts only right behind the answer: it opens the next turn, and to write it is to end one's own.
        (int, int)? EndToken(int from, int to)
        {
            var found = Specials(text, from, to);
            if (found.Count == 0) return null;
            if (_closing.Value == null && !string.IsNullOrWhiteSpace(text[from..found[0].Start])) return null;
            for (int i = 0; i < found.Count; i++)
            {
                if (i > 0 && !string.IsNullOrWhiteSpace(text[found[i - 1].End..found[i].Start])) break;
                if (found[i].Token == _closing.Value || found[i].Token == Eos) return (found[i].Start, found[i].End);
            }
            return (found[0].Start, found[0].End);
        }
    }

    private string? Eos => _tokenizer.EosId is { } eos ? _tokenizer.IdToToken(eos) : null;

    private List<(int Start, int End, string Token)> Specials(string text, int from, int to)
    {
        if (_tokenizer is BpeTokenizer bpe) return [.. bpe.Specials(text, from, to)];
        int at = Eos is { Length: > 0 } eos ? text.IndexOf(eos, from, to - from, StringComparison.Ordinal) : -1;
        return at < 0 ? [] : [(at, at + Eos!.Length, Eos)];
    }

    // The first special token behind an answer in words.
    private string? ClosingToken()
    {
        const string answer = "xyzzy";
        try
        {
            string text = Render([new ChatMessage("user", "a"), new ChatMessage("assistant", answer)], false);
            int at = text.LastIndexOf(answer, StringComparison.Ordinal);
            return at < 0 ? null
                : Specials(text, at + answer.Length, text.Length).Select(t => t.Token).FirstOrDefault();
        }
        catch (HeadroomException)
        {
            return null;
        }
    }

    // What a prompt has behind its messages; nothing where the template cannot say.
    private string GenerationPrompt(JsonObject? variables)
    {
        try
        {
            ChatMessage[] asked = [new("user", "a")];
            string without = Render(asked, false, variables), with = Render(asked, true, variables);
            return with.StartsWith(without, StringComparison.Ordinal) ? with[without.Length..] : "";
        }
        catch (HeadroomException)
        {
            return "";
        }
    }

    // What stands between a prompt and an answer in words: the header of a turn, where no generation prompt writes it.
    private string Header()
    {
        const string answer = "xyzzy";
        try
        {
            ChatMessage[] asked = [new("user", "a")];
            string prompt = Render(asked, true), text = Render([.. asked, new("assistant", answer)], false);
            int at = text.LastIndexOf(answer, StringComparison.Ordinal);
            return at >= prompt.Length && text.StartsWith(prompt, StringComparison.Ordinal)
                ? text[prompt.Length..at] : "";
        }
        catch (HeadroomException)
        {
            return "";
        }
    }

    private PyDict Variables(object? messages, bool addGenerationPrompt, JsonObject? variables)
    {
        var all = new PyDict
        {
            ["messages"] = messages,
            ["tools"] = null,
            ["documents"] = null,
            ["add_generation_prompt"] = addGenerationPrompt,
        };
        if (_tokenizer.BosId is { } bos) all["bos_token"] = _tokenizer.IdToToken(bos);
        if (_tokenizer.EosId is { } eos) all["eos_token"] = _tokenizer.IdToToken(eos);
        if (_tokenizer.SpecialTokens is { } named)
        {
            // A name that the tokenizer does not set is undefined, as in transformers; one that nothing is known of is
            // refused by the interpreter.
            foreach (string name in JinjaInterpreter.SpecialTokenNames) all[name] = new Undefined(name);
            foreach (var (name, token) in named) all[name] = token;
        }
        if (_tokenizer.AdditionalSpecialTokens is { } more)
            all["additional_special_tokens"] =
                more.Count > 0 ? more.Cast<object?>().ToList() : new Undefined("additional_special_tokens");
        if (variables != null)
            foreach (var (name, value) in variables) all[name] = JinjaValues.From(value);
        return all;
    }

    /// <summary>
    /// The token with which a template closes the assistant's turn (&lt;|im_end|&gt;, &lt;|eot_id|&gt;, ...), which
    /// some models do not list as eos_token; null when it closes with text, or cannot be rendered.
    /// </summary>
    public static int? EndToken(string source, ITokenizer tokenizer)
    {
        const string answer = "xyzzy";
        try
        {
            string text = new ChatTemplate(source, tokenizer).Render(
                [new ChatMessage("user", "a"), new ChatMessage("assistant", answer)], addGenerationPrompt: false);
            int at = text.LastIndexOf(answer, StringComparison.Ordinal);
            if (at < 0) return null;
            string rest = text[(at + answer.Length)..].TrimStart();
            if (!rest.StartsWith('<')) return null;
            // Only a token that stands for its own spelling from bracket to bracket: "<" of a plain "</answer>" is
            // none.
            foreach (int id in tokenizer.Encode(rest))
                if (
                    tokenizer.IdToToken(id) is { Length: > 2 } piece
                    && piece[^1] == '>'
                    && rest.StartsWith(piece, StringComparison.Ordinal)
                )
                    return id;
            return null;
        }
        catch (HeadroomException)
        {
            return null;
        }
    }

    /// <summary>
    /// The prompt of a conversation as ids: the template alone decides about BOS, nothing is added (transformers
    /// <c>apply_chat_template</c>).
    /// </summary>
    public int[] Encode(IEnumerable<ChatMessage> messages, bool addGenerationPrompt) =>
        _tokenizer.Encode(Render(messages, addGenerationPrompt));
}

/// <summary>Prompts to ids.</summary>
internal static class PromptEncoding
{
    /// <summary>
    /// Encodes a prompt with the special tokens that the tokenizer adds, but never a second BOS: a text that starts
    /// with it (a rendered template) keeps that one.
    /// </summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="text">The prompt.</param>
    /// <returns>Ids; none for an empty text of a tokenizer that adds nothing.</returns>
    public static int[] EncodePrompt(this ITokenizer tokenizer, string text)
    {
        int[] ids = tokenizer.Encode(text, addSpecial: true);
        return tokenizer.AddBos && ids.Length > 1 && ids[0] == tokenizer.BosId && ids[1] == tokenizer.BosId
            ? ids[1..]
            : ids;
    }
}
