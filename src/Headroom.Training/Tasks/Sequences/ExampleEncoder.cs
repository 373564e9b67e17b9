using Headroom.Core;
using Headroom.Formats.Data;
using Headroom.Tokenizers;
using Headroom.Tokenizers.Chat;
using Headroom.Training.Data;
using Headroom.Training.Data.Forms;
using Headroom.Training.Recipes;

namespace Headroom.Training.Tasks.Sequences;

/// <summary>
/// Examples to tokens, with what of them is an answer. A conversation is rendered by the chat template, which says for
/// every character whether it comes from an assistant (<see cref="ChatTemplate.RenderMarked"/>). Safe for use from
/// several threads.
/// </summary>
internal sealed class ExampleEncoder
{
    private readonly TaskOptions _task;
    private readonly ITokenizer _tokenizer;
    private readonly Lazy<ChatTemplate> _template;

    /// <summary>Over a tokenizer, and its chat template or that of the task.</summary>
    /// <exception cref="HeadroomException">The task's template cannot be read.</exception>
    public ExampleEncoder(TaskOptions task, ITokenizer tokenizer)
    {
        (_task, _tokenizer) = (task, tokenizer);
        string? own = task.ChatTemplate == null ? null : TemplateText(task.ChatTemplate, "");
        HasTemplate = own != null || tokenizer.ChatTemplate != null;
        _template = new(() => own == null ? ChatTemplate.Get(tokenizer) : new ChatTemplate(own, tokenizer));
        if (own != null) _ = _template.Value; // a template that is none is refused before a row is read
    }

    private bool HasTemplate { get; }

    /// <summary>Tokens and answers of a row.</summary>
    public SequenceTokens Encode(DataRow row)
    {
        // A text of the reviews that come with Headroom is a plain row.
        if (row is not ExampleRow(var example, var where))
            return new(TextType.Ended(_tokenizer, _tokenizer.EncodePrompt(row.Text)), null);
        return Encode(example, where);
    }

    /// <summary>Tokens and answers of an example.</summary>
    /// <exception cref="HeadroomException">The template refuses it; the place is named.</exception>
    public SequenceTokens Encode(Example example, string where)
    {
        try
        {
            return example switch
            {
                Conversation c => Encode(c),
                Instruction i => HasTemplate ? Encode(i.ToConversation()) : Encode(i.ToCompletion()),
                Completion c => Encode(c),
                PlainText t => new(TextType.Ended(_tokenizer, _tokenizer.EncodePrompt(t.Text)), null),
                _ => throw new InvalidOperationException($"no encoding of {example.GetType().Name}"),
            };
        }
        catch (HeadroomException e)
        {
            throw new HeadroomException($"{where}: {e.Message}", e.ToDo, e.ExitCode, e);
        }
    }

    /// <summary>Tokens of an example without its answer, up to where the model goes on.</summary>
    /// <exception cref="HeadroomException">The template refuses it.</exception>
    public int[] Prompt(Example example) => example switch
    {
        Conversation c => _tokenizer.Encode(_template.Value.Render(c.Messages, true, c.Variables)),
        Instruction i => Prompt(HasTemplate ? i.ToPrompt() : i.ToCompletion()),
        Completion c => _tokenizer.EncodePrompt(c.Prompt),
        _ => throw new InvalidOperationException($"no prompt of {example.GetType().Name}"),
    };

    private SequenceTokens Encode(Conversation c)
    {
        var marked = _template.Value.RenderMarked(c.Messages, c.Variables);
        var turns = marked.Turns.Where(t => c.Learned[t.Message] && (_task.TrainOnReasoning || !t.Reasoning)).ToList();
        if (_task.LastTurnOnly && turns.Count > 0)
        {
            int last = turns[^1].Message;
            turns.RemoveAll(t => t.Message != last);
        }
        var (ids, offsets) = _tokenizer.EncodeWithOffsets(marked.Text);
        var spans = TokenSpans.Find(turns, offsets);
        bool open = marked.Unclosed.Contains(c.Messages.Count - 1);
        return open && _tokenizer.EosId is { } eos ? Closed(ids, spans, eos) : new(ids, spans);
    }

    // A template that closes an answer with no token: the end of the row stands for it.
    private static SequenceTokens Closed(int[] ids, IReadOnlyList<LabelSpan> spans, int eos) =>
        new(
            [.. ids, eos],
            spans.Count > 0 && spans[^1].End == ids.Length
                ? [.. spans.SkipLast(1), spans[^1] with { End = ids.Length + 1 }]
                : [.. spans, new LabelSpan(ids.Length, ids.Length + 1)]);

    private SequenceTokens Encode(Completion c)
    {
        var (ids, offsets) = _tokenizer.EncodeWithOffsets(c.Prompt + c.Answer);
        int first = 0;
        while (first < ids.Length && offsets[first].End <= c.Prompt.Length) first++;
        int bos = _tokenizer.AddBos && _tokenizer.BosId is { } b && (ids.Length == 0 || ids[0] != b) ? 1 : 0;
        if (bos == 1)
        {
            ids = [_tokenizer.BosId!.Value, .. ids];
            first++;
        }
        ids = TextType.Ended(_tokenizer, ids);
        return new(ids, [new LabelSpan(first, ids.Length)]);
    }

    /// <summary>The template that task.chat_template gives, or names as a file.</summary>
    /// <param name="given">The key's value.</param>
    /// <param name="folder">What a path is relative to.</param>
    /// <exception cref="HeadroomException">It is neither.</exception>
    internal static string TemplateText(string given, string folder)
    {
        if (given.Contains("{{", StringComparison.Ordinal) || given.Contains("{%", StringComparison.Ordinal))
            return given;
        string path = Path.Combine(folder, given);
        if (!File.Exists(path))
            throw new HeadroomException(
                $"task.chat_template {HeadroomException.Value(given)} is no file and no template.",
                "Name a .jinja file, or give the template's text.");
        return RecipeLoader.ReadText(path);
    }
}
